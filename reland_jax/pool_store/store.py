"""The pool store: versions of a reasoning pool that never change, one of which is the current one.

    STORE/store.json           the mark of a store, and how long the audit log is (see `audit`)
    STORE/CURRENT              the number of the current version; replaced as a whole
    STORE/versions/000001/     one folder per version (see `version_files`)
    STORE/behaviour/           the users that versions serve, by checksum
    STORE/audit.jsonl          one line per change: who, when, why, what, and how many it touched
    STORE/removed.json         who must not come back (see `lists`)
    STORE/blocked.json         patterns that no rationale may have
    STORE/asking/              journal, files of the batch provider, and whose prompts were sent
    STORE/lock                 held by the one process that changes the store

A version exists from the moment at which CURRENT names it. What a killed process leaves behind before
that is cleared by the next change; the audit line of a switch that was killed right after it is in the
version itself and is put in then. All files are readable by their owner alone, and nothing is deleted but
what this program wrote (see `tidying`).
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
"""Of the number of a version."""

WAIT_SECONDS = 10.0
"""How long a change waits for another process to finish its own."""


class PoolStore:
    """A folder of versions. Reading needs no lock, since versions never change.

    Attributes:
        folder: the store.
    """

    def __init__(self, folder: str | Path) -> None:
        """Nothing is read yet."""
        self.folder = files.resolve(folder)
        self._locked = False

    # --- reading -------------------------------------------------------------------------------

    def current(self) -> int | None:
        """Number of the current version, None where nothing has been published.

        Raises:
            RelandError: CURRENT is missing or damaged though versions were published.
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
            raise RelandError(f"{path}: holds {text[:40]!r}; it must be the number of a version")
        return int(text)

    def numbers(self) -> list[int]:
        """Numbers of the versions on disk, in order."""
        return tidying.version_numbers(self.folder)

    def read_as_written(self, number: int | None = None) -> Content:
        """A version, the current one unless a number is given, after checking every byte of it.

        The lists of the store may forbid some of it: `rematch.read_version` is what applies them.

        Raises:
            RelandError: there is no such version, or it is damaged (see `read_content`).
        """
        return read_content(self.path_of(number), self.folder)

    def path_of(self, number: int | None = None) -> Path:
        """Folder of a version, the current one unless a number is given.

        Raises:
            RelandError: there is no such version.
        """
        number = self.current() if number is None else number
        if number is None:
            raise RelandError(
                f"{self.folder}: no pool store here; make one with: python -m experiments.pool build"
            )
        path = self.folder / VERSIONS_FOLDER / f"{number:06d}"
        if not path.is_dir():
            known = ", ".join(map(str, self.numbers())) or "none"
            raise RelandError(f"{self.folder}: version {number} is not there; there are: {known}")
        return path

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log about versions, oldest first, after checking all of them.

        Raises:
            RelandError: the log is damaged (see `audit.read_log`).
        """
        return audit.published(read_log(self.folder).entries)

    def state(self) -> list[str]:
        """A value that changes whenever the pool of this store does, for the stamp of a stage.

        Raises:
            RelandError: there is no current version, or its record or a list is damaged.
        """
        return [read_record(self.path_of())["sha256"], *checksums(read_lists(self.folder)).values()]

    def unfinished_purge(self) -> bool:
        """Whether a purge was begun that has not come to its end.

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
        """The same of a log by an earlier version of this program, which did not write down the end."""
        lines = audit.published(log.entries)
        return bool(lines) and bool(lines[-1].get("purging")) and len(self.numbers()) > 1

    def provenance(self) -> dict[str, Any]:
        """Which version this is and where its pool came from, for the provenance of what is made of it.

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
        """Keeps every other process from changing the store; ends with the process, whatever ends that.

        The store is made if need be, and what an earlier process left half done is put right first.

        Args:
            wait: seconds to wait for a change that is under way.

        Raises:
            RelandError: another process is still at it; the folder is no store; its log or lists are damaged.
        """
        with self._exclusive(wait):
            self._locked = True
            try:
                self._recover()
                yield self
            finally:
                self._locked = False

    def publish(self, content: Content, change: Mapping[str, Any]) -> int:
        """Makes the next version and switches to it; to be called while `locked`.

        Args:
            content: what the version holds.
            change: JSON values for the audit log; the number, the time, the checksums of the lists and of
                the log so far are filled in.

        Returns:
            Its number.

        Raises:
            RelandError: the content does not fit together, or has somebody on the removal list; nothing
                has changed then.
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
        """Writes a line into the audit log that is about no version; while `locked`."""
        assert self._locked, "note outside of locked()"
        record = {"when": now(), "action": action, **values}
        audit.append(self.folder, read_log(self.folder), record)

    def drop_older(self) -> tuple[int, list[Path]]:
        """Deletes every version but the current one, and what only they need; while `locked`.

        Returns:
            How many versions were deleted, and folders of versions that hold something else too, which stays.
        """
        assert self._locked, "drop_older outside of locked()"
        current = self.path_of()
        older = [self.path_of(number) for number in self.numbers() if self.path_of(number) != current]
        left = [path for folder in older for path in tidying.drop_version(folder)]
        self._drop_unused_behaviour()
        files.sync(current.parent)
        return len(older), left

    def seal(self, change: Mapping[str, Any]) -> None:
        """Accepts the audit log and the lists as they lie there, and chains the log from here on.

        For a store that lost something for good: whoever stood on a lost list is not known any more.

        Args:
            change: JSON values for the audit log.

        Raises:
            RelandError: no store, or a list that is there cannot be read.
        """
        if not tidying.has_traces(self.folder):
            raise RelandError(f"{self.folder}: no pool store here")
        with self._exclusive(WAIT_SECONDS, check=False):
            (self.folder / NEXT_FILE).unlink(missing_ok=True)
            self._anchor({"when": now(), **change, "action": "seal", "versions": self.numbers()})

    @contextlib.contextmanager
    def _exclusive(self, wait: float, check: bool = True) -> Iterator[None]:
        """Holds the lock file, which names the process that does."""
        if check:
            tidying.check_store(self.folder)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock, deadline = files.Lock(self.folder / LOCK_FILE), time.monotonic() + wait
        while not lock.take():
            if time.monotonic() >= deadline:
                raise RelandError(
                    f"{lock.path}: process {lock.holder()} is changing this store; give the command again "
                    "when it has finished"
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            lock.release()

    def _recover(self) -> None:
        """Clears what a killed process left before its switch, and tells the audit of one after it."""
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
            # Only what comes after all that is known was not finished.
            if number > newest and tidying.is_version(self.path_of(number)):
                tidying.drop_version(self.path_of(number))
        tidying.sweep(self.folder)
        self._drop_unused_behaviour()

    def _audit_late(self, log: Log, number: int) -> Log:
        """The audit line of a version whose process was killed right after the switch."""
        change = read_record(self.path_of(number))["change"]
        sealed = bool(log.entries) and log.entries[-1]["action"] == "seal"
        if "previous" in change and change["previous"] != log.sha256 and not sealed:
            raise RelandError(
                f"{self.folder / AUDIT_FILE}: version {number} is current and is not in it, and lines before "
                "that one are missing; restore it from a copy, or accept what is there on record: "
                "python -m experiments.pool seal"
            )
        if "previous" in change:
            return audit.append(self.folder, log, change)
        line = json.dumps(change, ensure_ascii=False, sort_keys=True) + "\n"
        files.append_line(self.folder / AUDIT_FILE, line.encode("utf-8"), private=True)
        return read_log(self.folder)

    def _adopt(self, log: Log) -> Log:
        """Takes over the store of an earlier version of this program."""
        print(
            f"{self.folder}: this store was made by an earlier version of this program: its audit log is "
            "chained from here on, and its files become readable by their owner alone",
            file=sys.stderr,
        )
        read_lists(self.folder)  # refused, where they lack what the log tells of
        return self._anchor({"when": now(), "action": "chained", "purged": not self._purge_was_begun(log)})

    def _anchor(self, record: Mapping[str, Any]) -> Log:
        """Chains the log from here on, with the lists as they lie there."""
        lists_as_they_lie(self.folder)  # a list that cannot be read is not accepted
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
        """Nobody on the removal list comes into a version, whatever a command works out."""
        removals = read_removals(self.folder)
        ids = content.population.user_ids
        seeds = ids[content.pool.seeds.user].tolist()
        if removals.left(ids.tolist()).any() or removals.barred(seeds).any():
            raise RelandError(f"{self.folder}: the new version would have users who were removed")

    def _audited(self, log: Log) -> set[int]:
        return {entry["version"] for entry in audit.published(log.entries)}

    def _taken_numbers(self) -> list[int]:
        names = [path.name for path in (self.folder / VERSIONS_FOLDER).glob("*")]
        return [int(name) for name in names if name.isascii() and name.isdecimal()]

    def _drop_unused_behaviour(self) -> None:
        """Deletes populations that no version on disk names."""
        try:
            records = [read_record(self.path_of(number)) for number in self.numbers()]
        except RelandError:
            return  # what a damaged version needs is not known, so everything is kept
        tidying.drop_behaviour(self.folder, [record["behaviour"]["name"] for record in records])

    # --- lists ---------------------------------------------------------------------------------

    def remember(
        self, *, users: Sequence[str] = (), seeds: Sequence[str] = (), patterns: Sequence[str] = ()
    ) -> None:
        """Puts users, seed users and patterns on the lists of the store; while `locked`."""
        assert self._locked, "remember outside of locked()"
        before, known = read_removals(self.folder), read_patterns(self.folder)
        after = before.plus(users=users, seeds=seeds)
        self._change_lists(before, after, known, [*known, *(each for each in patterns if each not in known)])

    def forget(self, *, users: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        """Takes users and patterns off the lists of the store; while `locked`."""
        assert self._locked, "forget outside of locked()"
        before, known = read_removals(self.folder), read_patterns(self.folder)
        kept = [pattern for pattern in known if pattern not in patterns]
        self._change_lists(before, before.minus(users), known, kept)

    def _change_lists(
        self, before: Removals, after: Removals, known: Sequence[str], patterns: Sequence[str]
    ) -> None:
        """Writes the lists that are others than before."""
        removals = after if after != before else None
        new = None if list(patterns) == list(known) else list(dict.fromkeys(patterns))
        if removals is not None or new is not None:
            change_lists(self.folder, read_log(self.folder), removals=removals, patterns=new)
