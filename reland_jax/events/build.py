"""From the tables of a data set, by a schema, to an event log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reland_jax.data.sources.columns import Column, Frame, find, listed, require
from reland_jax.data.sources.raw import Tokens
from reland_jax.data.sources.times import times
from reland_jax.data.sources.values import ids, ratings, texts
from reland_jax.events.contract import DAY_MS, Events, Feature, Label, Schema, Values
from reland_jax.events.values import at_rows, column_of, positions
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, RelandError

_UNITS = {
    "days": (DAY_MS, 1), "seconds": (1000, 1), "milliseconds": (1, 1),
    "microseconds": (1, 1000), "nanoseconds": (1, 10**6),
}  # fmt: skip
"""By what times are multiplied, and then divided, for milliseconds."""
_EARLIEST, _LATEST = 631_152_000_000, 4_102_444_800_000
"""1990 and 2100 in milliseconds."""


class Tables(NamedTuple):
    """The tables of a log.

    Attributes:
        log: the impressions.
        users: tables of features of users.
        items: tables of features of items.
        notes: remarks on how they were read.
    """

    log: Frame
    users: Sequence[Frame] = ()
    items: Sequence[Frame] = ()
    notes: Sequence[str] = ()


def build(tables: Tables, schema: Schema) -> Events:
    """Reads the columns that a schema declares.

    Args:
        tables: of the log, and of users and items. Users and items that are not in the log are left out.
        schema: what is read, and what it is.

    Returns:
        The log in the order of time.

    Raises:
        RelandError: no rows, a column that is not there, a value that cannot be read; with its place.
    """
    notes = list(tables.notes)
    read = _Log(tables.log, schema, notes)
    user, item = ids(read.column(schema.user)), ids(read.column(schema.item))
    if not len(user.code):
        raise RelandError(f"{tables.log.where}: the log has no rows")
    time = _milliseconds(read.column(schema.time), schema, notes)
    labels = _labels(read, schema, notes)
    user_names, item_names = as_strings(user.name.tolist()), as_strings(["", *item.name.tolist()])
    features: dict[str, Values] = {
        each.name: column_of(each, read.column(each.read_from)) for each in schema.of_side("context")
    }
    for side, frames, names in (("user", tables.users, user_names), ("item", tables.items, item_names)):
        features |= described(side, frames, names, schema, notes)
    events = Events(
        schema, user.code, (item.code + 1).astype(np.int32), time, _scenario(read, schema), labels,
        {each.name: features[each.name] for each in schema.features}, IdMap(user_names, item_names),
    )  # fmt: skip
    return _in_order(events, notes)


class _Log:
    """The columns of the log, all read at once when they are known."""

    def __init__(self, frame: Frame, schema: Schema, notes: list[str]) -> None:
        self.frame = frame
        named = {"user": schema.user, "item": schema.item, "time": schema.time}
        named |= {"scenario": schema.scenario} if schema.scenario else {}
        asked = [(name, f"schema.{what}") for what, name in named.items()]
        asked += [(each.read_from, f"label {each.name!r}") for each in schema.labels]
        asked += [(each.read_from, f"feature {each.name!r}") for each in schema.of_side("context")]
        self.names = {name: require(name, what, frame, notes) for name, what in asked}
        self.table = frame.read(list(dict.fromkeys(self.names.values())))
        if unread := [name for name in frame.columns if name not in self.names.values()]:
            notes.append(f"columns of the log that the schema does not name are not read: {listed(unread)}")

    def column(self, name: str) -> Column:
        """A column by the name that the schema has for it."""
        return Column(self.names[name], self.table[self.names[name]], self.frame.place)


def _milliseconds(column: Column, schema: Schema, notes: list[str]) -> np.ndarray:
    """Times in milliseconds since 1970, ``<int64>[n]``."""
    found = times(column, notes)
    unit = schema.time_unit or found.unit
    if unit not in _UNITS:
        raise RelandError(
            f"{column.place(0)}: the unit of the times in {column.name!r} is "
            f"{'not known' if not unit else f'{unit!r}'}; set time_unit of the schema to "
            f"one of {', '.join(_UNITS)}"
        )
    times_of, over = _UNITS[unit]
    if found.order.dtype.kind in "iu":
        time = found.order.astype(np.int64) * times_of // over
    else:
        time = np.floor(found.order * times_of / over).astype(np.int64)
    likely = (time >= _EARLIEST) & (time <= _LATEST)
    if not likely.all() and (found.unit or likely.any()):
        row = int(np.flatnonzero(~likely)[0])
        raise RelandError(
            f"{column.place(row)}: {column.name!r} is not between 1990 and 2100 when taken in {unit}; "
            "mend it, or set time_unit of the schema"
        )
    return time


def _labels(read: _Log, schema: Schema, notes: list[str]) -> dict[str, np.ndarray]:
    """The labels, those that are given another one multiplied by it."""
    found: dict[str, np.ndarray] = {}
    for label in schema.labels:
        value = _label(read.column(label.read_from), label)
        if label.given:
            against = int((value & ~found[label.given] & 1).sum())
            value = value & found[label.given]
            if against:
                notes.append(
                    f"{against:,} rows have {label.name!r} without {label.given!r}, and count as none of it"
                )
        if value.min() == value.max():
            notes.append(f"label {label.name!r} is {value[0]} in every row: nothing can be learnt or ranked")
        found[label.name] = value
    return found


def _label(column: Column, label: Label) -> np.ndarray:
    """One label, ``<int8>[n]``."""
    value = ratings(column, f"label {label.name!r}")
    bad = np.isnan(value) if label.at_least is not None else ~np.isin(value, (0, 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        needed = "a number" if label.at_least is not None else "0 or 1 (or at_least of the label)"
        shown = "empty" if np.isnan(value[row]) else f"{value[row]:g}"
        raise RelandError(
            f"{column.place(row)}: {column.name!r} is {shown}; label {label.name!r} needs {needed}"
        )
    return (value >= (1 if label.at_least is None else label.at_least)).astype(np.int8)


def _scenario(read: _Log, schema: Schema) -> Tokens:
    if not schema.scenario:
        return Tokens(np.zeros(len(read.table), np.int32), as_strings(["all"]))
    found = texts(read.column(schema.scenario))
    used, code = np.unique(found.code, return_inverse=True)
    return Tokens(code.astype(np.int32), as_strings(found.name[used].tolist()))


def described(
    side: str, frames: Sequence[Frame], names: np.ndarray, schema: Schema, notes: list[str]
) -> dict[str, Values]:
    """The features of users or items, one row for each of `names`.

    Args:
        side: "user" or "item".
        frames: tables that describe them.
        names: their ids.
        schema: what is read.
        notes: remarks are added.

    Raises:
        RelandError: a feature is in none of the tables, or a value cannot be read.
    """
    found: dict[str, Values] = {}
    for frame in frames:
        wanted = {
            each: column
            for each in schema.of_side(side)
            if each.name not in found and (column := find(each.read_from, each.name, frame, notes))
        }
        found |= _of_table(side, frame, wanted, names, schema, notes) if wanted else {}
    missing = [each for each in schema.of_side(side) if each.name not in found]
    if missing:
        tables = ", ".join(frame.where for frame in frames) or "there is no such table"
        raise RelandError(
            f"feature {missing[0].name!r}: no column {missing[0].read_from!r} in a table of {side}s "
            f"({tables}); a column of the log itself is declared with side 'context'"
        )
    return found


def _of_table(
    side: str,
    frame: Frame,
    wanted: dict[Feature, str],
    names: np.ndarray,
    schema: Schema,
    notes: list[str],
) -> dict[str, Values]:
    """Features that one table has."""
    named, setting = getattr(schema, side), f"schema.{side}"
    key = find(named, setting, frame, notes) or require(f"{side}_id", setting, frame, notes)
    table: Any = frame.read(list(dict.fromkeys([key, *wanted.values()])))
    described = ids(Column(key, table[key], frame.place))
    rows = _row_of_each(described, names, frame, key)
    without = int((rows < 0).sum()) - (side == "item")  # the padding item has no row
    if without:
        notes.append(
            f"{without:,} of the log's {side}s are not in {frame.where}: their features have no value"
        )
    return {
        each.name: at_rows(column_of(each, Column(name, table[name], frame.place)), rows)
        for each, name in wanted.items()
    }


def _row_of_each(described: Tokens, names: np.ndarray, frame: Frame, key: str) -> np.ndarray:
    """The row of a table for each id, ``<int64>[r]``, -1 for an id that it has not."""
    if len(described.name) < len(described.code):
        first = np.unique(described.code, return_index=True)[1]
        row = int(np.setdiff1d(np.arange(len(described.code)), first)[0])
        twice = described.name[described.code[row]]
        raise RelandError(
            f"{frame.place(row)}: {key} {twice!r} is described a second time; keep one of the rows"
        )
    rows = positions(names, described.name[described.code])
    if (rows < 0).all():
        raise RelandError(
            f"{frame.where}: describes none of the log's {len(names):,} ids; check that both use the same, "
            f"such as {str(names[-1])!r}"
        )
    return rows


def _in_order(events: Events, notes: list[str]) -> Events:
    """The log sorted by time; rows of the same time keep their order."""
    backwards = int((np.diff(events.time) < 0).sum())
    if backwards:
        notes.append(f"{backwards:,} rows are earlier than the row before them; the log was sorted by time")
    order = np.argsort(events.time, kind="stable")
    return events.take(order)._replace(notes=tuple(dict.fromkeys(notes)))
