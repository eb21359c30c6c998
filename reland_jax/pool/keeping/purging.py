"""Making a removal final, and looking whether a store is sound."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import JOURNAL_FILE
from reland_jax.pool.keeping.asked import ASKING_FOLDER, Asked, forget_asked, read_asked
from reland_jax.pool.keeping.lists import Removals, allowed, read_patterns, read_removals
from reland_jax.pool.keeping.version_files import Content, read_record
from reland_jax.pool.keeping.versions import PoolStore
from reland_jax.pool.providers.batch_state import BatchState
from reland_jax.strings import as_strings
from reland_jax.types import RelandError

BATCH_FILES = ("batch_*.jsonl", "batch_sent/*")
"""What the batch provider leaves in its folder: prompts and answers, which are in the journal too."""


class Purged(NamedTuple):
    """What a purge deleted.

    Attributes:
        versions: older versions.
        prompts: prompts with all their answers, in journals.
        files: files of the batch provider.
        missing: journals that the notes of those on the removal list name and that are not there: they
            were moved or deleted. The notes of them stay, for the next purge.
    """

    versions: int
    prompts: int
    files: int
    missing: tuple[Path, ...] = ()


def purge(store: PoolStore) -> Purged:
    """Deletes what other files than the current version hold of those on the removal list; while locked.

    Those are the older versions, the batch provider's files, the prompts of removed users and seed users
    in the journals with all that came back for them, and the notes of them. Doing it again after it was
    interrupted, or for nothing, does no harm.

    Args:
        store: the store.

    Raises:
        RelandError: a journal that is in use, or damaged; a batch that is under way.
    """
    asking = store.folder / ASKING_FOLDER
    if BatchState(asking).open:
        raise RelandError(
            f"{asking}: a batch is under way and may bring what is to be purged; fetch its answers with the "
            "command that sent it, then purge"
        )
    found, notes = _prompts(store)
    missing = _missing(found)
    prompts = 0
    for path in sorted(found.keys() - set(missing)):
        with Journal(path) as journal:
            prompts += journal.purge(sorted(found[path]))
    files = [path for pattern in BATCH_FILES for path in asking.glob(pattern) if path.is_file()]
    for path in files:
        path.unlink()
    purged = Purged(store.drop_older(), prompts, len(files), missing)
    forget_asked(store.folder, [note for note in notes if store.folder / note.journal not in missing])
    return purged


def not_purged(path: Path) -> str:
    """What to do about a journal that a purge did not find."""
    return (
        f"{path}: this journal is not there, and prompts of removed users were sent by it: put it back in "
        "this place and purge again; if it was deleted for good, an empty file does"
    )


def _missing(journals: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(path for path in journals if not path.is_file()))


def _prompts(store: PoolStore) -> tuple[dict[Path, set[str]], list[Asked]]:
    """Journal -> hashes of the prompts of everybody on the removal list, and the notes of them."""
    removals = read_removals(store.folder)
    notes = read_asked(store.folder)
    gone = removals.barred([note.user_id for note in notes]).tolist()
    notes = [note for note, barred in zip(notes, gone, strict=True) if barred]
    found: dict[Path, set[str]] = {}
    for note in notes:
        found.setdefault(store.folder / note.journal, set()).add(note.prompt_hash)
    return found, notes


def verify(store: PoolStore) -> list[str]:
    """Everything that is wrong with a store, worst first; nothing is changed.

    Every version is read with all its checks, the current one is held against the lists, the audit log
    against the versions, and the journals are read through.
    """
    problems = []
    try:
        store.path_of()
        audited = {record["version"]: record for record in store.audit()}
        removals, patterns = read_removals(store.folder), read_patterns(store.folder)
    except RelandError as error:
        return [str(error)]
    problems += map(not_purged, _missing(_prompts(store)[0]))
    problems += _damaged_journals(store)
    current = store.current()
    for number in sorted(store.numbers(), key=lambda number: number != current):
        try:
            content = store.read(number)
            change = read_record(store.path_of(number))["change"]
        except RelandError as error:
            problems.append(str(error))
            continue
        if number not in audited:
            problems.append(f"version {number} is not in the audit log; the next change puts that right")
        elif audited[number] != change:
            problems.append(f"version {number}: its line in the audit log was edited")
        if number == current:
            problems += _against_lists(content, removals, patterns)
    return problems


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
