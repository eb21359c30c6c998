"""Parquet files as frames: columns of any type, read only when they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reland_jax.data.sources.columns import Frame
from reland_jax.types import RelandError


def frame(path: Path) -> Frame:
    """One file as a frame.

    Raises:
        RelandError: not a Parquet file.
    """
    from pyarrow import parquet

    with _errors_with_path(path):
        names = list(parquet.read_schema(path).names)
    return Frame(str(path), names, lambda used: _read(path, used), lambda row: f"{path}: row {row + 1}")


def _read(path: Path, used: Sequence[str]) -> Any:
    from pyarrow import compute, parquet

    with _errors_with_path(path):
        # Of the file alone: a data set would add columns for folders named like day=1.
        file = parquet.ParquetFile(path)
        table = file.read(columns=list(used)).select(list(used))
        for name in _of_96_bits(file, used):
            # Arrow's nanoseconds end in 2262 and begin anew, so that the year 9999 would be 1816.
            coarse = parquet.ParquetFile(path, coerce_int96_timestamp_unit="us").read(columns=[name])[name]
            if not compute.all(compute.equal(compute.year(coarse), compute.year(table[name]))).as_py():
                table = table.set_column(table.column_names.index(name), name, coarse)
        return table


def _of_96_bits(file: Any, used: Sequence[str]) -> list[str]:
    """Columns of times as old versions of Spark, Hive and Impala write them."""
    columns = (file.schema.column(place) for place in range(len(file.schema)))
    return [column.path for column in columns if column.physical_type == "INT96" and column.path in used]


@contextmanager
def _errors_with_path(path: Path) -> Iterator[None]:
    """Arrow's errors as errors for people."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error})") from None
