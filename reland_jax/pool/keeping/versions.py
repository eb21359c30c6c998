"""The pool store: versions of a reasoning pool that never change, one of which is the current one.

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
version itself and is put in then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reland_jax.pool.keeping.durable import append_durably, sync, sync_tree, write_durably
from reland_jax.pool.keeping.lists import (
    PATTERNS_FILE,
    REMOVALS_FILE,
    read_patterns,
    read_removals,
    write_patterns,
    write_removals,
)
from reland_jax.pool.keeping.version_files import (
    BEHAVIOUR_FOLDER,
    Content,
    read_content,
    read_record,
    write_content,
)
from reland_jax.types import RelandError

CURRENT_FILE = "CURRENT"
AUDIT_FILE = "audit.jsonl"
VERSIONS_FOLDER = "versions"
LOCK_FILE = "lock"
WAIT_SECONDS = 10.0
"""How long a change waits for another process to finish its own."""


class PoolStore:
    """A folder of versions. Reading needs no lock, since versions never change.

    Attributes:
        folder: the store.
    """

    def __init__(self, folder: str | Path) -> None:
        """Nothing is read yet."""
        self.folder = Path(folder)
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
            published = self._audited()
            if published:
                raise RelandError(
                    f"{path}: missing, though version {max(published)} was published; "
                    "write the number of the version to use into it"
                ) from None
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RelandError(f"{path}: cannot be read ({error})") from error
        if not text.strip().isdecimal():
            raise RelandError(f"{path}: holds {text[:40]!r}; it must be the number of a version")
        return int(text)

    def numbers(self) -> list[int]:
        """Numbers of the versions on disk, in order."""
        folder = self.folder / VERSIONS_FOLDER
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def read(self, number: int | None = None) -> Content:
        """A version, the current one unless a number is given, after checking every byte of it.

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
        """The lines of the audit log, oldest first; a line that was cut off by a crash is left out.

        Raises:
            RelandError: a line before the last is damaged.
        """
        path = self.folder / AUDIT_FILE
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        records = []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(line)
                record["version"] = int(record["version"])
            except (ValueError, KeyError, TypeError) as error:
                raise RelandError(f"{path}:{number}: not a line of the audit log ({error})") from error
            records.append(record)
        return records

    def state(self) -> list[str]:
        """What changes when the pool that this store stands for does: for the stamp of a stage.

        Raises:
            RelandError: there is no current version, or its record is damaged.
        """
        lists = [self.folder / name for name in (REMOVALS_FILE, PATTERNS_FILE)]
        texts = [path.read_text("utf-8") if path.exists() else "" for path in lists]
        return [read_record(self.path_of())["sha256"], *texts]

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

        What an earlier process left half done is put right first.

        Args:
            wait: seconds to wait for a change that is under way.

        Raises:
            RelandError: another process is still at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK_FILE).open("a+") as file:
            _take(file, wait)
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
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
            change: JSON values for the audit log; "version" and "when" are filled in.

        Returns:
            Its number.

        Raises:
            RelandError: the content does not fit together; nothing has changed then.
        """
        assert self._locked, "publish outside of locked()"
        number = max([0, *self._audited(), *self.numbers()]) + 1
        when = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"version": number, "when": when, **change}
        folder = self.folder / VERSIONS_FOLDER / f"{number:06d}"
        aside = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        try:
            write_content(aside, self.folder, content, number, record)
            sync_tree(aside)
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        sync(folder.parent)
        write_durably(self.folder / CURRENT_FILE, f"{number:06d}\n".encode())
        self._append(record)
        self._drop_unused_behaviour()
        return number

    def drop_older(self) -> int:
        """Deletes every version but the current one, and what only they need; while `locked`.

        Returns:
            How many versions were deleted.
        """
        assert self._locked, "drop_older outside of locked()"
        current = self.path_of()
        older = [self.path_of(number) for number in self.numbers() if self.path_of(number) != current]
        for folder in older:
            shutil.rmtree(folder)
        self._drop_unused_behaviour()
        sync(current.parent)
        return len(older)

    def _recover(self) -> None:
        """Clears what a killed process left before its switch, and tells the audit of one after it."""
        self._cut_torn_line()
        current, audited = self.current(), self._audited()
        if current is not None and current not in audited:
            self._append(read_record(self.path_of(current))["change"])
            audited.add(current)
        versions = self.folder / VERSIONS_FOLDER
        for path in list(versions.iterdir()) if versions.is_dir() else []:
            if not path.name.isdecimal() or int(path.name) not in audited:
                shutil.rmtree(path)
        for folder in (self.folder, self.folder / BEHAVIOUR_FOLDER):
            for path in folder.glob("*.tmp-*"):
                path.unlink()
        self._drop_unused_behaviour()

    def _cut_torn_line(self) -> None:
        path = self.folder / AUDIT_FILE
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
                os.fsync(file.fileno())

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"
        append_durably(self.folder / AUDIT_FILE, line.encode("utf-8"))

    def _audited(self) -> set[int]:
        return {record["version"] for record in self.audit()}

    def _drop_unused_behaviour(self) -> None:
        """Deletes populations that no version on disk names."""
        folder = self.folder / BEHAVIOUR_FOLDER
        try:
            records = [read_record(self.path_of(number)) for number in self.numbers()]
        except RelandError:
            return  # what a damaged version needs is not known, so everything is kept
        used = {record["behaviour"]["name"] for record in records}
        for path in folder.glob("*.npz"):
            if path.name not in used:
                path.unlink()

    # --- lists ---------------------------------------------------------------------------------

    def remember(
        self, *, users: Sequence[str] = (), seeds: Sequence[str] = (), patterns: Sequence[str] = ()
    ) -> None:
        """Puts users, seed users and patterns on the lists of the store; while `locked`."""
        assert self._locked, "remember outside of locked()"
        if users or seeds:
            write_removals(self.folder, read_removals(self.folder).plus(users=users, seeds=seeds))
        known = read_patterns(self.folder)
        new = [pattern for pattern in dict.fromkeys(patterns) if pattern not in known]
        if new:
            write_patterns(self.folder, [*known, *new])

    def forget(self, *, users: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        """Takes users and patterns off the lists of the store; while `locked`."""
        assert self._locked, "forget outside of locked()"
        if users:
            write_removals(self.folder, read_removals(self.folder).minus(users))
        if patterns:
            known = read_patterns(self.folder)
            write_patterns(self.folder, [pattern for pattern in known if pattern not in patterns])


def _take(file: Any, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                raise RelandError(
                    f"{file.name}: process {file.read() or '?'} is changing this store; "
                    "give the command again when it has finished"
                ) from None
            time.sleep(0.05)
