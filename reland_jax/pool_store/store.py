"""The pool store: immutable versions of a reasoning pool, one of which is the current one.

    STORE/store.json           the mark of a store, with the length of the audit log (see `audit`)
    STORE/CURRENT              the number of the current version; replaced as a whole
    STORE/versions/000001/     one folder per version (see `version_files`)
    STORE/behaviour/           the users of versions, by checksum
    STORE/audit.jsonl          one line per change: who, when, why, what, and how many users changed
    STORE/removed.json         removed users (see `lists`)
    STORE/blocked.json         patterns of blocked rationales
    STORE/asking/              journal, files of the batch provider, and notes of sent prompts
    STORE/lock                 held by the one process that changes the store

A version exists as soon as CURRENT names it. If a process is killed before that, the next change removes its
files; if it is killed right after, the next change adds the line to the audit log, which the version
contains. Only the owner can read the files, and only files of this program are deleted (see `tidying`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reland_jax import files
from reland_jax.pool_store import audit, tidying
from reland_jax.pool_store.audit import AUDIT_FILE, Log, read_log
from reland_jax.pool_store.lists import (
    NEXT_FILE,
    Removals,
    change_lists,
    checksums,
    contents,
    finish_lists,
    lists_as_they_lie,
    now,
    read_lists,
    read_patterns,
    read_removals,
)
from reland_jax.pool_store.tidying import CURRENT_FILE, LOCK_FILE, VERSIONS_FOLDER
from reland_jax.pool_store.version_files import Content, read_content, read_record, write_content
from reland_jax.types import RelandError

_MOST_DIGITS = 12
"""Number of digits in the name of a version."""

WAIT_SECONDS = 10.0
"""Longest wait for a change by another process, in seconds."""


class PoolStore:
    """A folder of versions. Reading needs no lock, since versions never change.

    Attributes:
        folder: the store.
    """

    def __init__(self, folder: str | Path) -> None:
        """Reads nothing yet."""
        self.folder = files.resolve(folder)
        self._locked = False

    # --- reading -------------------------------------------------------------------------------

    def current(self) -> int | None:
        """Number of the current version, None if none was published.

        Raises:
            RelandError: CURRENT is missing or damaged, but versions were published.
        """
        path = self.folder / CURRENT_FILE
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            published = self._audited(read_log(self.folder))
            if published:
                raise RelandError(
                    f"{path}: missing, though version {max(published)} was published; "
                    "write the number of the version to use into it"
                ) from None
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RelandError(f"{path}: cannot be read ({error})") from error
        if not (text.isascii() and text.strip().isdecimal() and len(text.strip()) <= _MOST_DIGITS):
            raise RelandError(f"{path}: contains {text[:40]!r}; it must be the number of a version")
        return int(text)

    def numbers(self) -> list[int]:
        """Numbers of the versions on disk, in order."""
        return tidying.version_numbers(self.folder)

    def read_as_written(self, number: int | None = None) -> Content:
        """A version, by default the current one, after checking all its bytes.

        It does not apply the lists of the store; `rematch.read_version` does.

        Raises:
            RelandError: there is no such version, or it is damaged (see `read_content`).
        """
        return read_content(self.path_of(number), self.folder)

    def path_of(self, number: int | None = None) -> Path:
        """Folder of a version, by default the current one.

        Raises:
            RelandError: there is no such version.
        """
        number = self.current() if number is None else number
        if number is None:
            raise RelandError(
                f"{self.folder}: not a pool store; create one with: python -m experiments.pool build"
            )
        path = self.folder / VERSIONS_FOLDER / f"{number:06d}"
        if not path.is_dir():
            known = ", ".join(map(str, self.numbers())) or "none"
            raise RelandError(f"{self.folder}: version {number} does not exist; existing versions: {known}")
        return path

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log about versions, oldest first, after checking all lines.

        Raises:
            RelandError: the log is damaged (see `audit.read_log`).
        """
        return audit.published(read_log(self.folder).entries)

    def state(self) -> list[str]:
        """Values that change whenever the pool of this store does, for the stamp of a stage.

        Raises:
            RelandError: there is no current version, or its record or a list is damaged.
        """
        return [read_record(self.path_of())["sha256"], *checksums(read_lists(self.folder)).values()]

    def unfinished_purge(self) -> bool:
        """Whether a purge was started and not finished.

        Raises:
            RelandError: the audit log is damaged.
        """
        log, found = read_log(self.folder), False
        if not log.chained:
            return self._purge_was_begun(log)
        for entry in log.entries:
            found = bool(entry.get("purging")) or (found and not entry.get("purged"))
        return found

    def _purge_was_begun(self, log: Log) -> bool:
        """The same for a log of an earlier program, which did not record the end of a purge."""
        lines = audit.published(log.entries)
        return bool(lines) and bool(lines[-1].get("purging")) and len(self.numbers()) > 1

    def provenance(self) -> dict[str, Any]:
        """The current version and the origin of its pool, for the provenance of derived pools.

        Raises:
            RelandError: there is no current version, or its record is damaged.
        """
        record = read_record(self.path_of())
        wrote = record["settings"]["provenance"]
        return {
            "prompt_version": wrote.get("prompt_version", ""),
            "store_version": record["number"],
            "store_sha256": record["sha256"],
            "written_by": wrote.get("provider", ""),
            "change": {name: record["change"].get(name) for name in ("when", "who", "action")},
        }

    # --- changing ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, wait: float = WAIT_SECONDS) -> Iterator[PoolStore]:
        """Locks the store against changes by other processes; the lock ends with the process.

        It creates the store if necessary, and first completes the change of a killed process.

        Args:
            wait: seconds to wait for a change by another process.

        Raises:
            RelandError: another process holds the lock; the folder is not a store; its log or lists are
                damaged.
        """
        with self._exclusive(wait):
            self._locked = True
            try:
                self._recover()
                yield self
            finally:
                self._locked = False

    def publish(self, content: Content, change: Mapping[str, Any]) -> int:
        """Makes the next version and switches to it. Call it while `locked`.

        Args:
            content: content of the version.
            change: JSON values for the audit log; number, time and checksums are added.

        Returns:
            Its number.

        Raises:
            RelandError: the content is inconsistent, or has a removed user; then nothing is changed.
        """
        assert self._locked, "publish outside of locked()"
        self._check_removals(content)
        log = read_log(self.folder)
        number = max([0, *self._audited(log), *self._taken_numbers()]) + 1
        lists = checksums(read_lists(self.folder))
        record = {"when": now(), **change, "version": number, "lists": lists, "previous": log.sha256}
        folder = self.folder / VERSIONS_FOLDER / f"{number:06d}"
        with files.written_aside(folder, private=True) as aside:
            aside.mkdir(mode=0o700)
            write_content(aside, self.folder, content, number, record)
        files.write_text(self.folder / CURRENT_FILE, f"{number:06d}\n", private=True)
        audit.append(self.folder, log, record)
        self._drop_unused_behaviour()
        return number

    def note(self, action: str, values: Mapping[str, Any]) -> None:
        """Writes a line that is not about a version into the audit log. Call it while `locked`."""
        assert self._locked, "note outside of locked()"
        record = {"when": now(), "action": action, **values}
        audit.append(self.folder, read_log(self.folder), record)

    def drop_older(self) -> tuple[int, list[Path]]:
        """Deletes all versions but the current one, and populations of only these. Call it while `locked`.

        Returns:
            Number of deleted versions, and folders of versions with other files, which are kept.
        """
        assert self._locked, "drop_older outside of locked()"
        current = self.path_of()
        older = [self.path_of(number) for number in self.numbers() if self.path_of(number) != current]
        left = [path for folder in older for path in tidying.drop_version(folder)]
        self._drop_unused_behaviour()
        files.sync(current.parent)
        return len(older), left

    def seal(self, change: Mapping[str, Any]) -> None:
        """Accepts the present audit log and lists, and chains the log from here on.

        For a store with a permanent loss: users on a lost list are no longer known.

        Raises:
            RelandError: not a store, or an existing list cannot be read.
        """
        if not tidying.has_traces(self.folder):
            raise RelandError(f"{self.folder}: not a pool store")
        with self._exclusive(WAIT_SECONDS, check=False):
            (self.folder / NEXT_FILE).unlink(missing_ok=True)
            self._anchor({"when": now(), **change, "action": "seal", "versions": self.numbers()})

    @contextlib.contextmanager
    def _exclusive(self, wait: float, check: bool = True) -> Iterator[None]:
        """Holds the lock file, which has the id of this process."""
        if check:
            tidying.check_store(self.folder)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock, deadline = files.Lock(self.folder / LOCK_FILE), time.monotonic() + wait
        while not lock.take():
            if time.monotonic() >= deadline:
                raise RelandError(
                    f"{lock.path}: process {lock.holder()} is changing this store; run the command again "
                    "when it has ended"
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            lock.release()

    def _recover(self) -> None:
        """Removes an unfinished version of a killed process, or completes the audit of a finished one."""
        log = read_log(self.folder)
        self._cut_torn_line(log)
        current = self.current()
        if current is not None and current not in self._audited(log):
            log = self._audit_late(log, current)
        mark = audit.read_mark(self.folder)
        if mark is None:
            tidying.make_store_private(self.folder)
        if not log.chained:
            log = self._adopt(log)
        elif mark != (len(log.entries), log.sha256):
            audit.write_mark(self.folder, log)
        finish_lists(self.folder, log)
        newest = max([0, *self._audited(log), *([current] if current else [])])
        for number in self.numbers():
            # Only versions after all recorded ones are unfinished.
            if number > newest and tidying.is_version(self.path_of(number)):
                tidying.drop_version(self.path_of(number))
        tidying.sweep(self.folder)
        self._drop_unused_behaviour()

    def _audit_late(self, log: Log, number: int) -> Log:
        """Adds the audit line of a version whose process was killed right after the switch."""
        change = read_record(self.path_of(number))["change"]
        sealed = bool(log.entries) and log.entries[-1]["action"] == "seal"
        if "previous" in change and change["previous"] != log.sha256 and not sealed:
            raise RelandError(
                f"{self.folder / AUDIT_FILE}: current version {number} is not in it, and lines before "
                "its line are missing; restore it from a copy, or accept the present state: "
                "python -m experiments.pool seal"
            )
        if "previous" in change:
            return audit.append(self.folder, log, change)
        line = json.dumps(change, ensure_ascii=False, sort_keys=True) + "\n"
        files.append_line(self.folder / AUDIT_FILE, line.encode("utf-8"), private=True)
        return read_log(self.folder)

    def _adopt(self, log: Log) -> Log:
        """Upgrades the store of an earlier version of this program."""
        print(
            f"{self.folder}: upgraded from an earlier version of this program: its audit log is "
            "chained from here on, and only the owner can read its files",
            file=sys.stderr,
        )
        read_lists(self.folder)  # refused if they lack entries of the log
        return self._anchor({"when": now(), "action": "chained", "purged": not self._purge_was_begun(log)})

    def _anchor(self, record: Mapping[str, Any]) -> Log:
        """Chains the log from here on, with the present lists."""
        lists_as_they_lie(self.folder)  # an unreadable list is refused
        lists = contents(self.folder)
        log = audit.log_as_it_is(self.folder)
        self._cut_torn_line(log)
        return audit.append(self.folder, log, {**record, "anchor": True, "lists": checksums(lists)})

    def _cut_torn_line(self, log: Log) -> None:
        path = self.folder / AUDIT_FILE
        if path.exists() and path.stat().st_size > log.whole:
            with path.open("r+b") as file:
                file.truncate(log.whole)
                os.fsync(file.fileno())

    def _check_removals(self, content: Content) -> None:
        """Refuses a version with a removed user."""
        removals = read_removals(self.folder)
        ids = content.population.user_ids
        seeds = ids[content.pool.seeds.user].tolist()
        if removals.left(ids.tolist()).any() or removals.barred(seeds).any():
            raise RelandError(f"{self.folder}: the new version would have removed users")

    def _audited(self, log: Log) -> set[int]:
        return {entry["version"] for entry in audit.published(log.entries)}

    def _taken_numbers(self) -> list[int]:
        names = [path.name for path in (self.folder / VERSIONS_FOLDER).glob("*")]
        return [int(name) for name in names if name.isascii() and name.isdecimal()]

    def _drop_unused_behaviour(self) -> None:
        """Deletes populations that no version on disk uses."""
        try:
            records = [read_record(self.path_of(number)) for number in self.numbers()]
        except RelandError:
            return  # the population of a damaged version is unknown, so all are kept
        tidying.drop_behaviour(self.folder, [record["behaviour"]["name"] for record in records])

    # --- lists ---------------------------------------------------------------------------------

    def remember(
        self, *, users: Sequence[str] = (), seeds: Sequence[str] = (), patterns: Sequence[str] = ()
    ) -> None:
        """Adds users, seed users and patterns to the lists of the store. Call it while `locked`."""
        assert self._locked, "remember outside of locked()"
        before, known = read_removals(self.folder), read_patterns(self.folder)
        after = before.plus(users=users, seeds=seeds)
        self._change_lists(before, after, known, [*known, *(each for each in patterns if each not in known)])

    def forget(self, *, users: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        """Removes users and patterns from the lists of the store. Call it while `locked`."""
        assert self._locked, "forget outside of locked()"
        before, known = read_removals(self.folder), read_patterns(self.folder)
        kept = [pattern for pattern in known if pattern not in patterns]
        self._change_lists(before, before.minus(users), known, kept)

    def _change_lists(
        self, before: Removals, after: Removals, known: Sequence[str], patterns: Sequence[str]
    ) -> None:
        """Writes the lists that changed."""
        removals = after if after != before else None
        new = None if list(patterns) == list(known) else list(dict.fromkeys(patterns))
        if removals is not None or new is not None:
            change_lists(self.folder, read_log(self.folder), removals=removals, patterns=new)
