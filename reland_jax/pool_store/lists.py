"""The removal list and the moderation list of a pool store.

Both apply to all versions, so that no later build, refresh or addition restores what was removed. The removal
list has salted hashes instead of external ids: one can test whether an id is on the list, but cannot read ids
from it.

The audit log has the checksums of both (see `audit`): a list that was deleted, edited or replaced by an older
one is refused. A change writes the new text to `NEXT_FILE`, then its checksum to the audit log, and then
renames the file: if the process is killed in between, the old lists remain or the next process finishes the
change.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.files import write_bytes, write_json
from reland_jax.pool_store.audit import ADVICE, AUDIT_FILE, Log, append, content_of, patiently, read_log
from reland_jax.pool_store.patterns import found_in
from reland_jax.types import Rationale, RelandError

REMOVALS_FILE = "removed.json"
PATTERNS_FILE = "blocked.json"
LIST_FILES = (REMOVALS_FILE, PATTERNS_FILE)
NEXT_FILE = "lists.next.json"
LIST_VERSION = 1


class Removals(NamedTuple):
    """The removal list: users who must not be restored.

    Attributes:
        salt: hexadecimal, drawn when the list is first written.
        users: hashes of removed users, who are in no pool, assignment or population.
        seeds: hashes of users who must not be seed users again.
    """

    salt: str
    users: frozenset[str]
    seeds: frozenset[str]

    def digest(self, user_id: str) -> str:
        """Salted hash of an external id, hexadecimal."""
        name = user_id.encode("utf-8", "surrogatepass")
        return hmac.digest(bytes.fromhex(self.salt), name, "sha256").hex()

    def left(self, user_ids: Iterable[str]) -> np.ndarray:
        """Which of the users were removed, ``<bool>[n]``."""
        return np.asarray([bool(self.users) and self.digest(str(u)) in self.users for u in user_ids], bool)

    def barred(self, user_ids: Iterable[str]) -> np.ndarray:
        """Which of the users must not be seed users, ``<bool>[n]``, including removed users."""
        both = self.users | self.seeds
        return np.asarray([bool(both) and self.digest(str(u)) in both for u in user_ids], bool)

    def plus(self, *, users: Iterable[str] = (), seeds: Iterable[str] = ()) -> Removals:
        """The list with additional external ids."""
        more_users = {self.digest(str(user)) for user in users}
        more_seeds = {self.digest(str(user)) for user in seeds}
        return Removals(self.salt, self.users | more_users, self.seeds | more_seeds)

    def minus(self, users: Iterable[str]) -> Removals:
        """The list without some external ids, neither as users nor as seed users."""
        gone = {self.digest(str(user)) for user in users}
        return Removals(self.salt, self.users - gone, self.seeds - gone)


def read_removals(folder: Path) -> Removals:
    """The removal list of a store, empty with a new salt if there is none yet.

    Raises:
        RelandError: the file is not the one that the audit log tells of, damaged, or of a newer format.
    """
    return removals_of(read_lists(folder)[REMOVALS_FILE], folder)


def read_patterns(folder: Path) -> tuple[str, ...]:
    """The blocked patterns of a store, in the order of blocking.

    Raises:
        RelandError: the file is not the one that the audit log tells of, damaged, or of a newer format.
    """
    return patterns_of(read_lists(folder)[PATTERNS_FILE], folder)


def read_lists(folder: Path) -> dict[str, bytes]:
    """Content of both lists by name, b"" for one that was never written; verified by the audit log.

    No lock is needed: it waits for a change in progress.

    Raises:
        RelandError: a list is missing or does not match the audit log; or the log is damaged.
    """
    return patiently(lambda: _held_against(read_log(folder), folder))


def checksums(lists: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of the lists by name, "" for one that was never written, as in the audit log."""
    return {name: hashlib.sha256(text).hexdigest() if text else "" for name, text in lists.items()}


def contents(folder: Path) -> dict[str, bytes]:
    """Present content of both lists by name, b"" for a missing one."""
    return {name: content_of(folder / name) for name in LIST_FILES}


def lists_as_they_lie(folder: Path) -> tuple[Removals, tuple[str, ...]]:
    """Both lists, without comparing them with the audit log.

    Raises:
        RelandError: a list that is there is damaged or of a newer format.
    """
    texts = contents(folder)
    return removals_of(texts[REMOVALS_FILE], folder), patterns_of(texts[PATTERNS_FILE], folder)


def change_lists(
    folder: Path, log: Log, *, removals: Removals | None = None, patterns: Sequence[str] | None = None
) -> Log:
    """Replaces lists, with a line in the audit log. Call it while the store is locked.

    Args:
        folder: the store.
        log: its present audit log.
        removals: the new removal list, if it changes.
        patterns: the new moderation list, if it changes.

    Returns:
        The audit log as it is now.
    """
    lists = read_lists(folder)
    if removals is not None:
        values = {"salt": removals.salt, "users": sorted(removals.users), "seeds": sorted(removals.seeds)}
        lists[REMOVALS_FILE] = _text(values)
    if patterns is not None:
        lists[PATTERNS_FILE] = _text({"patterns": list(patterns)})
    write_json(folder / NEXT_FILE, {name: text.decode() for name, text in lists.items()}, private=True)
    log = append(folder, log, {"action": "lists", "when": now(), "lists": checksums(lists)})
    finish_lists(folder, log)
    return log


def finish_lists(folder: Path, log: Log) -> None:
    """Finishes a change of lists by a killed process. Call it while the store is locked.

    Raises:
        RelandError: the new lists are damaged, and the present ones do not match the audit log.
    """
    aside = folder / NEXT_FILE
    if not aside.exists():
        return
    lists = _announced(folder)
    if lists and checksums(lists) == log.lists:
        for name, text in lists.items():
            if text and content_of(folder / name) != text:
                write_bytes(folder / name, text, private=True)
    _held_against(log, folder)
    aside.unlink()


def now() -> str:
    """The time for a line of the audit log, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _held_against(log: Log, folder: Path) -> dict[str, bytes]:
    """The lists, if they match the audit log, including a change in progress."""
    lists = contents(folder)
    if log.lists is None:
        _hold_against_entries(log, lists, folder)
        return lists
    announced = _announced(folder)
    if announced and checksums(announced) == log.lists:
        return announced
    found = checksums(lists)
    for name in LIST_FILES:
        expected = log.lists.get(name, "")
        if found[name] != expected:
            what = "missing" if not found[name] else "edited or replaced" if expected else "not made here"
            raise RelandError(
                f"{folder / name}: {what}: it does not match {AUDIT_FILE}; without it, "
                f"removed users and blocked texts would be restored: {ADVICE}"
            )
    return lists


def _hold_against_entries(log: Log, lists: Mapping[str, bytes], folder: Path) -> None:
    """The same for a log of an earlier program, which has the additions to the lists instead of checksums."""
    users: set[str] = set()
    patterns: set[str] = set()
    for entry in log.entries:
        arguments = entry.get("arguments") or {}
        change = {"remove": users.update, "readmit": users.difference_update}.get(entry["action"])
        if change:
            change(arguments.get("user", ()))
        change = {"block": patterns.update, "unblock": patterns.difference_update}.get(entry["action"])
        if change:
            change(arguments.get("pattern", ()))
    removals, known = removals_of(lists[REMOVALS_FILE], folder), patterns_of(lists[PATTERNS_FILE], folder)
    for name, lost in (
        (REMOVALS_FILE, users - removals.users - removals.seeds),
        (PATTERNS_FILE, patterns - set(known)),
    ):
        if lost:
            raise RelandError(
                f"{folder / name}: lacks {len(lost)} entries that are in {AUDIT_FILE}; {ADVICE}"
            )


def _announced(folder: Path) -> dict[str, bytes] | None:
    try:
        values = json.loads((folder / NEXT_FILE).read_text("utf-8"))
        return {name: str(values[name]).encode() for name in LIST_FILES}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def removals_of(text: bytes, folder: Path) -> Removals:
    """The removal list with this content; `folder` is for the message.

    Raises:
        RelandError: it is damaged or of a newer format.
    """
    path = folder / REMOVALS_FILE
    if not text:
        return Removals(secrets.token_hex(16), frozenset(), frozenset())
    values = _values(text, path)
    try:
        bytes.fromhex(values["salt"])
        return Removals(str(values["salt"]), frozenset(values["users"]), frozenset(values["seeds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RelandError(f"{path}: lacks {error}; {ADVICE}") from error


def patterns_of(text: bytes, folder: Path) -> tuple[str, ...]:
    """The patterns of a moderation list with this content; `folder` is for the message.

    Raises:
        RelandError: it is damaged or of a newer format.
    """
    path = folder / PATTERNS_FILE
    patterns = _values(text, path).get("patterns") if text else []
    if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
        raise RelandError(f"{path}: lacks its patterns; {ADVICE}")
    return tuple(patterns)


def allowed(
    rationales: Sequence[Rationale], user_ids: Sequence[str], removals: Removals, patterns: Iterable[str]
) -> np.ndarray:
    """Which seed users are not removed and have no blocked text: ``<bool>[S]``.

    Args:
        rationales: ``S`` rationales.
        user_ids: external id of the seed user of each.
        removals: the removal list.
        patterns: the moderation list.
    """
    return ~(removals.barred(user_ids) | found_in(rationales, tuple(patterns)))


def _values(text: bytes, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Continuing without the list would restore what was removed.
        raise RelandError(f"{path}: cannot be read ({error}); {ADVICE}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != LIST_VERSION:
        raise RelandError(
            f"{path}: format version {version!r}, this program reads {LIST_VERSION}; "
            "update the program, or restore the file from a copy"
        )
    return values


def _text(values: Mapping[str, Any]) -> bytes:
    return json.dumps({"format_version": LIST_VERSION, **values}, indent=1, ensure_ascii=False).encode()
