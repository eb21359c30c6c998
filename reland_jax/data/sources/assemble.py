"""From frames to a `RawTable`: the same rules for the columns of every format."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources.columns import (
    Column,
    Frame,
    Usual,
    find,
    listed,
    refuse_twice,
    roles_of,
    text_columns,
)
from reland_jax.data.sources.odd_ids import odd_ids
from reland_jax.data.sources.raw import FeatureTable, RawTable, Tokens, feature_table, split_codes
from reland_jax.data.sources.times import times
from reland_jax.data.sources.values import ids, ratings, texts
from reland_jax.types import RelandError


def assemble(
    frame: Frame,
    config: DataConfig,
    usual: Usual,
    items: Frame | None = None,
    users: Frame | None = None,
    notes: Sequence[str] = (),
) -> RawTable:
    """Reads interactions, and what describes items and users.

    Args:
        frame: the interactions.
        config: the settings that name columns, and `min_rating`.
        usual: what the format calls its columns.
        items: the table of the items: a column of ids, and others that become features.
        users: the same for the users.
        notes: remarks so far, for the account of the loading.

    Raises:
        RelandError: a column that is not there, or a value that cannot be used, with its place.
    """
    log = list(notes)
    roles = roles_of(frame, usual, config, log)
    of_items = None if items is None else _features(items, roles.item, usual.item, config.text_fields, log)
    of_users = None if users is None else _features(users, roles.user, usual.user, (), log)
    inline = text_columns(frame, config, roles.used(), log, list(of_items.fields) if of_items else [])
    # The items' table may ask for those items alone that the interactions have, so it is read after them.
    table = frame.read(list(dict.fromkeys([*roles.used(), *inline.values()])))
    user, item = (ids(_column(frame, table, name)) for name in (roles.user, roles.item))
    log += [note for name, each in (("user", user), ("item", item)) for note in odd_ids(name, each)]
    item_features = None if of_items is None else _described(of_items, config.text_fields, log)
    item_table = None if item_features is None else item_features.ids
    _check_match(frame, of_items, item_features, item, "items")
    if inline:
        columns = {field: texts(_column(frame, table, name)) for field, name in inline.items()}
        if len(item.name) == len(item.code) > 1:
            log.append(
                f"no item has two rows, so nothing tells whether {listed(list(inline))} describe the items "
                "or the rows, as a review's title does; config.data.text_fields leaves columns out"
            )
        own = feature_table(item, columns, frame.where, frame.place, partial(_leave_out, list(inline)))
        item_features = own if item_features is None else _joined(item_features, own)
    time = None if roles.time is None else times(_column(frame, table, roles.time), log)
    split = None if roles.split is None else _split(_column(frame, table, roles.split), config, log)
    user_features = None if of_users is None else _described(of_users, (), log)
    _check_match(frame, of_users, user_features, user, "users")
    return RawTable(
        where=frame.where,
        user=user,
        item=item,
        time=None if time is None else time.order,
        rating=None if roles.rating is None else ratings(_column(frame, table, roles.rating)),
        split=split,
        item_features=item_features,
        user_features=user_features,
        item_table=item_table,
        columns={what: name for what, name in roles._asdict().items() if name is not None},
        span=("", "", "") if time is None else (time.unit, time.first, time.last),
        notes=tuple(log),
    )


def _column(frame: Frame, table: Any, name: str) -> Column:
    return Column(name, table[name], frame.place)


class _Features(NamedTuple):
    """A table of items or users, its columns found: the ids, and field name -> column."""

    frame: Frame
    id_column: str
    fields: dict[str, str]


def _features(
    frame: Frame, name: str, usual: Sequence[str], wanted: Sequence[str], notes: list[str]
) -> _Features:
    """The columns of a table of items or users.

    A field that is wanted gets its name from the settings also where the column differs in case.
    """
    known = [name, *usual]
    id_column = next((found for each in known if (found := find(each, "id", frame, notes))), None)
    if id_column is None:
        raise RelandError(
            f"{frame.named}: no column {name!r}, by which it would be matched to the interactions; the "
            f"columns are {listed(frame.columns) or 'none'}; rename the one that holds the same ids"
        )
    fields = {column: column for column in frame.columns if column.strip() and column != id_column}
    refuse_twice(fields, frame)
    for field in wanted:
        meant = None if field in fields else find(field, "config.data.text_fields", frame, notes)
        if meant in fields:
            fields = {field if each == meant else key: each for key, each in fields.items()}
    return _Features(frame, id_column, fields)


def _described(features: _Features, wanted: Sequence[str], notes: list[str]) -> FeatureTable:
    """One row per id of a table of items or users.

    A column that holds no texts, or in which rows of one id contradict each other, is left out with a
    remark, unless it is wanted.
    """
    frame = features.frame
    table = frame.read([features.id_column, *features.fields.values()])
    names = ids(_column(frame, table, features.id_column))
    fields: dict[str, np.ndarray] = {}
    for field, name in features.fields.items():
        try:
            values = texts(_column(frame, table, name))
            fields |= feature_table(names, {field: values}, frame.where, frame.place).fields
        except RelandError as error:
            if field in wanted:
                raise
            notes.append(f"left out: {error}")
    return FeatureTable(names.name, fields)


def _check_match(
    frame: Frame, features: _Features | None, table: FeatureTable | None, ids: Tokens, what: str
) -> None:
    """Raises `RelandError` where a table describes nothing that there is, so that it is the wrong one."""
    if features is None or table is None or not len(ids.name):
        return
    if set(ids.name.tolist()).isdisjoint(table.ids.tolist()):
        given = f", such as {ids.name[0]!r}" + (f" and {table.ids[0]!r}" if len(table.ids) else "")
        raise RelandError(
            f"{frame.where}: the features that belong to it ({features.frame.where}) describe none of its "
            f"{len(ids.name)} {what}; check that both use the same ids{given}"
        )


def _split(column: Column, config: DataConfig, notes: list[str]) -> np.ndarray | None:
    """The split that a column fixes; None where it does not and none is asked for."""
    try:
        return split_codes(texts(column), column.place)
    except RelandError as error:
        if config.protocol == "fixed":
            raise
        notes.append(f"column {column.name!r} is not looked at: {error}")
        return None


def _joined(beside: FeatureTable | None, inline: FeatureTable) -> FeatureTable:
    """Both tables, for the ids of either."""
    if beside is None:
        return inline
    row = {name: place for place, name in enumerate(beside.ids)}
    new = [place for place, name in enumerate(inline.ids) if name not in row]
    all_ids = np.concatenate((beside.ids, inline.ids[new])).astype(object)
    fields = {
        name: np.concatenate((values, np.full(len(new), "", dtype=object)))
        for name, values in beside.fields.items()
    }
    place = {name: number for number, name in enumerate(all_ids)}
    rows = np.array([place[name] for name in inline.ids], np.int64)
    for name, values in inline.fields.items():
        fields[name] = np.full(len(all_ids), "", dtype=object)
        fields[name][rows] = values
    return FeatureTable(all_ids, fields)


def _leave_out(fields: Sequence[str], name: str) -> str:
    """What can be done where rows of an item contradict each other in the column of a field."""
    others = ",".join(field for field in fields if field != name)
    return (
        "it may describe the row, as a review's title does, and not the item: leave it out by "
        f"--config.data.text_fields={others}; if it is the item's, keep one value of each"
    )
