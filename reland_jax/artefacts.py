"""Stage artefacts: folders that say what they were made from, so that nothing is made twice."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np

from reland_jax.fields import that_matter
from reland_jax.strings import as_strings, is_text, packed, unpacked
from reland_jax.types import RelandError

STAMP = "stamp.json"
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Artefact(NamedTuple):
    """The finished artefact of a stage.

    Attributes:
        value: what the stage returned.
        fingerprint: what later stages depend on: the hash of the settings and inputs it was made
            from, and a new one where it was made again on demand, since files outside may have changed;
            or the hash of what it holds, where the stage can tell.
        seconds: how long making it took.
        fresh: whether this run made it, rather than an earlier one.
    """

    value: Any
    fingerprint: str
    seconds: float
    fresh: bool


def fingerprint(*parts: Any) -> str:
    """Hash of settings, arrays and plain values, as 16 hexadecimal digits.

    Of settings (dataclasses), those that change how the work is done and not what comes out are left out.
    """
    text = json.dumps([_hashable(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hashable(part: Any) -> Any:
    if dataclasses.is_dataclass(part):
        return that_matter(part)
    if isinstance(part, np.ndarray):
        if is_text(part):
            return [_hashable(each) for each in packed(as_strings(part))]
        content = hashlib.sha256(np.ascontiguousarray(part).view(np.uint8)).hexdigest()
        return [content, str(part.dtype), part.shape]
    if isinstance(part, Path):
        return hashlib.sha256(part.read_bytes()).hexdigest() if part.is_file() else str(part)
    return part


def make(
    folder: Path,
    made_from: str,
    *,
    compute: Callable[[], T],
    save: Callable[[T, Path], None],
    load: Callable[[Path], T],
    identify: Callable[[T], str] | None = None,
    force: bool = False,
    write: bool = True,
    together: bool = False,
) -> Artefact:
    """Loads an artefact that is up to date, or computes it and writes it aside, then renames it.

    One that lacks a file is computed again. One that another job is making is waited for.

    Args:
        folder: where the artefact lives.
        made_from: fingerprint of settings and inputs.
        compute: makes the value.
        save: writes it into an empty folder.
        load: reads it back.
        identify: hash of what the value holds, for later stages to depend on rather than on `made_from`.
        force: compute even if the artefact is up to date.
        write: whether to write it; of several processes that compute together only one does.
        together: whether several do. They cannot do without this one, even if it had to wait for another
            job and finds the artefact made.
    """
    if not force and (found := _up_to_date(folder, made_from, load)):
        return found
    if not write:
        start = time.perf_counter()
        return Artefact(compute(), made_from, time.perf_counter() - start, fresh=True)
    with _alone(folder) as waited:
        if waited and not force and not together and (found := _up_to_date(folder, made_from, load)):
            return found
        start = time.perf_counter()
        value = compute()
        seconds = time.perf_counter() - start
        if identify:
            made = identify(value)
        else:
            made = fingerprint(made_from, time.time_ns()) if force and read_stamp(folder) else made_from
        _write(folder, {"made_from": made_from, "fingerprint": made, "seconds": seconds}, value, save)
    return Artefact(value, made, seconds, fresh=True)


def _up_to_date(folder: Path, made_from: str, load: Callable[[Path], T]) -> Artefact | None:
    stamp = read_stamp(folder)
    if stamp.get("made_from") != made_from:
        return None
    try:
        return Artefact(load(folder), stamp["fingerprint"], stamp["seconds"], fresh=False)
    except FileNotFoundError as error:
        # Deleted by hand, or written by an earlier program that kept less.
        _log.warning("%s: %s is missing; the stage is run again", folder, error.filename)
        return None


def _write(folder: Path, stamp: Mapping[str, Any], value: T, save: Callable[[T, Path], None]) -> None:
    aside = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save(value, aside)
        (aside / STAMP).write_text(json.dumps(stamp, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Keeps other jobs from making the same artefact, and says whether one of them was waited for.

    The system lets the lock go when the process ends, however it ends.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("%s: waiting for another job that is making it", folder)
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _log.warning("%s: no lock can be had here (%s); do not start a second job here", folder, error)
        yield waited


def require(folder: Path, made_from: str, stage: str, load: Callable[[Path], T]) -> Artefact:
    """Loads the artefact of a stage that is not to be run now.

    Raises:
        RelandError: it or a part of it is missing, or it was made from other settings or inputs.
    """
    stamp = read_stamp(folder)
    if stamp.get("made_from") != made_from:
        state = "was made from other settings or data" if stamp else "does not exist"
        raise RelandError(f"{folder}: the artefact of stage {stage!r} {state}; add {stage!r} to --stages")
    try:
        return Artefact(load(folder), stamp["fingerprint"], stamp["seconds"], fresh=False)
    except FileNotFoundError as error:
        raise RelandError(
            f"{folder}: the artefact of stage {stage!r} lacks {error.filename}; add {stage!r} to --stages"
        ) from error


def wait_for(folder: Path, made_from: str) -> None:
    """Returns when another process has made an artefact."""
    start = told = time.monotonic()
    while read_stamp(folder).get("made_from") != made_from:
        time.sleep(0.5)
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            _log.info("%s: waiting for the first process, %.0f s", folder.name, told - start)


def read_stamp(folder: Path) -> Mapping[str, Any]:
    """The stamp of a finished artefact, or an empty mapping."""
    path = folder / STAMP
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON aside, then renames it."""
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    aside.write_text(json.dumps(value, indent=1, default=_plain))
    os.replace(aside, path)


def save_arrays(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes NAME.npy for each array, NAME.npz for each column of text, and arrays.json with the names.

    Texts are stored one after the other in UTF-8, so a long one costs its own length and not that of the
    column.
    """
    for name, array in arrays.items():
        if is_text(array):
            content, starts = packed(as_strings(array))
            np.savez(_array_file(folder, name, "npz"), content=content, starts=starts)
        else:
            np.save(_array_file(folder, name), array)
    write_json(folder / "arrays.json", list(arrays))


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote: columns of text, as ``<str>[n]`` of variable width, and arrays.

    Arrays are mapped into memory: a process reads the rows that it uses, when it uses them. What is written
    into an array stays in memory.

    Raises:
        FileNotFoundError: an array or the list of names is missing.
    """
    names = json.loads((folder / "arrays.json").read_text())
    return {name: _load_array(folder, name) for name in names}


def _array_file(folder: Path, name: str, kind: str = "npy") -> Path:
    # Columns of a person's data have any name.
    return folder / f"{quote(name, safe='')}.{kind}"


def _load_array(folder: Path, name: str) -> np.ndarray:
    text = _array_file(folder, name, "npz")
    if text.exists():
        with np.load(text, allow_pickle=False) as stored:
            return unpacked(stored["content"], stored["starts"])
    mapped = np.load(_array_file(folder, name), mmap_mode="c", allow_pickle=False)
    array = np.asarray(mapped)  # as an ndarray like any other; `mapped` is its base
    return as_strings(array) if is_text(array) else array


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")
