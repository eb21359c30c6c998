"""Delimited text: read at full speed by Arrow, and line by line only to say where a fault is."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.types import RelandError

ID = "id"
NUMBER = "number"
TEXT = "text"

_SEPARATOR = "\x1f"
"""Stands in for a delimiter of several characters, which Arrow does not read."""


class Layout(NamedTuple):
    """How a delimited file is written and what its columns must hold.

    Attributes:
        kinds: column name -> `ID` (a string, not empty), `NUMBER` (finite) or `TEXT`, in file order.
        delimiter: between two fields; may be several characters.
        header_lines: lines before the first row.
        encoding: of the text.
        quoted: whether fields may be quoted as in CSV; otherwise a quote character is text.
    """

    kinds: Mapping[str, str]
    delimiter: str = "\t"
    header_lines: int = 1
    encoding: str = "utf-8"
    quoted: bool = False


def read_columns(path: Path, layout: Layout) -> Any:
    """All rows as a ``pyarrow.Table`` of strings and float64.

    Raises:
        RelandError: the file and line of the first row that does not fit `layout`.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {name: pa.float64() if kind == NUMBER else pa.string() for name, kind in layout.kinds.items()}
    data = path.read_bytes()
    delimiter = layout.delimiter
    if len(delimiter) > 1:
        data, delimiter = data.replace(delimiter.encode(), _SEPARATOR.encode()), _SEPARATOR
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                column_names=list(types), skip_rows=layout.header_lines, encoding=layout.encoding
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if layout.quoted else False,
                double_quote=layout.quoted,
                newlines_in_values=layout.quoted,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, null_values=[], strings_can_be_null=False
            ),
            # Arrow's own allocator keeps what it was given back: 36 MiB after Amazon Beauty.
            memory_pool=pa.system_memory_pool(),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise first_fault(path, layout, str(error)) from None
    for name, kind in layout.kinds.items():
        if not fits(table[name], kind):
            raise first_fault(path, layout, f"column {name!r} does not hold what it must")
    return table


def fits(column: Any, kind: str) -> bool:
    """Whether a column of strings or float64 holds only what its kind allows."""
    from pyarrow import compute

    if column.null_count:
        return False
    if kind == NUMBER:
        return bool(np.isfinite(column.to_numpy()).all())
    return kind != ID or not compute.any(compute.equal(column, "")).as_py()


def rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row; slow, for messages only."""
    with open(path, encoding=layout.encoding, errors="surrogateescape", newline=None) as lines:
        for _ in range(layout.header_lines):
            next(lines, None)
        if layout.quoted:
            reader = csv.reader(lines, delimiter=layout.delimiter)
            for fields in reader:
                if fields:
                    yield layout.header_lines + reader.line_num, fields
            return
        for number, line in enumerate(lines, layout.header_lines + 1):
            if line != "\n":
                yield number, line.rstrip("\n").split(layout.delimiter)


def place(path: Path, layout: Layout, row: int) -> str:
    """``file:line`` of a row."""
    number, _ = next(itertools.islice(rows(path, layout), row, None), (0, []))
    return f"{path}:{number}"


def first_fault(path: Path, layout: Layout, otherwise: str) -> RelandError:
    """The error to raise: the first row that does not fit, else the words in `otherwise`."""
    names = list(layout.kinds)
    for number, fields in rows(path, layout):
        if len(fields) != len(names):
            return RelandError(
                f"{path}:{number}: {len(fields)} fields where the columns are {len(names)}: "
                f"{', '.join(names)}"
            )
        for name, value in zip(names, fields, strict=True):
            fault = _value_fault(value, layout.kinds[name])
            if fault:
                return RelandError(f"{path}:{number}: {name!r} {fault}")
    return RelandError(f"{path}: cannot be read: {otherwise}")


def _value_fault(value: str, kind: str) -> str:
    """What is wrong with one value, "" if nothing is."""
    if any("\udc80" <= character <= "\udcff" for character in value):
        return "holds bytes that are not in the file's text encoding (UTF-8 is expected)"
    if kind == ID and not value:
        return "is empty; every interaction needs a user and an item"
    if kind != NUMBER:
        return ""
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        return f"is {value!r}, which is not a number"
    return "" if finite else f"is {value!r}; a finite number is needed"


def text_column(table: Any, name: str) -> np.ndarray:
    """A string column as ``<object>[n]`` of str."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=object)
