"""The journal: every prompt that was sent and every answer received, in one SQLite file.

The key of a prompt is a hash of its text, the model and the sampling settings. Entries are on disk when
`record` returns, so a killed process loses no recorded answer, and the next one asks only prompts without an
accepted answer. Several processes may use one journal: a prompt is claimed before it is asked, and a claim of
a process that has ended is released at once. SQLite's WAL needs a local disk: keep the journal off network
file systems.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reland_jax.files import aside_name
from reland_jax.pool.asking.money import Usage
from reland_jax.pool.asking.owners import Owner, Watch, this_process
from reland_jax.pool.asking.records import (
    ACCEPTED,
    CUT,
    MALFORMED,
    SURPLUS,
    UNANSWERED,
    Malformed,
    Reception,
    RequestRecord,
    Sent,
)
from reland_jax.pool.asking.reserve import DiskReserve
from reland_jax.pool.asking.schema import (
    CHECKED,
    SOUND,
    bring_up_to_date,
    fault_in,
    install_functions,
    new_file,
    version_of,
)
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.reading.answers import Answer
from reland_jax.strings import encodable
from reland_jax.types import RelandError

_BUSY_SECONDS = 60.0
_AT_A_TIME = 500
_CHECKED_BYTES = 100_000_000
"""Size up to which a journal is checked whenever it is opened."""
_FAULTY = f"kind IN ('{MALFORMED}', '{CUT}')"
_NO_SPACE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})

_log = logging.getLogger(__name__)


class Journal:
    """An open journal; safe to use from several threads and several processes.

    Used as a context manager it is closed at the end, which releases its claims.

    Attributes:
        path: the SQLite file; its prompts and answers are personal data, so only the user may read it.
        lease_seconds: silence after which processes that cannot see this one (in another container) assume
            that it has ended.
        out_of_room: whether the disk was full, so that the reserved space had to be used.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease_seconds: float = 60.0,
        may_ask: Callable[[str], bool] | None = None,
    ) -> None:
        """Opens the journal, or creates it.

        Args:
            path: the file.
            lease_seconds: see above.
            may_ask: says of a prompt whether it may still be sent, and its answer be kept; it raises
                `RelandError` where nothing may be any more. Those who ask look at it (see `allows`).

        Raises:
            RelandError: the file is damaged (see `check`), emptied, not a journal, or of a newer version of
                this program; or its folder cannot be written.
        """
        self.path, self.lease_seconds, self.out_of_room = Path(path), lease_seconds, False
        self._may_ask = may_ask
        self._lock, self._id, self._alone, self._watch = threading.RLock(), "", False, Watch()
        self._reserve, self._told = DiskReserve(self.path), False
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._create()
            self._database = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._set_up()
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the journal."""
        self.close()

    @property
    def is_guarded(self) -> bool:
        """Whether prompts may be forbidden while a job is running."""
        return self._may_ask is not None

    def allows(self, prompt: str) -> bool:
        """Whether a prompt may be sent and its answer kept: no user in it was removed meanwhile.

        Raises:
            RelandError: nothing may be sent any more.
        """
        return self._may_ask is None or self._may_ask(prompt)

    def close(self) -> None:
        """Releases the claims and closes the file; closing twice does nothing."""
        with self._explained():
            if self._id:
                with self._transaction() as database:
                    self._free("owner = ?", (self._id,))
                    database.execute("DELETE FROM owners WHERE id = ?", (self._id,))
                self._id = ""
            self._reserve.release()
            self._database.close()

    def check(self) -> None:
        """Reads the whole file for damage; opening does that for small files only.

        Raises:
            RelandError: a page, an answer or a prompt in it is damaged.
        """
        with self._explained():
            fault = fault_in(self._database)
        if fault:
            raise self._damaged(fault)

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The accepted answers among the keys."""
        fields = "content, model, prompt_tokens, response_tokens, created"
        rows = self._received(fields, "kind = 'accepted'", keys)
        return {key: Answer(*values) for key, *values in rows}

    def malformed(self, keys: Iterable[str]) -> dict[str, Malformed]:
        """Key -> the first malformed or cut answer, of keys that have one."""
        order = "ORDER BY id DESC"  # so that the first one is what stays in the dictionary
        rows = self._received("content, why, kind", f"{_FAULTY} AND messages = ''", keys, order)
        return {key: Malformed(*values) for key, *values in rows}

    def quarantined(self, keys: Iterable[str]) -> dict[str, str]:
        """Key -> reason, of prompts whose answer was malformed again when they were asked again."""
        rows = dict(self._received("why", f"{_FAULTY} AND messages != ''", keys))
        answered = self.answers(rows)
        return {key: why for key, why in rows.items() if key not in answered}

    def claim(self, requests: Sequence[RequestRecord]) -> set[str]:
        """Claims prompts for this process, and returns those it now holds.

        The others are answered, in quarantine, or claimed by another running process.
        """
        keys = [request.key for request in requests]
        with self._explained(), self._transaction() as database:
            self._enlist()
            self._free_the_dead()
            closed = {*self.answers(keys), *self.quarantined(keys)}
            free = [request for request in requests if request.key not in closed]
            database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?)", map(_asked, free))
            rows = [(request.key, self._id) for request in free]
            database.executemany("INSERT OR IGNORE INTO claims (key, owner) VALUES (?, ?)", rows)
            held = dict(self._select("SELECT key, owner FROM claims WHERE key IN", [row[0] for row in rows]))
        return {key for key, owner in held.items() if owner == self._id}

    def release(self, keys: Iterable[str]) -> None:
        """Releases claims of this process."""
        with self._explained(), self._transaction():
            for key in keys:
                self._free("key = ? AND owner = ?", (key, self._id))

    def enlist(self, alone: bool = False) -> None:
        """Registers this process as a user of the journal.

        Args:
            alone: refuse to work beside other processes, because a budget must hold for the whole journal.

        Raises:
            RelandError: others are at work, and this process or one of them has to be alone.
        """
        self._alone, first = alone, dict[str, float]()
        while others := self._in_the_way():
            for name, pid, runs, beat in others:
                if runs or first.setdefault(name, beat) != beat:
                    raise RelandError(
                        f"{self.path}: process {pid} is at work on this journal. A budget holds for the "
                        "whole journal, so with one there may be only one process: wait until it ends, or "
                        "end it"
                    )
            if len(first) == len(others) and not self._told:
                self._told = True
                _log.warning(
                    "%s: process %d, which cannot be seen from here, was at work on this journal; waiting to "
                    "see whether it still is", self.path, others[0][1],
                )  # fmt: skip
            time.sleep(0.2)

    def hold_room(self, size: int) -> None:
        """Reserves disk space, so that pending answers can be written even if the disk becomes full.

        Raises:
            RelandError: there is no room for them now.
        """
        with self._explained():
            self._reserve.hold(size)

    def heartbeat(self) -> None:
        """Signals to processes that cannot see this one that it is still running."""
        with self._explained(), self._transaction():
            self._enlist()

    def record(self, receptions: Sequence[Reception], sent: Sequence[Sent] = ()) -> None:
        """Writes responses and requests in one transaction, which is on disk when this returns.

        Args:
            receptions: responses; an accepted answer releases the claim of its prompt.
            sent: requests that are about to be sent. Should this process end before their receptions
                are recorded, they count as paid, so that a budget holds.
        """
        with self._explained():
            try:
                self._record(receptions, sent)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFFFF not in _NO_SPACE or not self._reserve.release():
                    raise
                self.out_of_room = True
                self._record(receptions, sent)

    def _record(self, receptions: Sequence[Reception], sent: Sequence[Sent]) -> None:
        mark = "UPDATE claims SET sent_prompt = ?, sent_response = ? WHERE key = ? AND owner = ?"
        done = [Sent(reception.request.key, 0, 0) for reception in receptions]
        with self._transaction() as database:
            requests = (_asked(reception.request) for reception in receptions)
            database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?)", requests)
            for reception in receptions:
                self._insert(reception)
            marks = ((one.prompt_tokens, one.response_tokens, one.key, self._id) for one in [*done, *sent])
            database.executemany(mark, marks)
            accepted = ((r.request.key,) for r in receptions if r.kind == ACCEPTED)
            database.executemany("DELETE FROM claims WHERE key = ?", accepted)

    def retire(self, keys: Iterable[str], before: str) -> int:
        """Retires accepted answers, so that their prompts are asked again; their cost stays recorded.

        Args:
            keys: of the prompts.
            before: ISO 8601 UTC time; only answers made before it, or received where the service did
                not say when it made them.

        Returns:
            The number of answers retired.
        """
        arrived = "strftime('%Y-%m-%dT%H:%M:%S', received, 'unixepoch')"
        made = f"CASE created WHEN '' THEN {arrived} ELSE created END"
        change = f"UPDATE received SET kind = ? WHERE kind = ? AND key = ? AND {made} < ? RETURNING key"
        retired: list[tuple[str]] = []
        with self._explained(), self._transaction() as database:
            for key in keys:
                retired += database.execute(change, (SURPLUS, ACCEPTED, key, before)).fetchall()
            # Earlier failures are cleared too: the prompt is asked as for the first time.
            database.executemany(f"UPDATE received SET kind = '{SURPLUS}' WHERE key = ?", retired)
            seal = f"UPDATE received SET checksum = checksum_of({CHECKED}) WHERE key = ?"
            database.executemany(seal, retired)
        return len(retired)

    def usage(self) -> dict[str, Usage]:
        """Model -> what was paid to it, including answers that were rejected or never arrived."""
        query = """SELECT asked.model, COUNT(*), SUM(paid_prompt), SUM(paid_response)
                   FROM received JOIN asked USING (key) GROUP BY asked.model ORDER BY asked.model"""
        with self._explained():
            return {model: Usage(*values) for model, *values in self._database.execute(query)}

    def purge(self, prompt_hashes: Iterable[str]) -> int:
        """Removes prompts and all their responses, so that no byte of them remains in the file.

        Returns:
            How many prompts were removed; one asked of two models counts twice.

        Raises:
            RelandError: another process is at work on the journal, and may write what is removed again; or
                is reading it, so that its old pages have to stay.
        """
        hashes, keys = [(each,) for each in prompt_hashes], "(SELECT key FROM asked WHERE prompt_hash = ?)"
        with self._explained():
            with self._transaction() as database:
                self._free_the_dead()
                others = database.execute("SELECT pid FROM owners WHERE id != ?", (self._id,)).fetchone()
                if others:
                    raise RelandError(
                        f"{self.path}: not purged: process {others[0]} is at work on this journal, and may "
                        "write what is to be removed again; purge again when it has ended"
                    )
                for table in ("received", "claims"):
                    database.executemany(f"DELETE FROM {table} WHERE key IN {keys}", hashes)
                removed = database.executemany("DELETE FROM asked WHERE prompt_hash = ?", hashes).rowcount
            database.execute("VACUUM")
            busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise RelandError(
                f"{self.path}: the prompts are removed, but another process still reads the journal, so they "
                "remain in its -wal file; end that process and purge again"
            )
        return max(removed, 0)

    def prompts(self) -> dict[str, int]:
        """Hash of every prompt -> how many `purge` would remove; one asked of two models counts twice."""
        with self._explained():
            rows = self._database.execute("SELECT prompt_hash, COUNT(*) FROM asked GROUP BY prompt_hash")
            return dict(rows)

    def _set_up(self) -> None:
        database = self._database
        install_functions(database)
        version_of(database, self.path)
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON")
        self._write_ahead()
        with self._transaction():
            # Within the transaction: another process may have made the tables in the meantime.
            bring_up_to_date(database, version_of(database, self.path))
        if self.path.stat().st_size <= _CHECKED_BYTES:
            self.check()

    def _create(self) -> None:
        """Makes the file, readable by its owner alone, if there is none.

        A journal gets its name only when it has tables, so an empty file means that it was emptied.
        """
        if not os.path.lexists(self.path):
            made = aside_name(self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}"))
            try:
                with os.fdopen(os.open(made, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(new_file())
                _name_if_free(made, self.path)
            finally:
                made.unlink(missing_ok=True)
        if self.path.is_file() and not self.path.stat().st_size:
            raise RelandError(
                f"{self.path}: the journal is empty (0 bytes), which this program never leaves it. If it "
                "held answers, restore a copy; else remove the file, and every prompt is asked, and paid"
            )

    def _write_ahead(self) -> None:
        """Switches to WAL; SQLite does not wait by itself when two processes do so at once."""
        end = time.monotonic() + _BUSY_SECONDS
        mode = None
        while mode is None:
            try:
                mode = self._database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        if mode != "wal":
            raise RelandError(f"{self.path}: the file system does not allow a WAL; use a local disk")

    def _enlist(self) -> None:
        """Writes this process, or that it is still at work, into the table of owners."""
        self._id = self._id or uuid.uuid4().hex
        row = (self._id, *this_process(), self._alone, time.time(), self.lease_seconds)
        self._database.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _in_the_way(self) -> list[tuple[str, int, bool | None, float]]:
        """Registers this process, or returns the one that prevents it: (id, pid, whether it runs, beat)."""
        query = "SELECT id, machine, pid, started, beat, alone FROM owners WHERE id != ?"
        with self._explained(), self._transaction() as database:
            self._free_the_dead()
            rows = database.execute(query, (self._id,)).fetchall()
            if rows and (self._alone or any(row[-1] for row in rows)):
                return [(row[0], row[2], Owner(*row[1:4]).runs(), row[4]) for row in rows]
            self._enlist()
        return []

    def _free_the_dead(self) -> None:
        """Releases the claims of processes that have ended, or that cannot be seen and are silent."""
        database = self._database
        query = "SELECT id, machine, pid, started, beat, lease FROM owners WHERE id != ?"
        for name, machine, pid, started, beat, lease in database.execute(query, (self._id,)).fetchall():
            runs = Owner(machine, pid, started).runs()
            if runs is False or (runs is None and self._watch.is_silent(name, beat, lease)):
                self._free("owner = ?", (name,))
                database.execute("DELETE FROM owners WHERE id = ?", (name,))

    def _free(self, which: str, values: tuple[str, ...]) -> None:
        """Releases claims; pending requests whose answers will never be recorded count as paid."""
        query = f"""SELECT asked.*, sent_prompt, sent_response FROM claims JOIN asked USING (key)
                    WHERE {which} AND sent_prompt + sent_response > 0"""
        for key, _, model, settings, prompt, *paid in self._database.execute(query, values).fetchall():
            request, nothing = RequestRecord(key, prompt, model, settings), Answer("", model, 0, 0, "")
            why = "the process that asked ended before the answer came"
            self._insert(Reception(request, UNANSWERED, nothing, "", why, (paid[0], paid[1])))
        self._database.execute(f"DELETE FROM claims WHERE {which}", values)

    def _insert(self, reception: Reception) -> None:
        key, answer, kind = reception.request.key, reception.answer, reception.kind
        if kind == ACCEPTED and self.answers([key]):
            kind = SURPLUS
        values = (
            key, kind, *reception.paid, time.time(), *answer[1:], reception.why, answer.content,
            reception.messages, reception.raw,
        )  # fmt: skip
        marks = ", ".join(f"?{place + 1}" for place in range(len(values)))
        self._database.execute(
            f"INSERT INTO received ({CHECKED}, checksum) VALUES ({marks}, checksum_of({marks}))",
            tuple(map(_storable, values)),
        )

    def _received(self, fields: str, which: str, keys: Iterable[str], order: str = "") -> list[Any]:
        """Key and fields of answers.

        Raises:
            RelandError: one of them is not what was written.
        """
        query = f"SELECT {SOUND}, id, key, {fields} FROM received WHERE {which} AND key IN"
        rows = self._select(query, keys, order)
        damaged = [row[1] for row in rows if not row[0]]
        if damaged:
            raise self._damaged(f"answer {damaged[0]} is not the one that was written")
        return [row[2:] for row in rows]

    def _damaged(self, fault: str) -> RelandError:
        return RelandError(
            f"{self.path}: the journal is damaged ({fault}); restore a copy of it, or name another file in "
            "config.llm.journal (its answers would be asked, and paid, again)"
        )

    def _select(self, query: str, keys: Iterable[str], order: str = "") -> list[Any]:
        """Rows of a query that ends in IN, for all the keys."""
        every, rows = list(keys), []
        with self._explained():
            for start in range(0, len(every), _AT_A_TIME):
                some = every[start : start + _AT_A_TIME]
                marks = ", ".join("?" * len(some))
                rows += self._database.execute(f"{query} ({marks}) {order}", some).fetchall()
        return rows

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits at the end; on an error nothing is changed."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Serialises threads, and turns SQLite's errors into `RelandError` with the file and what to do."""
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise RelandError(
                    f"{self.path}: the journal cannot be used ({error}); if another process holds it, wait; "
                    "if the disk is full, make room; if the file is damaged, restore a copy, or name another "
                    "file in config.llm.journal (its answers would be asked, and paid, again)"
                ) from error


def _name_if_free(made: Path, path: Path) -> None:
    """Renames a file to its final name, unless another process was faster."""
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.rename(made, path)


def _asked(request: RequestRecord) -> tuple[str, ...]:
    prompt = encodable(request.prompt)
    return request.key, prompt_hash(prompt), request.model, request.settings, prompt


def _storable(value: object) -> object:
    return encodable(value) if isinstance(value, str) else value
