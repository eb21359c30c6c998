"""Delimited text: read at full speed by Arrow, and line by line only to say where a fault is."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.data.sources import opened
from reland_jax.data.sources.columns import Frame
from reland_jax.types import RelandError

_SEPARATOR = "\x1f"
"""Stands in for a delimiter of several characters, which Arrow does not read."""
_END = "\x1e\n"
"""A line after the last one: it comes back as a row of its own unless a quote is still open."""
_AS_TWO = 'write a quote within a text as two ("") and the text in quotes'
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?|\d{4}-\d\d-\d\d.*")
_LIKE_A_NUMBER = 4
"""Characters that the numbers and dates of a line have at least, if it is taken for a row."""


class Layout(NamedTuple):
    """How a delimited file is written.

    Attributes:
        names: of the columns, in file order.
        delimiter: between two fields; may be several characters.
        header_lines: lines before the first row.
        encoding: of the text; None as in `opened.content`.
        fallback: as in `opened.content`.
        quoted: whether fields may be quoted as in CSV; otherwise a quote character is text.
    """

    names: Sequence[str]
    delimiter: str = "\t"
    header_lines: int = 1
    encoding: str | None = None
    fallback: str = ""
    quoted: bool = False


def frame(path: Path, layout: Layout) -> Frame:
    """A delimited file as a frame of strings."""
    return Frame(
        str(path), list(layout.names),
        lambda used: read_columns(path, layout, used),
        lambda row: place(path, layout, row),
        f"{path}:{layout.header_lines}" if layout.header_lines else "",
    )  # fmt: skip


def read_columns(path: Path, layout: Layout, used: Sequence[str]) -> Any:
    """The named columns of all rows as a ``pyarrow.Table`` of strings.

    Raises:
        RelandError: the file and line of the first row that does not fit `layout`.
    """
    import pyarrow as pa

    data = opened.content(path, layout.encoding, layout.fallback)
    delimiter = layout.delimiter
    if len(delimiter.encode()) > 1:
        data, delimiter = data.replace(delimiter.encode(), _SEPARATOR.encode()), _SEPARATOR
    start = _start_of_rows(data, layout.header_lines)
    content = pa.py_buffer(data).slice(start)
    try:
        try:
            table = _parse(content, layout, delimiter, used, 1 << 20)
        except pa.ArrowInvalid as error:
            if "block" not in str(error):
                raise
            # A field is longer than a block.
            table = _parse(content, layout, delimiter, used, min(len(content) + 1, (1 << 31) - 1))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise first_fault(path, layout, used, str(error)) from None
    if layout.quoted and max(data.count(b"\n", start), data.count(b"\r", start)) > len(table):
        _refuse_swallowed_rows(path, layout)
    _refuse_header_again(path, layout, table)
    return table


def _refuse_header_again(path: Path, layout: Layout, table: Any) -> None:
    """Raises where a row is the header again, as in files that were put one after the other."""
    from pyarrow import compute

    same: Any = None
    for name in table.column_names if layout.header_lines and len(table.column_names) > 1 else ():
        pattern = rf"(?i)^\x{{FEFF}}?\s*{re.escape(name.strip())}(?::[a-z_]+)?\s*$"
        alike = compute.match_substring_regex(table[name], pattern)
        same = alike if same is None else compute.and_(same, alike)
    if same is not None and (row := compute.index(same, True).as_py()) >= 0:
        raise RelandError(
            f"{place(path, layout, row)}: the names of the columns stand here again, as where files were put "
            "one after the other; remove this line"
        )


def _refuse_swallowed_rows(path: Path, layout: Layout) -> None:
    """Raises where a quote that nothing closes has made one text of the rows that follow it.

    Texts in quotes may go over many lines. What gives such a fault away is a line within one that has as
    many fields as a row, with numbers and dates where the row has them.
    """
    for number, fields in rows(path, layout):
        for line in (line for value in fields if "\n" in value for line in value.split("\n")[1:]):
            if _is_like(line, fields, layout.delimiter):
                raise RelandError(
                    f'{path}:{number}: the row that ends here has a quote (") that is not closed, so that '
                    f"the row {line[:60]!r} is part of its text; {_AS_TWO}"
                )


def _is_like(line: str, fields: Sequence[str], delimiter: str) -> bool:
    """Whether a line has numbers and dates where a row has them, of about the same length."""
    other = line.split(delimiter)
    numbers = [(a, b) for a, b in zip(fields, other, strict=False) if _NUMBER.fullmatch(a)]
    return (
        len(other) >= len(fields)
        and all(_NUMBER.fullmatch(b) and abs(len(a) - len(b)) <= 2 for a, b in numbers)
        and sum(len(a) for a, _ in numbers) >= _LIKE_A_NUMBER
    )


def _parse(data: Any, layout: Layout, delimiter: str, used: Sequence[str], block: int) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = list(layout.names)
    if not len(data):
        return pa.table({name: pa.array([], pa.string()) for name in used})
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(column_names=names, block_size=block),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if layout.quoted else False,
            double_quote=layout.quoted,
            newlines_in_values=layout.quoted,
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(used, pa.string()), include_columns=list(used),
            null_values=[], strings_can_be_null=False,
        ),
        # Arrow's own allocator keeps what it was given back: 36 MiB after Amazon Beauty.
        memory_pool=pa.system_memory_pool(),
    )  # fmt: skip


def _start_of_rows(data: bytes, header_lines: int) -> int:
    """Where the rows begin."""
    start = 0
    for _ in range(header_lines):
        ends = [end for mark in (b"\n", b"\r") if (end := data.find(mark, start)) >= 0]
        if not ends:
            return len(data)
        start = min(ends) + 1
        if data[start - 1 : start + 1] == b"\r\n":
            start += 1
    return start


def rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row; slow, for messages only.

    Raises:
        RelandError: a quote is open at the end of the file.
    """
    data = opened.content(path, layout.encoding, layout.fallback)
    # Line ends within quotes stay as they are, so that lines are counted as in the file.
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as lines:
        for _ in range(layout.header_lines):
            next(lines, None)
        if layout.quoted and len(layout.delimiter) == 1:
            yield from _quoted_rows(path, layout, lines, len(data))
            return
        for number, line in enumerate(lines, layout.header_lines + 1):
            if line != "\n":
                yield number, line.rstrip("\n").split(layout.delimiter)


def _quoted_rows(
    path: Path, layout: Layout, lines: Iterable[str], longest: int
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(itertools.chain(lines, ["\n", _END]), delimiter=layout.delimiter)
    limit, number = csv.field_size_limit(), layout.header_lines
    csv.field_size_limit(max(limit, 2 * longest))
    try:
        for fields in reader:
            if fields and fields[-1].endswith(_END):
                raise RelandError(
                    f'{path}:{number + 1}: a quote (") opens in this row and is never closed; {_AS_TWO}'
                )
            number = layout.header_lines + reader.line_num
            if fields and fields != [_END.rstrip("\n")]:
                yield number, fields
    finally:
        csv.field_size_limit(limit)


def place(path: Path, layout: Layout, row: int) -> str:
    """``file:line`` of a row."""
    number, _ = next(itertools.islice(rows(path, layout), row, None), (layout.header_lines, []))
    return f"{path}:{number}"


def first_fault(path: Path, layout: Layout, used: Sequence[str], otherwise: str) -> RelandError:
    """The error to raise: the first row that does not fit, else the words in `otherwise`."""
    names = list(layout.names)
    try:
        for number, fields in rows(path, layout):
            if len(fields) != len(names):
                shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
                return RelandError(
                    f"{path}:{number}: {len(fields)} fields where the columns are {len(names)}: {shown}"
                )
            for name, value in zip(names, fields, strict=True):
                if name in used and any("\udc80" <= character <= "\udcff" for character in value):
                    return RelandError(
                        f"{path}:{number}: {name!r} holds bytes that are not in the file's text encoding "
                        "(UTF-8 is expected); set --config.data.encoding, such as cp1252 or latin-1"
                    )
    except csv.Error as error:
        otherwise = str(error)
    return RelandError(f"{path}: cannot be read: {otherwise}")
