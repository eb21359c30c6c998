"""Deletes files of this program, and no others, from the folder of a pool store.

A store has a mark (`audit.MARK_FILE`), or the traces of an earlier version of this program without marks; a
folder with other content is refused. Files to delete are recognised by place, name and content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from reland_jax.files import make_private, remove, sweep_folder
from reland_jax.pool_store.asked import ASKED_FILE, ASKING_FOLDER
from reland_jax.pool_store.audit import AUDIT_FILE, MARK_FILE, log_as_it_is, read_mark
from reland_jax.pool_store.lists import LIST_FILES, NEXT_FILE
from reland_jax.pool_store.version_files import BEHAVIOUR_FOLDER, FORMAT, OWN_FILES, VERSION_FILE
from reland_jax.types import RelandError

CURRENT_FILE = "CURRENT"
VERSIONS_FOLDER = "versions"
LOCK_FILE = "lock"

_VERSION = re.compile(r"\d{6,}")
_BEHAVIOUR = re.compile(r"[0-9a-f]{24}\.npz")
# Temporary files of earlier versions of this program that were killed.
_OLD_ASIDE = re.compile(r"(.+?)\.(?:tmp|old)-\d+(?:\.tmp-\d+)?")
_OF_ASKING = (ASKED_FILE, "journal.sqlite", "batch_state.json", "batch_requests.jsonl")


def check_store(folder: Path) -> None:
    """Refuses an existing folder that is neither empty nor a pool store.

    Raises:
        RelandError: the folder has other content; or its mark is damaged.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RelandError(f"{folder}: a file, not the folder of a pool store")
    if read_mark(folder) is not None or has_traces(folder):
        return
    others = [path.name for path in sorted(folder.iterdir()) if not _is_of_the_start(path)]
    if others:
        raise RelandError(
            f"{folder}: not a pool store, and not empty: it has {', '.join(others[:3])}; choose an empty "
            "or a new folder"
        )


def has_traces(folder: Path) -> bool:
    """Whether a folder without a mark was made as a pool store by an earlier version."""
    log = log_as_it_is(folder)
    if any("version" in entry and "action" in entry for entry in log.entries):
        return True
    if any(is_version(path) for path in (folder / VERSIONS_FOLDER).glob("*")):
        return True
    return any((folder / ASKING_FOLDER / name).is_file() for name in _OF_ASKING)


def is_version(folder: Path) -> bool:
    """Whether a folder is a version of this program, intact or damaged."""
    if not _VERSION.fullmatch(folder.name):
        return False
    try:
        return f'"{FORMAT}"' in (folder / VERSION_FILE).read_text("utf-8", "replace")
    except OSError:
        return False


def version_numbers(store: Path) -> list[int]:
    """Numbers of the folders with a complete or partial version, in order."""
    folders = (path for path in (store / VERSIONS_FOLDER).glob("*") if _VERSION.fullmatch(path.name))
    return sorted(
        int(path.name)
        for path in folders
        if path.name == f"{int(path.name):06d}" and any((path / name).is_file() for name in OWN_FILES)
    )


def drop_version(folder: Path) -> list[Path]:
    """Deletes a version; returns the folder if it has other files, which are kept."""
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)
    sweep_folder(folder)
    try:
        folder.rmdir()
    except OSError:
        return [folder]
    return []


def drop_behaviour(store: Path, used: Iterable[str]) -> None:
    """Deletes the populations of the store except the named ones."""
    kept = set(used)
    for path in (store / BEHAVIOUR_FOLDER).glob("*.npz"):
        if _BEHAVIOUR.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def sweep(store: Path) -> list[Path]:
    """Deletes temporary files of killed processes in the store, and returns their paths."""
    folders = [store, store / VERSIONS_FOLDER, store / BEHAVIOUR_FOLDER, store / ASKING_FOLDER]
    found = [path for folder in folders if folder.is_dir() for path in sweep_folder(folder)]
    for path in _old_asides(store):
        remove(path)
        found.append(path)
    return found


def make_store_private(store: Path) -> None:
    """Makes files of an earlier version of this program readable only by their owner."""
    own = [store / name for name in (CURRENT_FILE, AUDIT_FILE, MARK_FILE, LOCK_FILE, NEXT_FILE, *LIST_FILES)]
    own += [store / VERSIONS_FOLDER / f"{number:06d}" for number in version_numbers(store)]
    own += [path for path in (store / BEHAVIOUR_FOLDER).glob("*.npz") if _BEHAVIOUR.fullmatch(path.name)]
    own.append(store / ASKING_FOLDER)
    for path in own:
        if path.exists():
            make_private(path)


def _is_of_the_start(path: Path) -> bool:
    """Whether an entry belongs to a store that has no mark yet."""
    return path.name == LOCK_FILE or path.name.startswith((f".{MARK_FILE}.tmp-",))


def _old_asides(store: Path) -> Iterator[Path]:
    names = {CURRENT_FILE, *LIST_FILES}
    for folder, fits in (
        (store, lambda name: name in names),
        (store / ASKING_FOLDER, lambda name: name == ASKED_FILE),
        (store / BEHAVIOUR_FOLDER, lambda name: bool(_BEHAVIOUR.fullmatch(name))),
        (store / VERSIONS_FOLDER, lambda name: bool(_VERSION.fullmatch(name))),
    ):
        for path in folder.glob("*-*"):
            found = _OLD_ASIDE.fullmatch(path.name)
            if found and fits(found[1]) and _holds_only_ours(path):
                yield path


def _holds_only_ours(path: Path) -> bool:
    return path.is_file() or all(each.name in OWN_FILES for each in path.iterdir())
