"""What every reader hands over: a `RawTable` with external ids, before any filtering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

SPLIT_CODES = {"train": 0, "valid": 1, "validation": 1, "val": 1, "test": 2}
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
    """Interactions as they stand in the raw files, in file order.

    Attributes:
        where: the file (or generator) they came from, for messages.
        user: external user ids, ``n`` rows.
        item: external item ids, ``n`` rows.
        time: ``<float64>[n]``, or None where the file order is the only order.
        rating: ``<float64>[n]``, or None.
        split: ``<int8>[n]``, values as in `Interactions.fixed_split`, or None.
        item_features: what describes the items, or None.
        user_features: what describes the users, or None.
    """

    where: str
    user: Tokens
    item: Tokens
    time: np.ndarray | None = None
    rating: np.ndarray | None = None
    split: np.ndarray | None = None
    item_features: FeatureTable | None = None
    user_features: FeatureTable | None = None


def tokens(column: Any) -> Tokens:
    """`Tokens` of an Arrow (chunked) array of strings, or of any sequence of str."""
    import pyarrow as pa

    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        column = pa.array(column, type=pa.string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column.dictionary_encode()
    return Tokens(
        np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int32),
        encoded.dictionary.to_numpy(zero_copy_only=False).astype(object),
    )


def feature_table(
    ids: np.ndarray, fields: Mapping[str, np.ndarray], where: str, line_of: Callable[[int], str]
) -> FeatureTable:
    """One row per id; a repeated row is dropped when it says the same again.

    Args:
        ids: ``<object>[m]`` of str, possibly repeated.
        fields: field name -> ``<object>[m]`` of str.
        where: the file, for the message.
        line_of: words for the place of a row, asked only for the message.

    Raises:
        RelandError: two rows of one id differ; both places are named.
    """
    code = tokens(ids).code
    _, first = np.unique(code, return_index=True)
    if len(first) == len(ids):
        return FeatureTable(ids, dict(fields))
    first_row = first[code]
    for name, values in fields.items():
        different = np.flatnonzero(values != values[first_row])
        if len(different):
            row = int(different[0])
            raise RelandError(
                f"{where}: id {ids[row]!r} is described twice, and {name!r} differs: "
                f"{line_of(int(first_row[row]))} and {line_of(row)}; keep one of them"
            )
    keep = np.sort(first)
    return FeatureTable(ids[keep], {name: values[keep] for name, values in fields.items()})


def require_column(name: str, found: list[str], where: str) -> None:
    """Raises `RelandError` naming the columns there are when `name` is not one of them."""
    if name not in found:
        raise RelandError(
            f"{where}: no column {name!r}; the columns are {', '.join(map(repr, found)) or 'none'}; "
            f"{nearest_name(name, found) if found else 'the file is empty'}"
        )


def split_codes(column: Tokens, line_of: Callable[[int], str]) -> np.ndarray:
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
            f"{line_of(row)}: split {column.name[column.code[row]]!r} is not one of "
            f"{', '.join(SPLIT_CODES)}"
        )
    return result
