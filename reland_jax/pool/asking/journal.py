"""The journal: every prompt that was sent and every answer received, in one SQLite file.

The key of a prompt is a hash of its text, the model and the sampling settings. Entries are on disk when
`record` returns, so a killed process loses no recorded answer, and the next one asks only prompts without an
accepted answer. One process at a time asks with a journal: it holds a lock of the operating system, which
ends with the process, and the others wait. Reading needs no lock. SQLite's WAL needs a local disk: keep the
journal off network file systems.
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

from reland_jax.files import Lock, aside_name
from reland_jax.pool.asking.money import Usage
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
from reland_jax.pool.contract import MayAsk
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.reading.answers import Answer
from reland_jax.strings import encodable
from reland_jax.types import RelandError

_BUSY_SECONDS = 60.0
_LOOK_SECONDS = 0.2
"""Interval at which the lock of another process is checked, in seconds."""
_AT_A_TIME = 500
_CHECKED_BYTES = 100_000_000
"""Size up to which a journal is checked whenever it is opened."""
_FAULTY = f"kind IN ('{MALFORMED}', '{CUT}')"
_NO_SPACE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})

_log = logging.getLogger(__name__)


class Journal:
    """An open journal; safe to use from several threads, and to read while another process asks.

    Used as a context manager it is closed at the end, which releases its lock.

    Attributes:
        path: the SQLite file; its prompts and answers are personal data, so only the user may read it.
        out_of_room: whether the disk was full, so that the reserved space had to be used.
    """

    def __init__(self, path: str | Path, *, may_ask: MayAsk | None = None) -> None:
        """Opens the journal, or creates it.

        Args:
            path: the file.
            may_ask: whether a prompt may be sent and its answer kept; raises `RelandError` to stop all
                asking. Callers check it by `allows`.

        Raises:
            RelandError: the file is damaged (see `check`), empty, not a journal, or of a newer version of
                this program; or its folder cannot be written.
        """
        self.path, self.out_of_room, self._may_ask = Path(path), False, may_ask
        self._threads, self._reserve = threading.RLock(), DiskReserve(self.path)
        place = self.path.resolve()  # one lock for all names of a journal
        self._lock = Lock(place.with_name(f"{place.name}.lock"))
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
        """Whether prompts can become forbidden while a job is running."""
        return self._may_ask is not None

    def allows(self, prompt: str) -> bool:
        """Whether a prompt may be sent and its answer kept: none of its users was removed in the meantime.

        Raises:
            RelandError: all asking has to stop.
        """
        return self._may_ask is None or self._may_ask(prompt)

    def close(self) -> None:
        """Releases the lock and closes the file; closing twice does nothing."""
        with self._explained():
            try:
                self.release()
            finally:
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
        rows = self._received(fields, f"kind = '{ACCEPTED}'", keys)
        return {key: Answer(*values) for key, *values in rows}

    def malformed(self, keys: Iterable[str]) -> dict[str, Malformed]:
        """Key -> the first malformed or cut answer, of keys that have one."""
        order = "ORDER BY id DESC"  # so that the first one is what stays in the dictionary
        rows = self._received("content, why, kind", f"{_FAULTY} AND NOT again", keys, order)
        return {key: Malformed(*values) for key, *values in rows}

    def quarantined(self, keys: Iterable[str]) -> dict[str, str]:
        """Key -> reason, of prompts whose answer was malformed again when they were asked again."""
        rows = dict(self._received("why", f"{_FAULTY} AND again", keys))
        answered = self.answers(rows)
        return {key: why for key, why in rows.items() if key not in answered}

    def lock(self) -> Iterator[float]:
        """Takes the lock of this journal; does nothing if this process holds it. Requests of an ended process
        without a recorded answer count as paid from then on.

                Yields:
                    Seconds to wait before the next try, as long as another process holds the lock.

                Raises:
                    RelandError: all asking has to stop (see `allows`); or the journal cannot be written.
        """
        told = False
        while not self._take_lock():
            if not told:
                told = True
                _log.warning(
                    "%s: in use by process %s; waiting until it has ended", self.path, self._lock.holder()
                )
            yield _LOOK_SECONDS
            self.allows("")

    def hold(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """The same for synchronous code: returns when this process holds the lock."""
        for seconds in self.lock():
            sleep(seconds)

    def release(self) -> None:
        """Releases the lock, if it is held; requests whose answers were not recorded count as paid."""
        with self._explained():
            if self._lock.is_held:
                try:
                    self._settle_lost()
                finally:
                    self._lock.release()

    def hold_room(self, size: int) -> None:
        """Reserves disk space, so that pending answers can be written even if the disk becomes full.

        Raises:
            RelandError: the disk has no room for them.
        """
        with self._explained():
            self._reserve.hold(size)

    def record(self, receptions: Sequence[Reception], sent: Sequence[Sent] = ()) -> None:
        """Writes responses and requests in one transaction, which is on disk when this returns.

        Args:
            receptions: responses.
            sent: requests that are about to be sent. If this process ends before their receptions are
                recorded, they count as paid, so that the budget holds. A request of 0 tokens cancels an
                earlier one, which was not sent or cost nothing.
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
        requests = [*(each.request for each in receptions), *(one.request for one in sent)]
        pending = [(one.request.key, *one[1:]) for one in sent if one.prompt_tokens or one.response_tokens]
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?)", map(_asked, requests))
            for reception in receptions:
                self._insert(reception)
            database.executemany("DELETE FROM pending WHERE key = ?", ((each.key,) for each in requests))
            database.executemany("INSERT INTO pending VALUES (?, ?, ?)", pending)

    def retire(self, keys: Iterable[str], before: str) -> int:
        """Retires accepted answers, so that their prompts are asked again; their cost stays recorded.

        Args:
            keys: of the prompts.
            before: ISO 8601 UTC time; only answers created before it are retired. An answer without a time of
                creation counts by its arrival.

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
        """Usage by model, including answers that were rejected or never arrived."""
        query = """SELECT asked.model, COUNT(*), SUM(paid_prompt), SUM(paid_response)
                   FROM received JOIN asked USING (key) GROUP BY asked.model ORDER BY asked.model"""
        with self._explained():
            return {model: Usage(*values) for model, *values in self._database.execute(query)}

    def purge(self, prompt_hashes: Iterable[str]) -> int:
        """Removes prompts and all their responses, without a trace in the file.

        Returns:
            Number of prompts removed; a prompt sent to two models counts twice.

        Raises:
            RelandError: another process is writing to the journal and may restore the prompts; or is reading
                it, so that its old pages remain.
        """
        with self._explained():
            was_held = self._lock.is_held
            if not self._take_lock():
                raise RelandError(
                    f"{self.path}: not purged: process {self._lock.holder()} is using this journal and "
                    "may write the prompts again; purge again when it has ended"
                )
            try:
                removed = self._remove(prompt_hashes)
                busy = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                if not was_held:
                    self.release()
        if busy:
            raise RelandError(
                f"{self.path}: the prompts are removed, but another process still reads the journal, so they "
                "remain in its -wal file; end that process and purge again"
            )
        return removed

    def _remove(self, prompt_hashes: Iterable[str]) -> int:
        """Deletes prompts and their responses and rewrites the file; returns the number of prompts."""
        hashes, keys = [(each,) for each in prompt_hashes], "(SELECT key FROM asked WHERE prompt_hash = ?)"
        with self._transaction() as database:
            for table in ("received", "pending"):
                database.executemany(f"DELETE FROM {table} WHERE key IN {keys}", hashes)
            removed = database.executemany("DELETE FROM asked WHERE prompt_hash = ?", hashes).rowcount
        database.execute("VACUUM")
        return max(removed, 0)

    def prompts(self) -> dict[str, int]:
        """Number of entries by prompt hash; a prompt sent to two models counts twice."""
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
            bring_up_to_date(database, version_of(database, self.path), self.path)
        if self.path.stat().st_size <= _CHECKED_BYTES:
            self.check()

    def _create(self) -> None:
        """Makes the file, readable only by its owner, if it does not exist.

        A journal gets its name only when it has tables, so an empty file was truncated by something else.
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
                f"{self.path}: the journal is empty (0 bytes), but this program never leaves it so. If it "
                "held answers, restore a copy; else remove the file, and every prompt is asked, and paid"
            )

    def _write_ahead(self) -> None:
        """Switches to WAL; SQLite fails instead of waiting if two processes do so at once."""
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

    def _take_lock(self) -> bool:
        """Takes the lock unless another process has it; returns whether this process holds it."""
        with self._explained():
            if self._lock.is_held or not self._lock.take():
                return self._lock.is_held
            try:
                self._settle_lost()
            except BaseException:
                self._lock.release()
                raise
            return True

    def _settle_lost(self) -> None:
        """Counts the pending requests of ended processes as paid; called under the lock."""
        query = "SELECT asked.*, prompt_tokens, response_tokens FROM pending JOIN asked USING (key)"
        with self._transaction() as database:
            for key, _, model, settings, prompt, *paid in database.execute(query).fetchall():
                request, nothing = RequestRecord(key, prompt, model, settings), Answer("", model, 0, 0, "")
                why = "the process that asked ended before the answer came"
                self._insert(Reception(request, UNANSWERED, nothing, "", why, (paid[0], paid[1])))
            database.execute("DELETE FROM pending")

    def _insert(self, reception: Reception) -> None:
        key, answer, kind = reception.request.key, reception.answer, reception.kind
        if kind == ACCEPTED and self.answers([key]):
            kind = SURPLUS
        values = (
            key, kind, *reception.paid, time.time(), *answer[1:], reception.why, answer.content,
            reception.messages, reception.raw, reception.again,
        )  # fmt: skip
        marks = ", ".join(f"?{place + 1}" for place in range(len(values)))
        self._database.execute(
            f"INSERT INTO received ({CHECKED}, checksum) VALUES ({marks}, checksum_of({marks}))",
            tuple(encodable(value) if isinstance(value, str) else value for value in values),
        )

    def _received(self, fields: str, which: str, keys: Iterable[str], order: str = "") -> list[Any]:
        """Key and fields of answers.

        Raises:
            RelandError: the checksum of one is wrong.
        """
        query = f"SELECT {SOUND}, id, key, {fields} FROM received WHERE {which} AND key IN"
        rows = self._select(query, keys, order)
        damaged = [row[1] for row in rows if not row[0]]
        if damaged:
            raise self._damaged(f"the checksum of answer {damaged[0]} is wrong")
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
        """A transaction, rolled back on an error."""
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
        with self._threads:
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
