"""The text of a file: unpacked within a bound, and decoded into UTF-8."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from reland_jax.types import RelandError

_MOST = 100
"""Times its own size that a packed file may have unpacked: text has 3 to 30."""
_FREE = 64 << 20
"""Bytes that any packed file may have."""
_PIECE = 1 << 22

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PACKERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class Bounded(io.RawIOBase):
    """The unpacked bytes of a file, which must not grow beyond all measure."""

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            RelandError: it cannot be opened.
        """
        with path.open("rb") as file:
            start = file.read(8)
        opener = next((each for mark, each in _PACKERS.items() if start.startswith(mark)), None)
        if start.startswith(b"PK\x03\x04"):
            raise RelandError(
                f"{path}: a ZIP archive; unpack it and give the file in it (an Excel file: save it as CSV)"
            )
        self._path, self._read = path, 0
        self._file: IO[bytes] = opener(path, "rb") if opener else path.open("rb")
        self._bound = _FREE + _MOST * path.stat().st_size if opener else None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer.

        Raises:
            RelandError: the file is damaged, ends too early, or unpacks to more than the bound.
        """
        try:
            content = self._file.read(len(buffer))
        except EOFError:
            raise RelandError(
                f"{self._path}: the packed file ends in the middle of its data; download it again"
            ) from None
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError) as error:
            raise RelandError(f"{self._path}: damaged ({error}); download it again") from None
        self._read += len(content)
        if self._bound is not None and self._read > self._bound:
            raise RelandError(
                f"{self._path}: unpacks to more than {self._bound >> 20:,} MiB, {_MOST} times its size and "
                f"{_FREE >> 20} MiB, which no usual table does; if you trust it, unpack it yourself"
            )
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        """All that is left, in large pieces."""
        pieces = []
        buffer = bytearray(_PIECE)
        while count := self.readinto(buffer):
            pieces.append(bytes(buffer[:count]))
        return b"".join(pieces)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def content(path: Path, encoding: str | None, fallback: str = "") -> bytes:
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        path: a file, plain or packed by gzip, bzip2 or xz.
        encoding: of the text; None means what its byte order mark says, else UTF-8.
        fallback: encoding of a file without a mark that is not UTF-8, where `encoding` is None.

    Returns:
        Bytes. They are not checked where they are taken for UTF-8 as they are.

    Raises:
        RelandError: the file cannot be read, or is not in the encoding; with the line.
    """
    with Bounded(path) as file:
        data = file.readall()
    if encoding:
        known(encoding)
    mark = next((name for bytes_, name in _MARKS.items() if data.startswith(bytes_)), "")
    if not encoding and not mark:
        if fallback and not _is_utf8(data):
            return data.decode(fallback).encode()
        _refuse_wide(path, data)
        return data
    try:
        name = encoding or mark
        if mark == "utf-8-sig" and codecs.lookup(name).name in ("utf-8", "utf-8-sig"):
            return data.removeprefix(codecs.BOM_UTF8)
        return data.decode(name).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        line = data[: getattr(error, "start", 0)].count(b"\n") + 1
        raise RelandError(
            f"{path}:{line}: holds bytes that are not in the text encoding {encoding or mark!r}; "
            "set another --config.data.encoding"
        ) from None


def text(path: Path, encoding: str | None) -> io.TextIOWrapper:
    """A file opened as text, for its header; bytes that are not in the encoding are replaced.

    Raises:
        RelandError: an unknown encoding, or a file that cannot be read.
    """
    if encoding:
        known(encoding)
    with Bounded(path) as file:
        start = file.read(4096) or b""
    mark = next((name for bytes_, name in _MARKS.items() if start.startswith(bytes_)), "")
    if not encoding and not mark:
        _refuse_wide(path, start)
    name = mark if mark == "utf-8-sig" else encoding or mark or "utf-8"
    if not mark and codecs.lookup(name).name in ("utf-16", "utf-32"):
        raise RelandError(
            f"{path}: has no byte order mark, which config.data.encoding={encoding!r} needs; leave it out, "
            f"or name the order: {name}-le or {name}-be"
        )
    return io.TextIOWrapper(io.BufferedReader(Bounded(path)), encoding=name, errors="replace", newline="")


def known(encoding: str) -> None:
    """Raises `RelandError` for a text encoding that Python does not know."""
    try:
        "".encode(encoding)
    except LookupError:
        raise RelandError(
            f"config.data.encoding={encoding!r} is not a text encoding such as utf-8, utf-16 or cp1252"
        ) from None


def lines(path: Path, longest: int = 1 << 26) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of every line of a file that is not blank.

    Args:
        path: a file, plain or packed.
        longest: bytes that a line may have.

    Raises:
        RelandError: it cannot be read, or has a longer line.
    """
    number = 0
    with Bounded(path) as raw, io.BufferedReader(raw, 1 << 20) as file:
        while True:
            try:
                line = file.readline(longest)
            except RelandError as error:
                raise RelandError(str(error).replace(f"{path}:", f"{path}:{number + 1}:", 1)) from None
            if not line:
                return
            number += 1
            if len(line) == longest:
                raise RelandError(
                    f"{path}:{number}: a line of more than {longest >> 20} MiB; is this the right file?"
                )
            if line.strip():
                yield number, line


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _refuse_wide(path: Path, data: bytes) -> None:
    """Raises for text of two bytes a character without a mark, which would be read as nonsense."""
    start = data[:4096]
    # A NUL in some text is another matter; here every other byte is one.
    if start.count(0) > len(start) // 4:
        order = "le" if start[1:2] == b"\0" else "be"
        raise RelandError(
            f"{path}: looks like UTF-16, not UTF-8; set --config.data.encoding=utf-16-{order}, or save it "
            "as UTF-8"
        )
