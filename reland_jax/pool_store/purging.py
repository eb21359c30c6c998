"""Purges removed users from a store, and verifies a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import JOURNAL_FILE
from reland_jax.pool.providers.batch_files import is_request_file
from reland_jax.pool.providers.batch_state import BatchState
from reland_jax.pool_store import audit
from reland_jax.pool_store.asked import ASKED_FILE, ASKING_FOLDER, Asked, forget_asked, read_asked
from reland_jax.pool_store.lists import Removals, allowed, read_patterns, read_removals
from reland_jax.pool_store.store import PoolStore
from reland_jax.pool_store.version_files import Content, read_record
from reland_jax.strings import as_strings
from reland_jax.types import RelandError

_BATCH_FILE = re.compile(r"batch_(requests(-\d+)?|responses)\.jsonl|batch_sent/[0-9a-f]{16}\.jsonl")
"""Files of the batch provider with prompts and answers, which are in the journal too."""


Found = TypeVar("Found")


class Purged(NamedTuple):
    """The content of a purge.

    Attributes:
        versions: numbers of older versions.
        prompts: number of prompts, deleted with all their answers, by journal.
        files: files of the batch provider.
        missing: journals in the notes of removed users that were moved or deleted. Their notes are kept for
            the next purge.
        foreign: folders of versions with other files, which are kept.
    """

    versions: tuple[int, ...]
    prompts: dict[Path, int]
    files: tuple[Path, ...]
    missing: tuple[Path, ...] = ()
    foreign: tuple[Path, ...] = ()


def to_purge(store: PoolStore, removals: Removals | None = None, kept: int | None = None) -> Purged:
    """What `purge` would delete; changes nothing.

    Args:
        store: the store.
        removals: the removal list; by default that of the store.
        kept: number of the version to keep.

    Raises:
        RelandError: a batch is open, a journal cannot be read, or a prompt in it has no note.
    """
    asking = store.folder / ASKING_FOLDER
    if BatchState(asking).open:
        raise RelandError(
            f"{asking}: an open batch may have answers that are to be purged; fetch them with the "
            "command that sent it, then purge"
        )
    _check_noted(store)
    found, _ = _prompts(store, removals or read_removals(store.folder))
    missing = _missing(found)
    prompts = {}
    for path in sorted(found.keys() - set(missing)):
        prompts[path] = _count(path, found[path])
    versions = tuple(number for number in store.numbers() if number != kept)
    return Purged(versions, prompts, tuple(_batch_files(asking)), missing)


def purge(store: PoolStore) -> Purged:
    """Deletes the data of removed users from all files but the current version. Call it while locked.

    It deletes the older versions, the batch provider's files, the prompts of removed users and seed users in
    the journals with all responses, and their notes. It may be repeated. No process may ask in the store
    meanwhile (`asking_lock`).

    Returns:
        What was deleted; the deletion is verified.

    Raises:
        RelandError: a journal is in use or damaged; a batch is open; the current version has a removed user;
            or something remains.
    """
    _check_current(store)
    planned = to_purge(store, kept=store.current())
    found, notes = _prompts(store, read_removals(store.folder))
    for path in planned.prompts:
        if not _stands_in(path):
            with Journal(path) as journal:
                journal.purge(sorted(found[path]))
    for path in planned.files:
        path.unlink()
    _, foreign = store.drop_older()
    _check_gone(to_purge(store, kept=store.current()))
    for path in planned.prompts:
        if _stands_in(path):
            path.unlink()
    missing = set(planned.missing)
    forget_asked(store.folder, [note for note in notes if store.folder / note.journal not in missing])
    counts = {"versions": len(planned.versions), "prompts": sum(planned.prompts.values())}
    counts |= {"files": len(planned.files), "journals_missing": len(missing)}
    store.note("purged", {"purged": True, **counts})
    return planned._replace(foreign=tuple(foreign))


def is_current_clean(store: PoolStore) -> bool:
    """Whether the files of the current version have no removed user."""
    content, removals = store.read_as_written(), read_removals(store.folder)
    ids = as_strings(content.population.user_ids)
    left = removals.left(ids.tolist()).any()
    return not (left or removals.barred(ids[content.pool.seeds.user].tolist()).any())


def not_purged(path: Path) -> str:
    """The message about a journal that a purge did not find."""
    return (
        f"{path}: this journal is missing, but has prompts of removed users: restore it in "
        "this place and purge again; if it was deleted, put an empty file there"
    )


def _stands_in(path: Path) -> bool:
    """Whether an empty file stands for a deleted journal."""
    return path.stat().st_size == 0


def _count(path: Path, prompt_hashes: set[str]) -> int:
    if _stands_in(path):
        return 0
    with Journal(path) as journal:
        held = journal.prompts()
    return sum(held.get(each, 0) for each in prompt_hashes)


def _check_noted(store: PoolStore) -> None:
    """Refuses a store with prompts in its journal whose users are not in the notes."""
    path, notes = store.folder / ASKING_FOLDER / JOURNAL_FILE, store.folder / ASKING_FOLDER / ASKED_FILE
    if not path.is_file() or _stands_in(path):
        return
    with Journal(path) as journal:
        unknown = journal.prompts().keys() - {note.prompt_hash for note in read_asked(store.folder)}
    if unknown:
        raise RelandError(
            f"{notes}: {len(unknown)} prompts in {path.name} have no note, so it is unknown whether "
            f"they show a removed user: restore the file from a backup; or empty {path.name}, whose "
            "answers are then paid for again when needed"
        )


def _check_current(store: PoolStore) -> None:
    if not is_current_clean(store):
        raise RelandError(
            f"{store.folder}: version {store.current()} is current and has users who were removed after it "
            "was made; it has to be replaced by a new version: run the command again"
        )


def _check_gone(left: Purged) -> None:
    prompts = sum(left.prompts.values())
    if left.versions or prompts or left.files:
        raise RelandError(
            f"not purged: {len(left.versions)} older versions, {prompts} prompts in journals and "
            f"{len(left.files)} files were written meanwhile; end that process, and run the "
            "command again"
        )


def _batch_files(asking: Path) -> list[Path]:
    paths = [*asking.glob("batch_*.jsonl"), *asking.glob("batch_sent/*")]
    ours = (path for path in paths if _BATCH_FILE.fullmatch(path.relative_to(asking).as_posix()))
    return sorted(path for path in ours if "requests" not in path.name or is_request_file(path))


def _missing(journals: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(path for path in journals if not path.is_file()))


def _prompts(store: PoolStore, removals: Removals) -> tuple[dict[Path, set[str]], list[Asked]]:
    """Hashes of the prompts of removed users by journal, and their notes."""
    notes = read_asked(store.folder)
    gone = removals.barred([note.user_id for note in notes]).tolist()
    notes = [note for note, barred in zip(notes, gone, strict=True) if barred]
    found: dict[Path, set[str]] = {}
    for note in notes:
        found.setdefault(store.folder / note.journal, set()).add(note.prompt_hash)
    return found, notes


def verify(store: PoolStore) -> list[str]:
    """All faults of a store, worst first; changes nothing.

    Every version is read with all its checks, the current one is compared with the lists, the lists with the
    audit log, the log with the versions, and the journals are read completely.
    """
    try:
        store.path_of()
    except RelandError as error:
        return [str(error)]
    problems: list[str] = []
    audited = _tried(problems, lambda: _audited(store))
    lists = _tried(problems, lambda: (read_removals(store.folder), read_patterns(store.folder)))
    if audited and store.unfinished_purge():
        problems.append("a purge was interrupted or failed: run the command again")
    if lists:
        missing = _tried(problems, lambda: _missing(_prompts(store, lists[0])[0]))
        problems += map(not_purged, missing or ())
    problems += _tried(problems, lambda: _damaged_journals(store)) or []
    _tried(problems, lambda: _check_noted(store))
    current = store.current()
    for number in sorted(store.numbers(), key=lambda number: number != current):
        content = _tried(problems, partial(store.read_as_written, number))
        if content is None:
            continue
        if audited:
            problems += _against_log(store, number, *audited)
        if lists and number == current:
            problems += _tried(problems, partial(_against_lists, content, *lists)) or []
    return list(dict.fromkeys(problems))


def _tried(problems: list[str], look: Callable[[], Found]) -> Found | None:
    """The result of a check; None if it fails, which is listed as a problem."""
    try:
        return look()
    except RelandError as error:
        problems.append(str(error))
        return None


def _against_log(
    store: PoolStore, number: int, audited: Mapping[int, dict[str, Any]], sealed: set[int]
) -> list[str]:
    change = read_record(store.path_of(number))["change"]
    if number not in audited and number not in sealed:
        return [f"version {number} is not in the audit log; the next change adds it"]
    # Where the line stands is checked by the log itself.
    if number in audited and audited[number] | {"previous": ""} != change | {"previous": ""}:
        return [f"version {number}: its line in the audit log was edited"]
    return []


def _audited(store: PoolStore) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """Lines of versions by number, and versions without a line that `seal` accepted."""
    entries = audit.read_log(store.folder).entries
    seals = [entry for entry in entries if entry["action"] == "seal"]
    sealed = {number for entry in seals for number in entry.get("versions", ())}
    return {entry["version"]: entry for entry in audit.published(entries)}, sealed


def _damaged_journals(store: PoolStore) -> list[str]:
    noted = {store.folder / note.journal for note in read_asked(store.folder)}
    paths = {store.folder / ASKING_FOLDER / JOURNAL_FILE} | noted
    problems = []
    for path in sorted(path for path in paths if path.is_file()):
        try:
            with Journal(path) as journal:
                journal.check()
        except RelandError as error:
            problems.append(str(error))
    return problems


def _against_lists(content: Content, removals: Removals, patterns: tuple[str, ...]) -> list[str]:
    ids = as_strings(content.population.user_ids)
    problems = []
    if removals.left(ids.tolist()).any():
        problems.append("the current version serves users who were removed")
    seeds = ids[content.pool.seeds.user].tolist()
    bad = int((~allowed(content.pool.rationales, seeds, removals, patterns)).sum())
    if bad:
        problems.append(f"the current version has {bad} seed users or texts that were removed or blocked")
    own = content.assignment.seed[content.pool.seeds.user, 0]
    if (own != np.arange(len(own))).any():
        problems.append("a seed user of the current version is not assigned to itself")
    return problems
