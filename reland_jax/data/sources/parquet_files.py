"""Parquet files as frames: columns of any type, read only when they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reland_jax.data.sources.columns import Frame
from reland_jax.types import RelandError


def frame(path: Path, partition: dict[str, str] | None = None) -> Frame:
    """One file as a frame.

    Args:
        path: the file.
        partition: columns that the names of its folders give, such as ``day=1``.

    Raises:
        RelandError: not a Parquet file.
    """
    from pyarrow import parquet

    with _told(path):
        names = list(parquet.read_schema(path).names)
    fixed = {name: value for name, value in (partition or {}).items() if name not in names}
    return Frame(
        str(path),
        [*names, *fixed],
        lambda used: _read(path, used, fixed),
        lambda row: f"{path}: row {row + 1}",
    )


def _read(path: Path, used: Sequence[str], fixed: dict[str, str]) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    with _told(path):
        # Of the file alone: a dataset would add columns for folders named like day=1.
        table = parquet.ParquetFile(path).read(columns=[name for name in used if name not in fixed])
        if missing := [name for name in used if name not in fixed and name not in table.column_names]:
            raise RelandError(f"{path}: column {missing[0]!r} cannot be read")
        rows = parquet.ParquetFile(path).metadata.num_rows
    for name in used:
        if name in fixed:
            table = table.append_column(name, pa.array([fixed[name]] * rows, pa.string()))
    return table.select(list(used))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Arrow's errors as errors for people."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error})") from None
