"""Any CSV (quoted or not, with a header line) or Parquet table whose columns the config names."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited
from reland_jax.data.sources.raw import RawTable, feature_table, require_column, tokens
from reland_jax.types import RelandError

_RATING = "rating"


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place``: the columns named by `config`, and ``rating`` where there is one.

    Columns listed in `config.text_fields` describe the item of their row; all rows of an item must
    agree on them. Other columns are ignored.

    Raises:
        RelandError: missing column, empty id, non-numeric time or rating, with file and line (or row).
    """
    path = Path(place)
    reader = _read_parquet if path.suffix == ".parquet" else _read_csv
    table, place_of = reader(path, config)
    names = table.column_names
    time = config.time_field
    texts = {
        name: delimited.text_column(table, name) for name in config.text_fields if name in names
    }
    items = delimited.text_column(table, config.item_field)
    return RawTable(
        where=place,
        user=tokens(table[config.user_field]),
        item=tokens(table[config.item_field]),
        time=table[time].to_numpy() if time else None,
        rating=table[_RATING].to_numpy() if _RATING in names else None,
        item_features=feature_table(items, texts, place, place_of) if texts else None,
    )


def _kinds(found: list[str], config: DataConfig, where: str) -> dict[str, str]:
    """What each column of the table must hold."""
    ids = (config.user_field, config.item_field)
    numbers = tuple(name for name in (config.time_field, _RATING) if name)
    for name in (*ids, *([config.time_field] if config.time_field else [])):
        require_column(name, found, where)
    return {
        name: delimited.ID if name in ids else delimited.NUMBER if name in numbers else delimited.TEXT
        for name in found
    }


def _read_csv(path: Path, config: DataConfig) -> tuple[Any, Callable[[int], str]]:
    """The table and the words for the place of a row."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as lines:
        names = next(csv.reader(lines), [])
    if len(set(names)) != len(names):
        raise RelandError(f"{path}:1: a column name appears twice: {', '.join(names)}")
    layout = delimited.Layout(_kinds(names, config, f"{path}:1"), delimiter=",", quoted=True)
    table = delimited.read_columns(path, layout)
    return table, lambda row: delimited.place(path, layout, row)


def _read_parquet(path: Path, config: DataConfig) -> tuple[Any, Callable[[int], str]]:
    """The table and the words for the place of a row."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        kinds = _kinds(schema.names, config, str(path))
        used = [name for name, kind in kinds.items() if kind != delimited.TEXT]
        used += [name for name in config.text_fields if kinds.get(name) == delimited.TEXT]
        table = parquet.read_table(path, columns=used)
    except (pa.ArrowInvalid, OSError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error})") from None
    columns = {name: _convert(table[name], kinds[name], f"{path}: column {name!r}") for name in used}
    return pa.table(columns), lambda row: f"{path}: row {row + 1}"


def _convert(column: Any, kind: str, where: str) -> Any:
    """A Parquet column as strings or float64, checked.

    Raises:
        RelandError: a type that cannot be converted, or the first row with a forbidden value.
    """
    import pyarrow as pa
    from pyarrow import compute

    try:
        if pa.types.is_temporal(column.type):
            column = compute.cast(column, pa.timestamp("us")).cast(pa.int64())
        column = column.cast(pa.float64() if kind == delimited.NUMBER else pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RelandError(f"{where}: cannot be read as {kind}: {error}") from None
    if kind == delimited.TEXT:
        return compute.fill_null(column, "")
    if delimited.fits(column, kind):
        return column
    if kind == delimited.ID:
        bad = column.is_null().to_numpy() | (delimited.text_column({"": column}, "") == "")
        needed = "a nonempty id"
    else:
        bad, needed = ~np.isfinite(column.to_numpy()), "a finite number"
    row = int(np.flatnonzero(bad)[0])
    raise RelandError(f"{where}, row {row + 1}: {column[row].as_py()!r} where {needed} is needed")
