"""Artefacts: made once, made again when what they depend on changes, and never half."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.artefacts import (
    STAMP,
    Artefact,
    fingerprint,
    load_arrays,
    make,
    require,
    save_arrays,
    wait_for,
)
from reland_jax.config import TrainConfig
from reland_jax.files import write_sealed
from reland_jax.strings import STRING, as_strings
from reland_jax.types import RelandError


class Stage:
    """A stage that counts how often it is computed and loaded, and can be told to break while saving."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.computed = self.loaded = 0
        self.broken = False

    def compute(self) -> str:
        self.computed += 1
        return f"value {self.computed}"

    def save(self, value: str, folder: Path) -> None:
        assert list(folder.iterdir()) == [], "save must be given an empty folder"
        (folder / "first").write_text(value)
        if self.broken:
            raise OSError("disk full")
        (folder / "second").write_text(value)

    def load(self, folder: Path) -> str:
        self.loaded += 1
        first, second = ((folder / name).read_text() for name in ("first", "second"))
        assert first == second
        return first

    def make(self, folder: Path, made_from: str, force: bool = False) -> Artefact:
        return make(
            folder, made_from, compute=self.compute, save=self.save, load=self.load, force=force
        )  # fmt: skip


def test_an_artefact_is_made_once_until_something_changes(tmp_path: Path) -> None:
    stage, folder = Stage(), tmp_path / "train" / "id"
    first, second = stage.make(folder, "a"), stage.make(folder, "a")
    assert (first.value, first.fresh) == ("value 1", True)
    assert (second.value, second.fresh, second.seconds) == ("value 1", False, first.seconds)
    assert stage.make(folder, "b").value == "value 2"
    assert (stage.computed, stage.loaded) == (2, 1)
    assert json.loads((folder / STAMP).read_text())["made_from"] == "b"
    assert sorted(path.name for path in folder.parent.iterdir()) == [".id.lock", "id"]


def test_an_artefact_that_lacks_a_file_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted by hand, or written by a program that kept less."""
    stage, folder = Stage(), tmp_path / "split"
    stage.make(folder, "a")
    (folder / "second").unlink()
    again = stage.make(folder, "a")
    assert again.fresh and again.value == "value 2" and (folder / "second").read_text() == "value 2"
    assert f"{folder} is damaged: second is missing; the stage is run again" in caplog.text
    assert not stage.make(folder, "a").fresh


def test_an_artefact_made_again_on_demand_is_another_one(tmp_path: Path) -> None:
    """Under the same settings it is still up to date, but later stages see that it is not the old one."""
    stage, folder = Stage(), tmp_path / "load"
    first = stage.make(folder, "a", force=True)
    again = stage.make(folder, "a", force=True)
    assert (first.fingerprint, again.value) == ("a", "value 2")
    assert again.fingerprint != "a"
    loaded = stage.make(folder, "a"), require(folder, "a", "load", stage.load)
    assert [(one.value, one.fingerprint, one.fresh) for one in loaded] == [
        ("value 2", again.fingerprint, False)
    ] * 2


def test_an_artefact_can_be_known_by_what_it_holds(tmp_path: Path) -> None:
    """Made again, from other inputs or on demand, it is the same to later stages if it holds the same."""
    stage, folder = Stage(), tmp_path / "load"

    def made(made_from: str, value: str, force: bool = False) -> Artefact:
        return make(
            folder, made_from, compute=lambda: value, save=stage.save, load=stage.load,
            identify=lambda held: f"holds {held}", force=force,
        )  # fmt: skip

    same = made("a", "x"), made("b", "x"), made("b", "x", force=True), made("b", "y")
    assert [(one.fingerprint, one.fresh) for one in same] == [
        ("holds x", True), ("holds x", True), ("holds x", True), ("holds x", False),
    ]  # fmt: skip
    assert made("c", "y").fingerprint == "holds y"


def test_a_crash_while_saving_leaves_the_old_artefact(tmp_path: Path) -> None:
    """Whole, under its old stamp, with nothing half-written beside it; the next run makes the new one."""
    stage, folder = Stage(), tmp_path / "load"
    stage.make(folder, "a")
    stage.broken = True
    with pytest.raises(OSError, match="disk full"):
        stage.make(folder, "b")
    assert require(folder, "a", "load", stage.load).value == "value 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".load.lock", "load"]
    stage.broken = False
    assert stage.make(folder, "b").value == "value 3"


class OtherJob:
    """A job that makes an artefact and takes its time; a thread will do, as it opens the lock by itself."""

    def __init__(self, folder: Path, broken: bool) -> None:
        """Starts, and returns when the job is at work."""
        self._folder, self._at_work, self._go_on = folder, threading.Event(), threading.Event()
        self._stage = Stage()
        self._stage.broken = broken
        self._thread = threading.Thread(target=self._make)
        self._thread.start()
        assert self._at_work.wait(60)

    def _make(self) -> None:
        def compute() -> str:
            self._at_work.set()
            assert self._go_on.wait(60)
            return "the other's"

        with contextlib.suppress(OSError):
            make(self._folder, "settings", compute=compute, save=self._stage.save, load=self._stage.load)

    def finish_after(self, seconds: float) -> None:
        """Lets the job finish by and by."""
        threading.Timer(seconds, self._go_on.set).start()

    def end(self) -> None:
        """Waits for the job's end."""
        self._thread.join(60)


@pytest.mark.parametrize(
    ("broken", "together", "value"),
    [(False, False, "the other's"), (True, False, "value 1"), (False, True, "value 1")],
)
def test_what_another_job_is_making_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: bool, together: bool, value: str
) -> None:
    """And taken over if it was finished, unless other processes cannot do without this one."""
    other, ours = OtherJob(tmp_path / "stage", broken), Stage()
    other.finish_after(0.3)
    found = make(
        tmp_path / "stage", "settings",
        compute=ours.compute, save=ours.save, load=ours.load, together=together,
    )  # fmt: skip
    other.end()
    assert found.value == value and found.fresh == (value == "value 1")
    assert "stage: waiting for another job" in caplog.text


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert Stage().make(tmp_path / "stage", "settings").fresh
    assert "no lock can be had here (" in caplog.text


def test_what_is_required_must_be_there_and_up_to_date(tmp_path: Path) -> None:
    stage, folder = Stage(), tmp_path / "assign"
    with pytest.raises(RelandError, match=r"'assign' does not exist; add 'assign' to --stages"):
        require(folder, "a", "assign", stage.load)
    stage.make(folder, "a")
    with pytest.raises(RelandError, match=r"'assign' was made from other settings or data; add 'assign'"):
        require(folder, "b", "assign", stage.load)
    assert require(folder, "a", "assign", stage.load).value == "value 1"
    (folder / "second").unlink()
    with pytest.raises(RelandError, match=r"'assign' is damaged \(second is missing\); add 'assign'"):
        require(folder, "a", "assign", stage.load)


def damaged(content: bytes, other: bytes) -> dict[str, bytes]:
    """A file with a bit flipped, cut, emptied, longer, and exchanged with another run's."""
    place = len(content) // 2
    return {
        "bit": content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :],
        "cut": content[:place],
        "emptied": b"",
        "longer": content + b"0",
        "exchanged": other,
    }


def array_artefact(folder: Path, value: int, made_from: str = "a") -> Artefact:
    """An artefact of arrays and texts that are all of one value."""
    arrays = {"a": np.full(50, value), "text": np.array([str(value)] * 3, STRING)}
    return make(folder, made_from, compute=lambda: arrays, save=save_arrays, load=load_arrays)


@pytest.mark.parametrize("kind", ["bit", "cut", "emptied", "longer", "exchanged"])
@pytest.mark.parametrize("name", ["a.npy", "text.npz", "arrays.json", STAMP])
def test_a_damaged_file_is_told_and_never_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    """Not by a run that makes the artefact again, and not by one that needs it."""
    folder = tmp_path / "assign"
    array_artefact(folder, 1)
    array_artefact(tmp_path / "other", 7, "a")
    other = (tmp_path / "other" / name).read_bytes()
    if name == "arrays.json":
        other = b'["a"]'
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), other)[kind])
    unread = name == STAMP and kind != "exchanged"  # that of another artefact can be read, and fits no file
    told = "a.npy" if (name, kind) == (STAMP, "exchanged") else name
    with pytest.raises(RelandError, match=rf"is damaged \(.*{told}.*\); add 'assign' to --stages"):
        require(folder, "a", "assign", load_arrays)
    again = array_artefact(folder, 2)
    assert again.fresh and f"{folder} is damaged" in caplog.text and told in caplog.text
    found = array_artefact(folder, 3)
    assert (found.fresh, found.value["a"].tolist(), found.value["text"].tolist()) == (
        False, [2] * 50, ["2"] * 3,
    )  # fmt: skip
    aside = folder.with_name("assign.damaged-1")
    assert aside.is_dir() == unread, "what no stamp tells to be ours is kept"
    if unread:
        assert str(aside) in caplog.text and (aside / "a.npy").exists()


def test_an_artefact_exchanged_as_a_whole_is_made_again(tmp_path: Path) -> None:
    array_artefact(tmp_path / "x", 1, "settings x")
    array_artefact(tmp_path / "y", 2, "settings y")
    for old, new in (("x", "z"), ("y", "x"), ("z", "y")):
        (tmp_path / old).rename(tmp_path / new)
    again = array_artefact(tmp_path / "x", 3, "settings x")
    assert again.fresh and again.value["a"][0] == 3


def test_a_damaged_artefact_that_must_not_be_made_again_stays(tmp_path: Path) -> None:
    folder = tmp_path / "build_pool"
    array_artefact(folder, 1)
    (folder / "a.npy").write_bytes(b"")

    def refuse(why: str) -> None:
        raise RelandError(f"paid for: {why}")

    with pytest.raises(RelandError, match="paid for: a.npy has 0 bytes, of .* that were written"):
        make(folder, "a", compute=dict, save=save_arrays, load=load_arrays, on_damage=refuse)
    assert (folder / "text.npz").exists()


@pytest.mark.parametrize("made_by", ["somebody else", "us", "an earlier program"])
@pytest.mark.parametrize("name", ["thesis.txt", "vectors.npy"])
def test_a_file_of_somebody_else_is_never_removed(tmp_path: Path, name: str, made_by: str) -> None:
    """Neither a folder that has the name of a stage, nor a file that was put into ours."""
    folder = tmp_path / "load"
    if made_by != "somebody else":
        array_artefact(folder, 1)
    if made_by == "an earlier program":
        (folder / STAMP).write_text(json.dumps({"made_from": "a", "fingerprint": "a", "seconds": 1.0}))
        (folder / "text.npz").unlink()
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("years of work")
    told = "this folder was not made by" if made_by == "somebody else" else "this file was not made by"
    with pytest.raises(RelandError, match=rf"{folder}.*{told} this program.*move it away"):
        make(folder, "b", compute=lambda: pytest.fail("computed in vain"), save=save_arrays, load=load_arrays)
    assert (folder / name).read_text() == "years of work"
    (folder / name).unlink()
    assert array_artefact(folder, 2, "b").fresh


@pytest.mark.parametrize("name", [STAMP, "a.npy", "arrays.json"])
def test_what_is_no_file_is_never_read(tmp_path: Path, name: str) -> None:
    """A pipe or a device in the place of a file: reading it would never end."""
    folder = tmp_path / "load"
    for put in (os.mkfifo, partial(os.symlink, "/dev/zero")):
        array_artefact(folder, 1)
        (folder / name).unlink()
        put(folder / name)
        if name == STAMP:
            with pytest.raises(RelandError, match="this folder was not made by this program"):
                array_artefact(folder, 2)
            shutil.rmtree(folder)
        else:
            assert array_artefact(folder, 2).fresh


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, "null", "[]", "{}", '{"files": {}}', '{"files": {"a.npy": {}}}', '{"files": [1]}'],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_stamp_that_says_something_else_is_damaged(tmp_path: Path, content: str, sealed: bool) -> None:
    folder = tmp_path / "load"
    array_artefact(folder, 1)
    (folder / STAMP).write_text(content)
    if sealed and content.startswith("{"):
        said = {"made_from": "a", "fingerprint": "a", "seconds": 1}
        write_sealed(folder / STAMP, said | json.loads(content))
    with pytest.raises(RelandError, match=rf"is damaged \({STAMP} is not what was written\)"):
        require(folder, "a", "load", load_arrays)
    assert array_artefact(folder, 2).fresh and (tmp_path / "load.damaged-1" / "a.npy").exists()


def test_a_file_in_the_place_of_an_artefact_is_reported(tmp_path: Path) -> None:
    (tmp_path / "load").write_text("notes")
    with pytest.raises(RelandError, match="a file is in the place of a folder; move it away"):
        array_artefact(tmp_path / "load", 1)
    assert (tmp_path / "load").read_text() == "notes"


def test_a_linked_folder_stays_linked(tmp_path: Path) -> None:
    """A person may keep an artefact on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "load").symlink_to(tmp_path / "disk")
    for value, made_from in ((1, "a"), (2, "b")):
        assert array_artefact(tmp_path / "load", value, made_from).fresh
    assert (tmp_path / "load").is_symlink() and load_arrays(tmp_path / "disk")["a"][0] == 2
    assert not array_artefact(tmp_path / "load", 3, "b").fresh


def test_an_artefact_of_an_earlier_program_is_made_again(tmp_path: Path) -> None:
    """Its stamp had no checksums."""
    folder = tmp_path / "split"
    array_artefact(folder, 1)
    (folder / STAMP).write_text(json.dumps({"made_from": "a", "fingerprint": "a", "seconds": 1.0}))
    with pytest.raises(RelandError, match="was made by an earlier version of this program"):
        require(folder, "a", "split", load_arrays)
    assert array_artefact(folder, 2).fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == [".split.lock", "split"]


def test_what_holds_ids_is_for_its_owner_alone(tmp_path: Path) -> None:
    array_artefact(tmp_path / "load", 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [tmp_path / "load", *tmp_path.glob("load/*")]}
    assert modes.pop("load") == 0o700 and set(modes.values()) == {0o600}


WRITER = """
import sys
from functools import partial
from pathlib import Path
import numpy as np
from reland_jax.artefacts import load_arrays, make, save_arrays
folder, value, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    arrays = {"a": np.full(9, value), "b": np.full(9, value)}
    found = make(folder, str(value), compute=lambda: arrays, save=save_arrays, load=load_arrays).value
    assert all((each == value).all() for each in found.values()), found
"""


@pytest.mark.parametrize("times", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_jobs_with_other_settings_never_get_the_value_of_each_other(tmp_path: Path, times: int) -> None:
    """Each finds its own value or makes it, however often the other replaces the folder meanwhile."""
    jobs = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "load", value, str(times)], stderr=-1)
        for value in "12"
    ]
    for job in jobs:
        _, told = job.communicate(timeout=600)
        assert job.returncode == 0, told.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".load.lock", "load"]


def test_waiting_survives_that_the_artefact_is_replaced(tmp_path: Path) -> None:
    """Again and again, by the same and by others: what was waited for is what is returned."""
    folder, stop = tmp_path / "load", threading.Event()

    def replace() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            array_artefact(folder, number % 2, "ab"[number % 2])

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(10):
            found = wait_for(folder, "b", load_arrays)
            assert (found.value["a"] == 1).all() and found.value["text"].tolist() == ["1"] * 3
    finally:
        stop.set()
        writer.join()


def test_waiting_goes_on_past_a_damaged_artefact(tmp_path: Path) -> None:
    """The process that makes it makes it again."""
    array_artefact(tmp_path / "load", 1)
    (tmp_path / "load" / "a.npy").write_bytes(b"")
    healer = threading.Timer(0.2, array_artefact, (tmp_path / "load", 2))
    healer.start()
    assert wait_for(tmp_path / "load", "a", load_arrays).value["a"][0] == 2
    healer.join()


def variations(path: Path) -> list[tuple[Any, ...]]:
    """Inputs that differ in one thing each."""
    array = np.arange(6, dtype=np.int32)
    changed = array.copy()
    changed[3] += 1
    train = TrainConfig()
    return [
        (train, array, "x"),
        (dataclasses.replace(train, learning_rate=2e-3), array, "x"),
        (train, changed, "x"),
        (train, array.reshape(2, 3), "x"),
        (train, array.view(np.float32), "x"),
        (train, array, "y"),
        (train, array),
        (train, array, path),
    ]


def test_fingerprints_differ_where_inputs_do(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("one")
    marks = [fingerprint(*inputs) for inputs in variations(path)]
    assert len(set(marks)) == len(marks)
    assert marks == [fingerprint(*inputs) for inputs in variations(path)]
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)
    path.write_text("two")
    assert fingerprint(*variations(path)[-1]) != marks[-1], "it is the content of a file that counts"


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    arrays = {
        "whole": np.arange(5, dtype=np.int32),
        "real": np.array([[0.1, -np.inf]], np.float32),
        "empty": np.zeros((0, 3), np.int64),
        "item.a/b ..%": np.arange(3) > 1,
        "number": np.array(7),
        "text": np.array(["", "Crème", "雪"], dtype=object),
    }
    save_arrays(arrays, tmp_path)
    found = load_arrays(tmp_path)
    assert list(found) == list(arrays)
    for name in list(arrays)[:-1]:
        assert type(found[name]) is np.ndarray
        np.testing.assert_array_equal(found[name], arrays[name])
        assert found[name].dtype == arrays[name].dtype and found[name].shape == arrays[name].shape
    assert found["text"].tolist() == arrays["text"].tolist()


@pytest.mark.parametrize("kind", [object, "U", STRING], ids=["object", "fixed", "variable"])
def test_texts_come_back_as_they_went_and_cost_their_own_length(tmp_path: Path, kind: Any) -> None:
    texts = ["", "Crème", "雪", "long " * 20_000, *["short"] * 1000]
    save_arrays({"item.a/b": np.array(texts, dtype=kind), "none": np.array([], dtype=kind)}, tmp_path)
    found = load_arrays(tmp_path)
    assert found["item.a/b"].tolist() == texts and found["none"].tolist() == []
    assert found["item.a/b"].dtype == found["none"].dtype == STRING
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * len("".join(texts))


def test_a_nul_at_the_end_makes_another_text(tmp_path: Path) -> None:
    column = as_strings(["bob", "bob\0", "bob\0\0"])
    save_arrays({"ids": column}, tmp_path)
    assert load_arrays(tmp_path)["ids"].tolist() == ["bob", "bob\0", "bob\0\0"]
    others = (column, column[:2], as_strings(["bob", "bob\0\0", "bob\0"]))
    marks = [fingerprint(each) for each in others]
    assert len(set(marks)) == 3 and fingerprint(column.astype(object)) == marks[0]


def test_texts_that_an_earlier_program_wrote_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array(["a", "bé"]))
    (tmp_path / "arrays.json").write_text('["ids"]')
    found = load_arrays(tmp_path)["ids"]
    assert found.tolist() == ["a", "bé"] and found.dtype == STRING


def test_arrays_are_read_from_their_files_when_they_are_used(tmp_path: Path) -> None:
    """And what a stage writes into one stays its own."""
    save_arrays({"a": np.zeros((1000, 8), np.float32)}, tmp_path)
    found = load_arrays(tmp_path)["a"]
    assert isinstance(found.base, np.memmap)
    with (tmp_path / "a.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(5).tobytes())
    assert found[-1, -1] == 5
    found[0, 0] = 3
    assert load_arrays(tmp_path)["a"][0, 0] == 0


def test_a_lacking_array_is_reported(tmp_path: Path) -> None:
    save_arrays({"a": np.zeros(1), "b": np.ones(1)}, tmp_path)
    (tmp_path / "b.npy").unlink()
    with pytest.raises(FileNotFoundError, match="b.npy"):
        load_arrays(tmp_path)
