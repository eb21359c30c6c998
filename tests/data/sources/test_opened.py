"""Opening text files: packed ones within a bound, and every encoding told or named."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest

from reland_jax.data.sources import opened
from reland_jax.types import RelandError

TEXT = "user_id,título\nü,1\n用户,2\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16", b""), ("utf-32", b""),
     ("utf-16-be", codecs.BOM_UTF16_BE)],
)  # fmt: skip
def test_marks_and_packing_are_seen_by_the_content(
    tmp_path: Path, pack: type, encoding: str, mark: bytes
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(pack(mark + TEXT.encode(encoding)))
    assert opened.content(path, "").decode() == TEXT
    with opened.text(path, "") as lines:
        assert lines.readline() == "user_id,título\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "gb18030", "cp1252", "utf-8"])
def test_an_encoding_that_is_named(tmp_path: Path, encoding: str) -> None:
    text = TEXT if encoding != "cp1252" else "user_id,título\nü,1\n"
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode(encoding))
    assert opened.content(path, encoding).decode() == text


def test_what_cannot_be_decoded_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,2\n\xff,3\n")
    with pytest.raises(RelandError, match=r"x\.csv:3: holds bytes that are not in the text encoding 'ascii'"):
        opened.content(path, "ascii")
    assert opened.content(path, "", fallback="latin-1").decode() == "a,b\n1,2\nÿ,3\n"
    with pytest.raises(RelandError, match=r"encoding='utf-ate' is not a text encoding such as utf-8, utf-16"):
        opened.content(path, "utf-ate")
    for order in ("le", "be"):
        path.write_bytes(TEXT.encode(f"utf-16-{order}"))
        for read in (opened.content, opened.text):
            with pytest.raises(RelandError, match=rf"looks like UTF-16.*encoding=utf-16-{order}"):
                read(path, "")
    for name in ("utf-16", "UTF_16", "utf-32"):
        with pytest.raises(RelandError, match=r"x\.csv: has no byte order mark, which .*name the order: "):
            opened.text(path, name)
    path.write_bytes(codecs.BOM_UTF16_LE + b"a\0b")
    with pytest.raises(RelandError, match=r"x\.csv:1: .*'utf-16'"):
        opened.content(path, "")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_is_damaged_or_grows_without_end(
    tmp_path: Path, pack: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv.gz"
    whole = pack(TEXT.encode() * 50)
    path.write_bytes(whole[:-12])
    with pytest.raises(RelandError, match=r"x\.csv\.gz: (the packed file ends in the middle|damaged)"):
        opened.content(path, "")
    path.write_bytes(whole[:20] + b"\xff" * 8 + whole[28:])
    with pytest.raises(RelandError, match=r"x\.csv\.gz: (the packed file ends in the middle|damaged)"):
        opened.content(path, "")
    monkeypatch.setattr(opened, "_FREE", 1 << 20)
    path.write_bytes(pack(b"0" * (3 << 20)))
    with pytest.raises(
        RelandError, match=r"unpacks to more than 1 MiB, 100 times its size .*unpack it yourself"
    ):
        opened.content(path, "")
    path.write_bytes(pack(b"0" * (1 << 19)))
    assert len(opened.content(path, "")) == 1 << 19


def test_an_archive_and_a_line_without_end_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.csv", "w") as archive:
        archive.writestr("x.csv", TEXT)
    with pytest.raises(RelandError, match=r"x\.csv: a ZIP archive; unpack it"):
        opened.content(tmp_path / "x.csv", "")
    path = tmp_path / "x.json"
    path.write_bytes(b"short\n\n" + b"x" * 100 + b"\n")
    with pytest.raises(RelandError, match=r"x\.json:3: a line of more than"):
        list(opened.lines(path, longest=64))
    assert list(opened.lines(path)) == [(1, b"short\n"), (3, b"x" * 100 + b"\n")]
