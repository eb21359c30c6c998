"""Several files that are one table, and columns that the names of files and folders give."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reland_jax.data.sources.columns import Frame, listed
from reland_jax.data.sources.raw import SPLIT_CODES
from reland_jax.types import RelandError

SPLIT = "split"
"""The column that files of the parts of a split get."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def combined(frames: Sequence[Frame], where: str) -> Frame:
    """Frames one below the other.

    Raises:
        RelandError: their columns are not the same.
    """
    if len(frames) == 1:
        return frames[0]
    first = frames[0]
    for other in frames[1:]:
        if set(other.columns) != set(first.columns):
            differ = sorted(set(other.columns) ^ set(first.columns))
            raise RelandError(
                f"{where}: several files to choose from, and they are not parts of one table: column "
                f"{listed(differ)} is not in both of {first.where} and {other.where}; give the path of "
                "one, or of those that belong together with commas between them, as config.data.name"
            )
    lengths: list[int] = []

    def read(used: Sequence[str]) -> Any:
        import pyarrow as pa

        tables = [each.read(used) for each in frames]
        lengths[:] = [len(table) for table in tables]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise RelandError(f"{where}: its files hold different types in one column ({error})") from None

    def place(row: int) -> str:
        for frame, length in zip(frames, lengths, strict=True):
            if row < length:
                return frame.place(row)
            row -= length
        return where

    return Frame(where, first.columns, read, place)


def with_constants(frame: Frame, values: Mapping[str, str | None]) -> Frame:
    """A frame with more columns, each of one value; a column that the file has itself is left as it is."""
    new = {name: value for name, value in values.items() if name not in frame.columns}
    if not new:
        return frame

    def read(used: Sequence[str]) -> Any:
        import pyarrow as pa

        table = frame.read([name for name in used if name not in new])
        for name in used:
            if name in new:
                table = table.append_column(
                    name, pa.array(itertools.repeat(new[name], len(table)), pa.string())
                )
        return table.select(list(used))

    return frame._replace(columns=[*frame.columns, *new], read=read)


def with_written(frame: Frame, name: str, written: Callable[[str], str]) -> Frame:
    """A frame in which the texts of a column, if it has it, are written in another way."""
    if name not in frame.columns:
        return frame

    def read(used: Sequence[str]) -> Any:
        import pyarrow as pa

        table = frame.read(used)
        if name not in used:
            return table
        values = pa.array([None if value is None else written(value) for value in table[name].to_pylist()])
        return table.set_column(table.column_names.index(name), name, values.cast(pa.string()))

    return frame._replace(read=read)


def partition(path: Path, folder: Path) -> dict[str, str | None]:
    """Columns that the folders between a folder and a file give, as ``day=1``; None for a missing value."""
    from urllib.parse import unquote

    parts = path.relative_to(folder).parts[:-1] if path.is_relative_to(folder) else ()
    pairs = (part.partition("=") for part in parts)
    return {name: None if value == _NO_VALUE else unquote(value) for name, _, value in pairs if name}


def split_of(paths: Sequence[Path]) -> list[str]:
    """The part of a split that each file's name says it is, as ``shop.train.inter``; [] unless all do."""
    words = [_split_word(path) for path in paths]
    return words if len(set(words)) > 1 and all(words) else []


def _split_word(path: Path) -> str:
    for word in reversed(re.split(r"[._\-]", path.name.lower())):
        if word in SPLIT_CODES:
            return word
    return ""
