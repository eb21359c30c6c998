"""The result of every reader: a `RawTable` with external ids, before any filtering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from reland_jax.plain import MARKS
from reland_jax.types import RelandError

SPLIT_CODES = {"train": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
"""Words of a split column and the value of `Interactions.fixed_split` each stands for."""


class Tokens(NamedTuple):
    """A column of strings, stored once per distinct string.

    Attributes:
        code: ``<int32>[n]``, position in `name`.
        name: ``<object>[m]``, the distinct strings, in order of first appearance.
    """

    code: np.ndarray
    name: np.ndarray


class FeatureTable(NamedTuple):
    """Columns that describe items or users, one row per external id.

    Attributes:
        ids: ``<object>[m]`` of str, distinct.
        fields: field name -> ``<object>[m]`` of str, "" where a value is missing.
    """

    ids: np.ndarray
    fields: Mapping[str, np.ndarray]


class RawTable(NamedTuple):
    """Interactions as in the raw files, in file order.

    Attributes:
        where: the file (or generator) they came from, for messages.
        user: external user ids, ``n`` rows.
        item: external item ids, ``n`` rows.
        time: ``[n]`` numbers that compare as the times do (int64, uint64 or float64), or None where the file
            order is the only order.
        rating: ``<float64>[n]``, NaN where there is none, or None where ratings are not looked at.
        split: ``<int8>[n]``, values as in `Interactions.fixed_split`, or None.
        item_features: what describes the items, or None.
        user_features: what describes the users, or None.
        item_table: ``<object>[m]``, ids that a table of items of its own has, or None where there is none.
        columns: what the columns in use are called, by what they are ("user", "item", "time", "rating").
        span: unit, earliest and latest time in words, "" where not known.
        notes: remarks for the account of the loading.
    """

    where: str
    user: Tokens
    item: Tokens
    time: np.ndarray | None = None
    rating: np.ndarray | None = None
    split: np.ndarray | None = None
    item_features: FeatureTable | None = None
    user_features: FeatureTable | None = None
    item_table: np.ndarray | None = None
    columns: Mapping[str, str] = {}
    span: tuple[str, str, str] = ("", "", "")
    notes: tuple[str, ...] = ()


def tokens(column: Any) -> Tokens:
    """`Tokens` of a sequence of str."""
    import pyarrow as pa

    encoded = pa.array(column, type=pa.string()).dictionary_encode()
    return Tokens(
        np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int32),
        encoded.dictionary.to_numpy(zero_copy_only=False).astype(object),
    )


def feature_table(
    ids: Tokens,
    fields: Mapping[str, Tokens],
    where: str,
    place: Callable[[int], str],
    way_out: Callable[[str], str] = lambda name: "keep one of them",
) -> FeatureTable:
    """One row per id. Rows of one id may repeat a value, lack it or have a mark in its place (`plain.MARKS`).

    They must not contradict each other; spaces alone are no contradiction.

    Args:
        ids: of the rows, possibly repeated.
        fields: field name -> values of the rows, "" where there is none.
        where: the file, for the message.
        place: words for the place of a row, asked only for the message.
        way_out: what can be done about a field in which rows contradict each other.

    Raises:
        RelandError: rows of one id contradict each other; it is said how many ids have such rows, and two
            places are named.
    """
    described = {name: _one_each(ids, values, name, where, place, way_out) for name, values in fields.items()}
    return FeatureTable(ids.name, described)


def _one_each(
    ids: Tokens,
    values: Tokens,
    name: str,
    where: str,
    place: Callable[[int], str],
    way_out: Callable[[str], str],
) -> np.ndarray:
    """The value of every id, ``<object>[m]``."""
    first, rows = _first_rows(ids, values, [name != "" for name in values.name])
    # Another value than a mark is better than one, and only such values can contradict each other.
    said, rows = _first_rows(ids, values, [name.strip() not in (*MARKS, "") for name in values.name])
    first = np.where(said >= 0, said, first)
    _, same = np.unique([" ".join(name.split()) for name in values.name] or [""], return_inverse=True)
    other = rows[same[values.code[rows]] != same[values.code[said[ids.code[rows]]]]]
    if len(other):
        row = int(other[0])
        before, count = int(first[ids.code[row]]), len(np.unique(ids.code[other]))
        raise RelandError(
            f"{where}: column {name!r} differs between the rows of {count:,} of {len(first):,} ids; "
            f"{ids.name[ids.code[row]]!r} is described twice: {_shown(values, before)} ({place(before)}) and "
            f"{_shown(values, row)} ({place(row)}); {way_out(name)}"
        )
    result = np.full(len(first), "", dtype=object)
    known = first >= 0
    result[known] = values.name[values.code[first[known]]]
    return result


def _first_rows(ids: Tokens, values: Tokens, wanted: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of every id with a wanted value, -1 where there is none, and all such rows."""
    rows = np.flatnonzero(np.array(wanted, bool)[values.code]) if wanted else np.zeros(0, np.int64)
    first = np.full(len(ids.name), -1)
    first[ids.code[rows[::-1]]] = rows[::-1]
    return first, rows


def _shown(values: Tokens, row: int) -> str:
    text = values.name[values.code[row]]
    return repr(text if len(text) <= 60 else text[:60] + "...")


def split_codes(column: Tokens, place: Callable[[int], str]) -> np.ndarray:
    """Values of `Interactions.fixed_split`, ``<int8>[n]``, of a split column.

    Raises:
        RelandError: a word that is not one of `SPLIT_CODES`.
    """
    codes = np.array([SPLIT_CODES.get(str(name).strip().lower(), -1) for name in column.name], np.int8)
    result = codes[column.code] if len(codes) else np.zeros(0, np.int8)
    bad = np.flatnonzero(result < 0)
    if len(bad):
        row = int(bad[0])
        raise RelandError(
            f"{place(row)}: split {column.name[column.code[row]]!r} is not one of {', '.join(SPLIT_CODES)}"
        )
    return result
