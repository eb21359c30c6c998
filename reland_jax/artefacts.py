"""Stage artefacts: folders with a record of what they were made from, so that nothing is computed twice.

The stamp of a folder holds the size and SHA-256 of every file in it, and its own checksum. They are compared
before anything is used: an artefact that was damaged, or that holds a file of another run, is made again.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np

from reland_jax.fields import that_matter
from reland_jax.files import (
    check_replaceable,
    first_damage,
    inventory,
    locked,
    read_regular,
    read_sealed,
    write_json,
    write_sealed,
    written_aside,
)
from reland_jax.strings import as_strings, is_text, packed, unpacked
from reland_jax.types import RelandError

STAMP = "stamp.json"
_LOOKS = 20
"""Times that an artefact is looked at which other jobs replace meanwhile."""
_NO_LOCKS = (errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.ENOSYS)
"""Errors of a file system that has no locks."""
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Artefact(NamedTuple):
    """The finished artefact of a stage.

    Attributes:
        value: what the stage returned.
        fingerprint: what later stages depend on: the hash of the settings and inputs it was made from, or a
            new hash if it was made again on demand, since files outside may have changed; or the hash of its
            content, if the stage provides one.
        seconds: how long making it took.
        fresh: whether this run made it, rather than an earlier one.
    """

    value: Any
    fingerprint: str
    seconds: float
    fresh: bool


def fingerprint(*parts: Any) -> str:
    """Hash of settings, arrays and plain values, as 16 hexadecimal digits.

    Settings (dataclasses) that change how the work is done but not its result are left out.
    """
    text = json.dumps([_hashable(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hashable(part: Any) -> Any:
    if dataclasses.is_dataclass(part):
        return that_matter(part)
    if isinstance(part, np.ndarray):
        if is_text(part):
            return [_hashable(each) for each in packed(as_strings(part))]
        content = hashlib.sha256(np.ascontiguousarray(part).view(np.uint8).data).hexdigest()
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
    on_damage: Callable[[str], None] = lambda why: None,
    complete: Callable[[T], bool] = lambda value: True,
) -> Artefact:
    """Loads an artefact that is up to date, or computes it and writes it aside, then renames it.

    An artefact that is damaged or incomplete is computed again. If another job is making it, this one waits.
    A folder that does not carry our stamp, or holds more than was written, is never replaced.

    Args:
        folder: where the artefact lives.
        made_from: fingerprint of settings and inputs.
        compute: makes the value.
        save: writes it into an empty folder.
        load: reads it back.
        identify: hash of what the value holds, for later stages to depend on rather than on `made_from`.
        force: compute even if the artefact is up to date.
        write: whether to write it; if several processes compute it together, only one of them writes.
        together: computing is collective: this process takes part even if the artefact is finished by now.
        on_damage: called with the damage before the artefact is computed again; may raise to prevent that.
        complete: whether a value needs no more work.

    Raises:
        RelandError: the folder was not made by this program.
    """
    folder = Path(os.path.realpath(folder)) if folder.is_symlink() else folder  # a circle stays one
    decided = force or together
    if not decided and (found := find(folder, made_from, load).artefact) and complete(found.value):
        return found
    if not write:
        start = time.perf_counter()
        return Artefact(compute(), made_from, time.perf_counter() - start, fresh=True)
    with _alone(folder):
        found, damage = find(folder, made_from, _nothing if decided else load)
        if found and not decided:
            if complete(found.value):
                return found
            on_damage("it is incomplete")
        if damage and not force:
            _log.warning("%s is damaged: %s; the stage is run again", folder, damage)
            on_damage(damage)
        _make_room(folder)
        start = time.perf_counter()
        value = compute()
        seconds = time.perf_counter() - start
        made = fingerprint(made_from, time.time_ns()) if force and read_stamp(folder) else made_from
        made = identify(value) if identify else made
        _write(folder, {"made_from": made_from, "fingerprint": made, "seconds": seconds}, value, save)
    return Artefact(value, made, seconds, fresh=True)


class Found(NamedTuple):
    """The state of an artefact on disk.

    Attributes:
        artefact: the artefact, whole; or None.
        damage: what is wrong with it; "" if it is whole, missing, or made from something else.
    """

    artefact: Artefact | None
    damage: str = ""


def find(folder: Path, made_from: str, load: Callable[[Path], T]) -> Found:
    """The artefact that was made from these settings and inputs, if it is there and whole.

    Every byte of it is compared with the checksums of its stamp before it is used. Another job may replace
    it meanwhile: what is returned is one artefact with its own stamp, and never parts of two.
    """
    for _ in range(_LOOKS):
        stamp = read_stamp(folder)
        if stamp.get("made_from") != made_from:
            return Found(None, "" if stamp or not _unreadable(folder) else f"{STAMP} is not what was written")
        value, damage = None, first_damage(folder, stamp["files"])
        if not damage:
            try:
                value = load(folder)
            except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
                # Also a RelandError: of numbers out of range, or of a pool that an earlier program wrote.
                damage = f"it cannot be read ({error})"
        if read_stamp(folder) != stamp:
            continue
        return Found(None, damage) if damage else Found(_stored(value, stamp))
    return Found(None)


def is_whole(folder: Path, made_from: str) -> bool:
    """Whether the artefact that was made from these settings and inputs is there and as it was written."""
    return find(folder, made_from, _nothing).artefact is not None


def _nothing(folder: Path) -> None:
    """Loads nothing; for callers that only check whether an artefact is whole."""


def _stored(value: Any, stamp: Mapping[str, Any]) -> Artefact:
    return Artefact(value, stamp["fingerprint"], stamp["seconds"], fresh=False)


def _unreadable(folder: Path) -> bool:
    """Whether the stamp is damaged, and not just one of an earlier version."""
    try:
        _stamp(folder)
    except OSError:
        return False
    except ValueError:
        return not _is_of_earlier_program(folder)
    return False


def _is_of_earlier_program(folder: Path) -> bool:
    """Whether a stamp is one of those that had no checksums."""
    try:
        return set(json.loads(read_regular(folder / STAMP))) == {"made_from", "fingerprint", "seconds"}
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _files_of_earlier_program(folder: Path) -> set[str]:
    """What stages wrote before their stamps named the files."""
    files = {STAMP, "arrays.json", "statistics.json", "problems.json", "ledger.json", "summary.json"}
    files |= {f"pool/{name}" for name in ("pool.parquet", "manifest.json")}
    files |= {path.relative_to(folder).as_posix() for path in (folder / "params").rglob("*")}
    try:
        names = json.loads(read_regular(folder / "arrays.json"))
        kinds = ("npy", "npz")
        return files | {_array_file(folder, str(name), kind).name for name in names for kind in kinds}
    except (OSError, ValueError, TypeError, RecursionError):
        return files


def _make_room(folder: Path) -> None:
    """Moves a folder with a damaged stamp away, and refuses to replace one that is not ours."""
    if _unreadable(folder):
        place = next(
            place for number in itertools.count(1)
            if not (place := folder.with_name(f"{folder.name}.damaged-{number}")).exists()
        )  # fmt: skip
        os.replace(folder, place)
        _log.warning("%s: its %s was damaged; it is %s now, which can be removed", folder, STAMP, place)
    check_replaceable(folder, is_ours, by_folder=True)


def is_ours(folder: Path) -> bool:
    """Whether a folder carries our stamp and contains nothing else than what was written with it.

    Raises:
        RelandError: it holds more than that.
    """
    if stamp := read_stamp(folder):
        ours = {STAMP, *stamp["files"]}
    elif _is_of_earlier_program(folder):
        ours = _files_of_earlier_program(folder)
    else:
        return False
    found = (
        path.relative_to(folder).as_posix() for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )  # fmt: skip
    if more := next((name for name in found if name not in ours), None):
        raise RelandError(
            f"{folder / more}: this file was not made by this program, and its folder is to be replaced; "
            "move it away"
        )
    return True


def _write(folder: Path, stamp: Mapping[str, Any], value: T, save: Callable[[T, Path], None]) -> None:
    with written_aside(folder, private=True, ours=is_ours) as aside:
        aside.mkdir()
        save(value, aside)
        # The time tells apart two artefacts of equal content, one of which was replaced while it was read.
        stamp = {**stamp, "files": inventory(aside), "made_at": time.time_ns()}
        write_sealed(aside / STAMP, stamp)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Prevents other jobs from making the same artefact."""

    def tell() -> None:
        _log.warning("%s: waiting for another job that is making it", folder)

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder.with_name(f".{folder.name}.lock"), on_wait=tell))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("%s: no lock can be had here (%s); do not start a second job here", folder, error)
        yield


def require(folder: Path, made_from: str, stage: str, load: Callable[[Path], T]) -> Artefact:
    """Loads the artefact of a stage that was not asked to run.

    Raises:
        RelandError: it is missing or damaged, or was made from other settings or inputs.
    """
    looks = 1
    while not (found := find(folder, made_from, load)).artefact:
        if looks == _LOOKS or read_stamp(folder) or found.damage:
            break
        time.sleep(0.01)  # another job may be replacing it
        looks += 1
    if found.artefact:
        return found.artefact
    other = "was made from other settings or data" if read_stamp(folder) else "does not exist"
    if _is_of_earlier_program(folder):
        other = "was made by an earlier version of this program, without checksums"
    state = f"is damaged ({found.damage})" if found.damage else other
    raise RelandError(f"{folder}: the artefact of stage {stage!r} {state}; add {stage!r} to --stages")


def stored(folder: Path, load: Callable[[Path], T]) -> Artefact:
    """Loads an artefact, whatever settings it was made from.

    Raises:
        RelandError: it is missing or damaged.
    """
    return require(folder, str(read_stamp(folder).get("made_from", "")), folder.name, load)


def wait_for(folder: Path, made_from: str, load: Callable[[Path], T]) -> Artefact:
    """The artefact that another process is making, as soon as it is there and whole."""
    start = reported = time.monotonic()
    while not (found := find(folder, made_from, load)).artefact:
        time.sleep(0.5)
        if time.monotonic() - reported >= 60:
            reported = time.monotonic()
            why = f" ({found.damage})" if found.damage else ""
            _log.info("%s: waiting for the first process, %.0f s%s", folder.name, reported - start, why)
    return found.artefact


def read_stamp(folder: Path) -> Mapping[str, Any]:
    """The stamp of a finished artefact; empty where there is none that can be read."""
    try:
        return _stamp(folder)
    except (OSError, ValueError):
        return {}


def _stamp(folder: Path) -> Mapping[str, Any]:
    """The stamp of a folder; ValueError where it does not say what a stamp says."""
    stamp = read_sealed(folder / STAMP)
    try:
        files = [(int(was["bytes"]), str(was["sha256"])) for was in stamp["files"].values()]
        said = (stamp["made_from"], stamp["fingerprint"], stamp["seconds"] + 0.0)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it does not say what a stamp says ({error!r})") from error
    if not files or not all(isinstance(each, str) for each in said[:2]):
        raise ValueError("it names no files, or not what they were made from")
    return stamp


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
