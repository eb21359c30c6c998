"""The ground floor: what is written is whole or not there, and nothing of anybody else is removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reland_jax import files
from reland_jax.types import RelandError

DEAD_WRITER = """
import os, signal, sys
from pathlib import Path
from reland_jax.files import written_aside
with written_aside(Path(sys.argv[1])) as aside:
    aside.mkdir()
    (aside / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path) -> list[Path]:
    """Lets another process be killed while it writes `path`; returns what it left."""
    ended = subprocess.run([sys.executable, "-c", DEAD_WRITER, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    return sorted(path.parent.glob(f".{path.name}.tmp-*"))


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    files.write_text(path, "first ü")
    with pytest.raises(OSError, match="full"), files.written_aside(path) as aside:
        aside.write_text("sec")
        raise OSError("disk full")
    assert path.read_text() == "first ü"
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_only_if_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "load"

    def ours(path: Path) -> bool:
        return (path / "stamp").exists()

    for value in "ab":
        with files.written_aside(folder, ours=ours) as aside:
            aside.mkdir()
            (aside / "stamp").write_text(value)
    assert (folder / "stamp").read_text() == "b"
    (folder / "stamp").rename(folder / "thesis.txt")
    with (
        pytest.raises(RelandError, match="was not made by this program"),
        files.written_aside(folder, ours=ours),
    ):
        raise AssertionError("never entered: refused before any work")
    assert [path.name for path in tmp_path.rglob("*")] == ["load", "thesis.txt"]


def test_a_folder_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "load"
    path.write_text("a person's")
    with pytest.raises(RelandError, match="in the place of a folder"), files.written_aside(path) as aside:
        aside.mkdir()
    assert path.read_text() == "a person's"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (left,) = kill_while_writing(path)
    foreign = [tmp_path / name for name in ("folder.tmp-1", ".folder.tmp-old notes", "folder.old")]
    for each in foreign:
        each.write_text("a person's")
    alive = tmp_path / f".folder.tmp-{files._machine()}-{os.getppid()}"
    other_machine = tmp_path / ".folder.tmp-01234567-1"
    for each in (alive, other_machine):
        each.write_text("being written")
    assert files.sweep(path) == [left]
    assert sorted(tmp_path.iterdir()) == sorted([*foreign, alive, other_machine])
    os.utime(other_machine, (0, time.time() - 2 * 24 * 3600))
    assert files.sweep_folder(tmp_path) == [other_machine]


def test_writing_again_sweeps_what_was_left(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    assert len(kill_while_writing(path)) == 1
    with files.written_aside(path) as aside:
        aside.mkdir()
    assert list(tmp_path.iterdir()) == [path]


def test_private_things_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        files.write_json(tmp_path / "file", {}, private=True)
        files.append_line(tmp_path / "log", b"x\n", private=True)
        with files.written_aside(tmp_path / "folder", private=True) as aside:
            aside.mkdir()
            (aside / "inside").write_text("x")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o600, "log": 0o600, "folder": 0o700, "inside": 0o600}


def test_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": np.float32(0.5), "b": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [0, 1]}
    with pytest.raises(TypeError, match="object has no place"):
        files.write_json(path, object())


def test_a_lock_keeps_others_out_and_sharers_in(tmp_path: Path) -> None:
    path, told = tmp_path / ".lock", []
    with files.locked(path, shared=True), files.locked(path, shared=True, wait=False) as waited:
        assert not waited
        with pytest.raises(BlockingIOError), files.locked(path, wait=False, on_wait=lambda: told.append(1)):
            raise AssertionError("held by others")
    with files.locked(path, wait=False) as waited:
        assert not waited
    assert not told


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/ada")
    assert files.resolve("~/x") == Path("/somewhere/ada/x")
    assert files.resolve("x/~") == Path("x/~")


def test_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.checksum(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_every_change_of_a_folder_is_noticed(tmp_path: Path) -> None:
    """A file more is no damage; one less, a byte more or less, another byte, a folder in its place are."""
    (tmp_path / "below").mkdir()
    for name in ("a", "below/b"):
        (tmp_path / name).write_bytes(b"0123456789")
    was = files.inventory(tmp_path)
    assert list(was) == ["a", "below/b"] and was["a"]["bytes"] == 10
    (tmp_path / "more").write_bytes(b"")
    assert files.first_damage(tmp_path, was) == ""
    path = tmp_path / "below/b"
    for content, told in (
        (b"012345678", "below/b has 9 bytes, of 10 that were written"),
        (b"", "below/b has 0 bytes"),
        (b"0123456798", "the content of below/b is not what was written"),
    ):
        path.write_bytes(content)
        assert told in files.first_damage(tmp_path, was)
    path.unlink()
    assert files.first_damage(tmp_path, was) == "below/b is missing"
    path.mkdir()
    assert "below/b" in files.first_damage(tmp_path, was)
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"")
    assert files.first_damage(tmp_path, was) == "below/b is missing"


def test_every_changed_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    """Or is without effect, such as white space."""
    path, value = tmp_path / "stamp.json", {"name": "\u00fcber", "seconds": 1.5, "files": {"a": {"bytes": 3}}}
    files.write_sealed(path, value)
    whole = path.read_bytes()
    assert files.read_sealed(path) == value
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert files.read_sealed(path) == value
        except ValueError:
            continue
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError):
            files.read_sealed(path)


def test_private_files_are_so_from_their_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes, make_private = [], files.make_private

    def watched(path: Path) -> None:
        modes.append(path.stat().st_mode & 0o777)
        make_private(path)

    monkeypatch.setattr(files, "make_private", watched)
    for text in ("first", "second"):
        files.write_text(tmp_path / "file", text, private=True)
    assert modes == [0o600, 0o600] and (tmp_path / "file").read_text() == "second"


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (files.read_regular, files.checksum, files.read_sealed):
            with pytest.raises(OSError, match="this is not a file"):
                read(place)


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    one, other = files.Lock(tmp_path / "lock"), files.Lock(tmp_path / "lock")
    assert one.holder() == "?"
    assert one.take() and one.take() and one.is_held
    assert not other.take() and not other.is_held and other.holder() == str(os.getpid())
    one.release()
    assert other.take() and not one.take() and one.path.exists()
    other.release()
    other.release()
