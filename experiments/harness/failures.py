"""Why a command failed, in one line for people: what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

from reland_jax.strings import visible
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[2]
_CODE = ("reland_jax", "experiments", "launch", "third_party")
_LONGEST = 600  # characters of a library's own message that are repeated

_NO_SPACE = re.compile(
    r"no space left on device|disk quota exceeded|database or disk is full|\bENOSPC\b|\bEDQUOT\b",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|cannot allocate memory|bad_alloc|std::length_error", re.IGNORECASE
)

_PERMISSIONS = "permission denied; change the permissions (ls -ld shows them) or choose another place"

_ADVICE = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOTDIR: "a file is in the place of a folder; move it away or choose another place",
    errno.EISDIR: "a folder is in the place of a file; move it away or choose another place",
    errno.ENOTEMPTY: "the folder is not empty; move it away or choose another place",
    errno.ELOOP: "symbolic links form a circle; repair them or choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) and run the same command again",
    errno.ENFILE: "too many files are open on this machine; close other programs and try again",
    errno.EFBIG: "the file would be larger than allowed (ulimit -f, or the file system); raise the limit",
    errno.EIO: "the disk or the network behind it failed; look at the system's log and try again",
    errno.ENOLCK: "this file system has no locks; use a folder on another one",
    errno.EADDRINUSE: "another program has this port; choose another one",
    errno.ECONNREFUSED: "no service answers; check the address and that the service runs",
}
"""What to do about an error of the system, by its number."""


def one_line(error: BaseException, places: Mapping[str, str] | None = None) -> str:
    """What ended a command.

    Args:
        error: as it was caught; what caused it is looked at too, since a library's last words are seldom
            the reason.
        places: flag -> path that the command was given, to tell where the disk is full.
    """
    if isinstance(error, RelandError):
        return visible(str(error))  # it may quote what stands in somebody's file
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C; finished work is kept, and the same command continues from there"
    chain = list(_chain(error))
    for tell in (_no_space, _no_memory):
        for each in chain:
            if said := tell(each, places or {}):
                return said
    # What was being handled when a fault of the program arose is not its reason.
    for each in chain if isinstance(error, OSError) else _chain(error, only_causes=True):
        if said := _refused(each):
            return said
    return _unexpected(error)


def _chain(error: BaseException, only_causes: bool = False) -> Iterator[BaseException]:
    """The error and what led to it, the last first; of a group all its members.

    Args:
        error: the last.
        only_causes: without what was merely being handled when another arose.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        is_left_out = only_causes or each.__suppress_context__
        waiting.append(each.__cause__ or (None if is_left_out else each.__context__))


def _no_space(error: BaseException, places: Mapping[str, str]) -> str | None:
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if not (isinstance(error, OSError) and error.errno in numbers) and not _NO_SPACE.search(str(error)):
        return None
    where = _place(error) or _fullest(places)
    return (
        f"{where}: no space left on the disk; make room there and run the same command again: "
        "it continues from what is finished"
    )


def _fullest(places: Mapping[str, str]) -> str:
    """Of the folders that a command writes to, the one with the least room."""
    rooms = []
    for name, path in [*((f"--{name}={path}", path) for name, path in places.items()), *_temporary()]:
        folder = Path(path).absolute()
        while not folder.exists():
            folder = folder.parent
        free = os.statvfs(folder)
        rooms.append((free.f_bavail * free.f_frsize, name))
    free_bytes, name = min(rooms)
    return f"{name} ({free_bytes / 1e6:,.1f} MB free)"


def _temporary() -> list[tuple[str, str]]:
    try:
        folder = tempfile.gettempdir()
    except OSError:  # no place for temporary files at all
        folder = "/tmp"
    return [(folder, folder)]


def _no_memory(error: BaseException, places: Mapping[str, str]) -> str | None:
    from_library = isinstance(error, (RuntimeError, ValueError)) and _NO_MEMORY.search(str(error))
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (isinstance(error, MemoryError) or from_library or of_system):
        return None
    what = _short(error)
    return (
        f"out of memory{f' ({what})' if what else ''} {_at(error)}; close other programs, use smaller "
        "data or batches, or a machine with more memory"
    )


def _refused(error: BaseException) -> str | None:
    """An error of the system or of a library that a person can do something about."""
    if isinstance(error, RelandError):
        return str(error)
    if isinstance(error, RecursionError):
        return f"something in the input is nested too deeply {_at(error)}; simplify it or leave it out"
    if isinstance(error, sqlite3.Error):
        return f"SQLite: {_short(error)} {_at(error)}; is the file on a disk that can be written and locked?"
    if isinstance(error, ImportError):
        return f"{_short(error)}; install what the command needs (requirements*.txt, see README.md)"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    number = error.errno
    place = _place(error)
    if number == errno.EEXIST and place:  # a folder was to be made
        number = errno.ENOTDIR if not os.path.isdir(place) else errno.ENOTEMPTY
    advice = _ADVICE.get(number, "run the same command again with --debug to see where")
    if number not in _ADVICE or not place:
        advice = f"{_flat(error.strerror or os.strerror(number))}; {advice}"
    return f"{place or _at(error)}: {advice}"


def _place(error: BaseException) -> str:
    """The file or folder that an error of the system names, else ""."""
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    return " -> ".join(os.fsdecode(name) for name in names if isinstance(name, (str, bytes, os.PathLike)))


def _unexpected(error: BaseException) -> str:
    said = _short(error)
    return (
        f"{type(error).__name__}{': ' if said else ''}{said} {_at(error)}; this is a fault of the program: "
        "the same command with --debug shows the traceback"
    )


def _short(error: BaseException) -> str:
    text = _flat(str(error))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _flat(text: str) -> str:
    return " ".join(text.split())


def _at(error: BaseException) -> str:
    """The line of this project in which an error occurred, for bug reports."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(Path(frame.filename))] or frames[-1:]
    if not ours:
        return "(at an unknown line)"
    path = Path(ours[-1].filename)
    return f"(at {path.relative_to(REPOSITORY) if _is_ours(path) else path.name}:{ours[-1].lineno})"


def _is_ours(path: Path) -> bool:
    return any(path.is_relative_to(REPOSITORY / folder) for folder in _CODE)
