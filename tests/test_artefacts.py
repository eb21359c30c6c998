"""Artefacts: made once, made again when what they hang on changes, and never half."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import threading
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
    write_json,
)
from reland_jax.config import TrainConfig
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
    assert f"{folder / 'second'} is missing" in caplog.text
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


def test_a_file_system_without_locks_is_told(
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
    with pytest.raises(RelandError, match=r"'assign' lacks .*second; add 'assign' to --stages"):
        require(folder, "a", "assign", stage.load)


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
    write_json(tmp_path / "arrays.json", ["ids"])
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


def test_a_lacking_array_is_told(tmp_path: Path) -> None:
    save_arrays({"a": np.zeros(1), "b": np.ones(1)}, tmp_path)
    (tmp_path / "b.npy").unlink()
    with pytest.raises(FileNotFoundError, match="b.npy"):
        load_arrays(tmp_path)


def test_json_takes_numpy_values_and_keeps_the_old_file_at_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": np.float32(0.5), "b": np.arange(2), "c": {"d": np.int64(3)}})
    expected = {"a": 0.5, "b": [0, 1], "c": {"d": 3}}
    assert json.loads(path.read_text()) == expected
    with pytest.raises(TypeError, match="set has no place in a JSON file"):
        write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
