"""Reads the JSON objects of a file from another program: one per line, or in other layouts.

UTF-8 or UTF-16, with or without a byte order mark; an array in place of lines; objects over several lines;
several on one line (two files joined without a line end). Unreadable places are reported with their line, and
the rest is read.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reland_jax.files import read_regular
from reland_jax.types import RelandError

LONGEST = 4_000_000
"""Largest size of one object in characters: an answer or a rationale has a few thousand."""
MOST_BYTES = 1_000_000_000
"""Largest size of a file in bytes."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # starts like the byte order mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    b"{\x00": "utf-16-le",
    b"[\x00": "utf-16-le",
    b"\x00{": "utf-16-be",
    b"\x00[": "utf-16-be",
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
}
_BETWEEN = re.compile(r"[\s,\]\x1e]*(?:\[(?=\s*\{)\s*)?")
_NEXT_LINE = re.compile(r"\n(?=[^\s\]}])")
_NO_TEXT = re.compile(r"[\udc80-\udcff]")


def read_whole(path: Path) -> bytes:
    """The content of a file from another program.

    Raises:
        RelandError: it is larger than `MOST_BYTES`.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise RelandError(f"{path}: {size} bytes, more than the limit of {MOST_BYTES}; divide the file")
    return read_regular(path)


def objects_in(content: bytes, name: str) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """Every object as (file:line, object or error message).

    Args:
        content: content of the file.
        name: name of the file, for messages.
    """
    text = _decoded(content)
    if text is None:
        packed = next((kind for magic, kind in _PACKED.items() if content.startswith(magic)), "")
        why = f"packed with {packed}; unpack it" if packed else "neither in UTF-8 nor in UTF-16; convert it"
        yield name, f"the file is {why}"
        return
    position, line, counted = _behind(text, 0), 1, 0
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        value, position = _value(text, position)
        yield f"{name}:{line}", value
        position = _behind(text, position)


def _decoded(content: bytes) -> str | None:
    """The text, with single invalid bytes as lone surrogates; None if it is not text."""
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    if any(map(content.startswith, _PACKED)):
        return None
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        return None
    return text.removeprefix("\ufeff")


def _value(text: str, position: int) -> tuple[Mapping[str, Any] | str, int]:
    """The value that starts here, or an error message, and where it ends."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        following = _NEXT_LINE.search(text, position)
        if following is None and not text.endswith("\n"):
            # A file without a final line end was cut off while it was written or copied.
            return "the last line is cut off", len(text)
        return f"not a JSON object in UTF-8 ({error})", following.end() if following else len(text)
    if end - position > LONGEST:
        return f"{end - position} characters, more than {LONGEST}", end
    if _NO_TEXT.search(text, position, end):
        return "not a JSON object in UTF-8 (it has bytes of another encoding)", end
    if not isinstance(value, dict):
        return f"a {type(value).__name__}, where a JSON object is needed", end
    return value, end


def _behind(text: str, position: int) -> int:
    """Where the next value starts: after blanks, commas and brackets around objects."""
    between = _BETWEEN.match(text, position)
    return between.end() if between else position
