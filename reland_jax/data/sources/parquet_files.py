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

    with _told(path):
        names = list(parquet.read_schema(path).names)
    return Frame(str(path), names, lambda used: _read(path, used), lambda row: f"{path}: row {row + 1}")


def _read(path: Path, used: Sequence[str]) -> Any:
    from pyarrow import parquet

    with _told(path):
        # Of the file alone: a data set would add columns for folders named like day=1.
        return parquet.ParquetFile(path).read(columns=list(used)).select(list(used))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Arrow's errors as errors for people."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error})") from None
