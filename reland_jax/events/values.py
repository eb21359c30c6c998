"""Columns of a file as columns of an event log: categorical, numeric and multi-valued."""

from __future__ import annotations

from typing import Any

import numpy as np

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.raw import Tokens
from reland_jax.data.sources.values import plain, ratings, texts
from reland_jax.events.contract import Feature, Multi, Values, rows_of
from reland_jax.strings import as_strings, distinct
from reland_jax.types import Ragged


def positions(names: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each text stands among others, ``<int64>[n]``; -1 for one that does not.

    Args:
        names: texts ``[n]``.
        among: distinct texts ``[m]``.
    """
    import pyarrow as pa
    from pyarrow import compute

    asked, known = (pa.array(np.asarray(each).tolist(), pa.large_string()) for each in (names, among))
    found = compute.index_in(asked, value_set=known)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def column_of(feature: Feature, column: Column) -> Values:
    """The values of a feature, one for every row of the file.

    Raises:
        RelandError: a numeric one holds what is not a number; with its place.
    """
    if feature.kind == "numeric":
        return ratings(column, f"numeric feature {feature.name!r}")
    if feature.kind == "multi":
        return _lists(column, feature.separator)
    return _merged(texts(column))


def at_rows(values: Values, rows: np.ndarray) -> Values:
    """Values of some rows, and no value where the row is -1.

    Args:
        values: of the rows of a table.
        rows: ``<int64>[r]``.
    """
    if isinstance(values, Tokens):
        code, name = values.code, values.name
        none = int(positions(np.array([""], object), name)[0])
        if none < 0:
            none, name = len(name), as_strings([*name.tolist(), ""])
        return Tokens(np.append(code, none)[rows].astype(np.int32), name)
    if isinstance(values, Multi):
        more = Ragged(np.append(values.rows.indptr, values.rows.indptr[-1]), values.rows.items)
        return values._replace(rows=more.take(np.where(rows < 0, more.num_rows - 1, rows)))
    return np.append(values, np.nan)[rows]


def _merged(tokens: Tokens) -> Tokens:
    """The same with every name once, without spaces around it, in sorted order; only names that are used."""
    used = np.unique(tokens.code)
    name, place = distinct(as_strings([each.strip() for each in tokens.name[used].tolist()]))
    code = np.full(len(tokens.name), -1, np.int64)
    code[used] = place
    return Tokens(code[tokens.code].astype(np.int32), name)


def _lists(column: Column, separator: str) -> Multi:
    """Lists as Parquet stores them, or texts split at a separator."""
    import pyarrow as pa

    values = plain(column)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _flattened(values.combine_chunks())
    tokens = texts(column)
    from pyarrow import compute

    written = pa.array(tokens.name.tolist(), pa.large_string())
    each = _flattened(compute.split_pattern(written, separator))
    chosen = rows_of(each, tokens.code)
    assert isinstance(chosen, Multi)
    return chosen


def _flattened(lists: Any) -> Multi:
    """Lists of an Arrow array, their values trimmed, empty ones left out."""
    import pyarrow as pa
    from pyarrow import compute

    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    row = np.asarray(compute.list_parent_indices(lists))
    tokens = _merged(texts(Column("", lists.flatten(), lambda place: "")))
    said = np.flatnonzero(tokens.name[tokens.code] != "") if len(row) else np.zeros(0, np.int64)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row[said], minlength=len(lists)))))
    return Multi(Ragged(indptr.astype(np.int64), tokens.code[said].astype(np.int32)), tokens.name)
