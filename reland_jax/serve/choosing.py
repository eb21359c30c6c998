"""From ids that people use to numbers, and back: users, items, filters, and tables of recommendations."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.plain import plain_column
from reland_jax.report.cases import Labels
from reland_jax.serve.listing import Ranked
from reland_jax.strings import as_strings, visible
from reland_jax.types import PADDING_ITEM, Interactions, Ragged, RelandError

if TYPE_CHECKING:
    import pyarrow

_MOST_COMPARED = 20_000
"""Of more ids the nearest to a wrong one is not looked for."""

_log = logging.getLogger(__name__)


class Numbers:
    """The numbers of external ids."""

    def __init__(self, interactions: Interactions) -> None:
        """Makes the look-up tables."""
        self._user = {name: row for row, name in enumerate(interactions.ids.users.tolist())}
        self._item = {name: row for row, name in enumerate(interactions.ids.items.tolist()) if row}

    def users(self, ids: str | Iterable[str] | None) -> np.ndarray:
        """Rows of users, ``<int64>[n]``; None takes all.

        Raises:
            RelandError: an id that is not a user's.
        """
        if ids is None:
            return np.arange(len(self._user))
        wanted = _listed(ids)
        return np.array([_known(name, self._user, "users") for name in wanted], np.int64)

    def items(self, ids: str | Iterable[str]) -> np.ndarray:
        """Numbers of items, ``<int32>[n]``.

        Raises:
            RelandError: an id that is not an item's.
        """
        return np.array([_known(name, self._item, "items") for name in _listed(ids)], np.int32)

    def histories(self, histories: Mapping[str, Sequence[str]]) -> Ragged:
        """Items of users, oldest first; unknown ones are told and passed over.

        Raises:
            RelandError: of one of them no item is known.
        """
        found = [[self._item.get(name) for name in ids] for ids in histories.values()]
        rows = [[item for item in row if item is not None] for row in found]
        for name, row, known in zip(histories, found, rows, strict=True):
            whose = f" of {visible(name)!r}" if name else ""
            if not known:
                raise RelandError(
                    f"the history{whose}: none of its {len(row)} items is one of the {len(self._item):,} "
                    "items that the model knows; give ids as they are in the data"
                )
            if len(known) < len(row):
                _log.warning("the history%s: %d unknown items passed over", whose, len(row) - len(known))
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Ragged(indptr, np.array([item for row in rows for item in row], np.int32))


def allowed_items(
    interactions: Interactions, chosen: np.ndarray | None, wanted: Mapping[str, str | Sequence[str]] | None
) -> np.ndarray | None:
    """The items that lists are made of, ``<bool>[I + 1]``; None for all.

    Args:
        interactions: for the features of the items.
        chosen: numbers of items, or None.
        wanted: field name -> value or values, one of which an item must have; all fields must fit.

    Raises:
        RelandError: a field that the data lack, or nothing is left.
    """
    if chosen is None and not wanted:
        return None
    left = np.zeros(interactions.num_items + 1, bool)
    left[slice(1, None) if chosen is None else chosen] = True
    for field, values in (wanted or {}).items():
        if field not in (known := interactions.item_features):
            hint = nearest_name(field, list(known)) if known else "the data describe no items"
            raise RelandError(f"filter: {field!r} is not a field of the items; {hint}")
        left &= _having(field, plain_column(known[field]).texts, _listed(values))
    if not left.any():
        raise RelandError("items, filter: no item is left to recommend")
    return left


def _having(field: str, texts: np.ndarray, values: Sequence[str]) -> np.ndarray:
    """Items with one of some values.

    Raises:
        RelandError: no item has any of them.
    """
    found: np.ndarray = np.isin(texts, as_strings(values))
    if values and not found.any():
        distinct = np.unique(texts[1:][texts[1:] != ""]).tolist()
        hint = (
            nearest_name(values[0], distinct) if 0 < len(distinct) <= _MOST_COMPARED else "nothing is known"
        )
        raise RelandError(f"filter: no item has {field}={visible(values[0])!r}; {hint}")
    return found


def table_of(
    names: Sequence[str], ranked: Ranked, labels: Labels, explanations: Sequence[str]
) -> pyarrow.Table:
    """Lists as a table of the columns user, rank (from 1), item, score, title and explanation.

    Args:
        names: n external ids.
        ranked: n lists.
        labels: ids and titles of the items.
        explanations: one for each user.
    """
    import pyarrow as pa

    row, place = np.nonzero(ranked.item != PADDING_ITEM)
    item = ranked.item[row, place]
    return pa.table({
        "user": pa.array(np.array(names, object)[row], pa.string()),
        "rank": pa.array((place + 1).astype(np.int32)),
        "item": pa.array(labels.ids[item].tolist(), pa.string()),
        "score": pa.array(ranked.score[row, place].astype(np.float32)),
        "title": pa.array(labels.titles[item].tolist(), pa.string()),
        "explanation": pa.array(np.array(explanations, object)[row], pa.string()),
    })  # fmt: skip


def listed_histories(history: str | Iterable[str] | Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Histories by the name of their user; "" for one that has none."""
    given = history if isinstance(history, Mapping) else {"": history}
    return {str(name): _listed(ids) for name, ids in given.items()}


def _listed(ids: str | Iterable[str]) -> list[str]:
    return [ids] if isinstance(ids, str) else [str(each) for each in ids]


def _known(name: str, numbers: Mapping[str, int], what: str) -> int:
    if name in numbers:
        return numbers[name]
    near = nearest_name(name, list(numbers)) if len(numbers) <= _MOST_COMPARED else ""
    hint = f"; {near}" if near.startswith("did") else ""
    way_out = "; a new user is given by the items of its history" if what == "users" else ""
    raise RelandError(
        f"{visible(name)!r} is not one of the {len(numbers):,} {what} that the model knows{hint}{way_out}"
    )
