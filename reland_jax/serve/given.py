"""Interactions that a program holds in memory, as the files that the readers of `data` read.

A table is written to the workdir as Parquet and named in the settings. So there is one reader, with its
checks and its account of the loading, and a run finds by the content of the file whether anything is new.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reland_jax.bundle import Bundle
from reland_jax.config import Config
from reland_jax.files import write_bytes
from reland_jax.strings import visible
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow

FOLDER = "given"
"""Folder of the workdir that tables from memory are written to."""

Given: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Any"
"""A path; a pandas or Arrow table; or a mapping of names to columns, such as NumPy arrays."""


def with_data(config: Config, workdir: Path, interactions: Given, items: Given, users: Given) -> Config:
    """The settings with other data.

    Args:
        config: settings; `config.data` says what the columns are called and how they are read.
        workdir: where tables from memory are written to.
        interactions: None leaves what `config.data.name` says.
        items: what describes the items, a row for each id; None leaves `config.data.item_table`.
        users: the same of the users.

    Raises:
        RelandError: something is neither a path nor a table, or its columns are of different lengths.
    """
    given = {"name": interactions, "item_table": items, "user_table": users}
    paths: dict[str, Any] = {
        setting: _path(value, workdir / FOLDER / f"{setting}.parquet", setting)
        for setting, value in given.items()
        if value is not None
    }
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))


def described_items(items: Given, bundle: Bundle) -> tuple[list[str], dict[str, list[str]]]:
    """Ids of further items, and what describes them, by the fields that the bundle knows.

    Args:
        items: a table in memory, with a row for each item.
        bundle: for the names of columns, and the ids that are there.

    Raises:
        RelandError: it lacks the column of the ids, or an id is known, twice there or empty.
    """
    table, field = _table(items, "item_table"), bundle.config.data.item_field or "item_id"
    if field not in table.column_names:
        raise RelandError(f"items: there is no column {field!r}; there are {', '.join(table.column_names)}")
    ids = [str(each) for each in table[field].to_pylist()]
    taken = set(bundle.interactions.ids.items.tolist()) | {""}
    for name in ids:
        if name in taken:
            raise RelandError(
                f"items: {visible(name)!r} is empty, twice there, or known to the model already"
            )
        taken.add(name)
    features = {
        name: ["" if each is None else str(each) for each in table[name].to_pylist()]
        for name in bundle.interactions.item_features
        if name in table.column_names
    }
    return ids, features


def _path(value: Given, place: Path, setting: str) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    write_bytes(place, _parquet(_table(value, setting)), private=True)
    return str(place.absolute())


def _table(value: Any, setting: str) -> pyarrow.Table:
    """Any kind of table as one of Arrow; an index of pandas is left out."""
    import pyarrow as pa

    try:
        if isinstance(value, pa.Table):
            return value
        if isinstance(value, Mapping):
            return pa.table({str(name): pa.array(column) for name, column in value.items()})
        if hasattr(value, "__arrow_c_stream__") and not hasattr(value, "iloc"):  # polars, DuckDB
            return pa.table(value)
        if hasattr(value, "columns") and hasattr(value, "iloc"):
            return pa.Table.from_pandas(value, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise RelandError(f"{_NAMES[setting]}: not a table ({error})") from None
    raise RelandError(
        f"{_NAMES[setting]}: a {type(value).__name__} is not a table; give a path, a pandas or Arrow table, "
        'or a mapping of columns, such as {"user_id": ..., "item_id": ..., "timestamp": ...}'
    )


_NAMES = {"name": "interactions", "item_table": "items", "user_table": "users"}
"""What the settings are called where they are arguments."""


def _parquet(table: pyarrow.Table) -> bytes:
    """The bytes of a file, which depend on columns and values alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    return bytes(sink.getvalue())
