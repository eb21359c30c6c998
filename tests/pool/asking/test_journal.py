"""The journal: nothing recorded is lost, one at a time holds it, and what is purged is gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking import journal as module
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import Usage
from reland_jax.pool.asking.records import (
    ACCEPTED,
    MALFORMED,
    UNANSWERED,
    UNREADABLE,
    Malformed,
    Reception,
    RequestRecord,
    Sent,
    journal_path,
    request_key,
    request_record,
)
from reland_jax.pool.asking.reserve import DiskReserve
from reland_jax.pool.asking.schema import CHECKED, install_functions
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.reading.answers import Answer
from reland_jax.types import RelandError

CONFIG = PoolConfig(model="m")
REQUESTS = [request_record(f"prompt {number}", CONFIG) for number in range(5)]
KEYS = [request.key for request in REQUESTS]
NOTHING = Answer("", "m", 0, 0, "")

HOLDER = """
import sys, time
from reland_jax.config import PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import Sent, request_record
journal = Journal(sys.argv[1])
journal.hold()
journal.record([], [Sent(request_record("prompt 0", PoolConfig(model="m")), 100, 20)])
print("holds", flush=True)
time.sleep(60)
"""


def accepted(request: RequestRecord, content: str = "Step 2: soap", created: str = "") -> Reception:
    answer = Answer(content, "m-1", 3, 4, created)
    return Reception(request, ACCEPTED, answer, f'{{"raw": "{content}"}}', paid=(3, 4))


def open_journal(folder: Path) -> Journal:
    return Journal(folder / "j.sqlite")


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock, has sent prompt 0, and then does nothing."""
    command = [sys.executable, "-c", HOLDER, str(folder / "j.sqlite")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "holds"
    return process


def test_the_key_depends_on_prompt_model_and_sampling_alone() -> None:
    key = request_key("a", PoolConfig())
    assert len(key) == 64 and request_key("a", PoolConfig(provider="openai", history=3, path="x")) == key
    others = [PoolConfig(model="n"), PoolConfig(max_tokens=7), PoolConfig(temperature=0.5)]
    assert len({key, request_key("b", PoolConfig()), *(request_key("a", other) for other in others)}) == 5


def test_where_the_journal_is(tmp_path: Path) -> None:
    assert journal_path(LLMConfig(), tmp_path) == tmp_path / "journal.sqlite"
    assert journal_path(LLMConfig(journal="x/y.db"), tmp_path) == Path("x/y.db")


def test_answers_survive_closing(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.record([accepted(REQUESTS[0]), accepted(REQUESTS[1], "Step 2: \ud800 öl")])
    with open_journal(tmp_path) as journal:
        found = journal.answers(KEYS)
        assert found == {KEYS[0]: Answer("Step 2: soap", "m-1", 3, 4, ""), KEYS[1]: found[KEYS[1]]}
        assert found[KEYS[1]].content == "Step 2: ? öl"
        assert journal.usage() == {"m": Usage(2, 6, 8)}
    if os.name == "posix":
        assert (tmp_path / "j.sqlite").stat().st_mode & 0o077 == 0


def test_every_raw_response_is_kept_and_counted(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        malformed = Reception(REQUESTS[0], MALFORMED, Answer("no", "m", 1, 1, ""), "raw-1", "bad", (1, 1))
        journal.record([malformed, Reception(REQUESTS[0], UNREADABLE, NOTHING, "raw-2", "not JSON", (9, 9))])
        assert journal.malformed(KEYS) == {KEYS[0]: Malformed("no", "bad")}
        assert journal.answers(KEYS) == journal.quarantined(KEYS) == {}
        journal.record([malformed._replace(again=True, why="still bad", raw="raw-3")])
        assert journal.quarantined(KEYS) == {KEYS[0]: "still bad"}
        assert journal.usage() == {"m": Usage(3, 11, 11)}
        journal.record([malformed._replace(request=REQUESTS[1], again=True, raw="raw-4")])
        assert journal.malformed(KEYS).keys() == {KEYS[0]}, "a second try is no first one"
    rows = sqlite3.connect(tmp_path / "j.sqlite").execute("SELECT raw FROM received ORDER BY id").fetchall()
    assert [row[0] for row in rows] == ["raw-1", "raw-2", "raw-3", "raw-4"]


def test_the_first_accepted_answer_stays(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.record([accepted(REQUESTS[0], "first")])
        journal.record([accepted(REQUESTS[0], "second")])
        assert journal.answers(KEYS)[KEYS[0]].content == "first"
        assert journal.usage()["m"].requests == 2


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        bad = accepted(REQUESTS[1])._replace(raw=None)  # type: ignore[arg-type]
        with pytest.raises(RelandError, match="j.sqlite: the journal cannot be used"):
            journal.record([accepted(REQUESTS[0]), bad])
        assert journal.answers(KEYS) == {}
        journal.record([accepted(REQUESTS[0])])
        assert set(journal.answers(KEYS)) == {KEYS[0]}


def is_free(journal: Journal) -> bool:
    """Whether the lock can be taken at once; then it is held."""
    return next(journal.lock(), None) is None


def test_one_at_a_time_holds_the_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "same.sqlite").symlink_to("j.sqlite")
    with open_journal(tmp_path) as one, Journal(tmp_path / "same.sqlite") as other:
        one.hold()
        one.hold()
        assert not is_free(other) and f"in use by process {os.getpid()}; waiting" in caplog.text
        other.record([accepted(REQUESTS[4])])
        assert set(one.answers(KEYS)) == {KEYS[4]}, "reading and writing need no lock"
        one.release()
        one.release()
        assert is_free(other) and not is_free(one)
        other.close()
        assert one.purge([]) == 0
        with open_journal(tmp_path) as third:
            assert is_free(third), "a purge holds the lock no longer than it takes"
        assert is_free(one)


def test_many_threads_take_turns(tmp_path: Path) -> None:
    at_work: list[int] = []
    most: list[int] = []

    def take(number: int) -> None:
        with open_journal(tmp_path) as journal:
            journal.hold(lambda seconds: time.sleep(0.01))
            at_work.append(number)
            time.sleep(0.02)
            most.append(len(at_work))
            at_work.remove(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_the_lock_of_a_living_process_holds_and_that_of_a_killed_one_is_free(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with open_journal(tmp_path) as journal:
            assert not is_free(journal) and journal.usage() == {}
            with pytest.raises(RelandError, match=f"not purged: process {process.pid} is using"):
                journal.purge([])
            process.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
            assert is_free(journal)
            # What it had sent may be billed.
            assert journal.usage() == {"m": Usage(1, 100, 20)}
    finally:
        process.kill()
        process.wait()


def test_who_waits_looks_whether_anything_may_still_be_asked(tmp_path: Path) -> None:
    def forbidden(prompt: str) -> bool:
        raise RelandError("asking stops")

    with open_journal(tmp_path) as one, Journal(tmp_path / "j.sqlite", may_ask=forbidden) as other:
        one.hold()
        with pytest.raises(RelandError, match="asking stops"):
            other.hold(lambda seconds: None)


def test_sent_requests_count_as_paid_unless_their_end_is_recorded(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.hold()
        journal.record([], [Sent(request, 10, 5) for request in REQUESTS])
        journal.record([accepted(REQUESTS[0])])
        journal.record([], [Sent(REQUESTS[1], 0, 0)])
        journal.record([Reception(REQUESTS[2], UNANSWERED, NOTHING, "", "time-out", (10, 5))])
        assert journal.usage() == {"m": Usage(2, 3 + 10, 4 + 5)}
    with open_journal(tmp_path) as journal:
        assert journal.usage() == {"m": Usage(4, 33, 19)}
        journal.hold()
        assert journal.usage() == {"m": Usage(4, 33, 19)}, "once"


def test_retired_answers_are_asked_again_and_stay_paid(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        old, new = "2024-01-01T00:00:00+00:00", "2025-06-01T00:00:00+00:00"
        journal.record([accepted(REQUESTS[0], created=old), accepted(REQUESTS[1], created=new)])
        malformed = Reception(REQUESTS[0], MALFORMED, NOTHING, "raw", "bad", (3, 4))
        journal.record([malformed, accepted(REQUESTS[2], created="")])
        assert journal.retire(KEYS, "2025-01-01") == 1
        assert set(journal.answers(KEYS)) == set(KEYS[1:3])
        assert journal.malformed(KEYS) == {}
        assert journal.retire(KEYS, "9999") == 2 and journal.usage() == {"m": Usage(4, 12, 16)}


def test_nothing_remains_of_what_is_purged(tmp_path: Path) -> None:
    secret, kept = request_record("SECRET-PROMPT" * 50, CONFIG), REQUESTS[0]
    with open_journal(tmp_path) as journal:
        journal.hold()
        malformed = Answer("SECRET-MALFORMED", "m", 1, 1, "")
        journal.record([
            accepted(secret, "SECRET-ANSWER" * 500), accepted(kept),
            Reception(secret, MALFORMED, malformed, "SECRET-RAW" * 900, "SECRET-WHY",
                      again=True, messages="SECRET-CHAT"),
        ])  # fmt: skip
        journal.record([], [Sent(secret, 1, 1), Sent(kept, 1, 1)])
        assert any(b"SECRET" in path.read_bytes() for path in tmp_path.iterdir())
        assert journal.purge([prompt_hash(secret.prompt), "0" * 64]) == 1
        for path in tmp_path.iterdir():
            assert b"SECRET" not in path.read_bytes(), path.name
        assert set(journal.answers([secret.key, kept.key])) == {kept.key}
        assert journal.purge([]) == 0
        assert journal._database.execute("SELECT key FROM pending").fetchall() == [(kept.key,)]


def test_faulty_files(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"this is no database, only some text that is long enough to be looked at" * 20)
    with pytest.raises(RelandError, match="j.sqlite: the journal cannot be used .*not a database"):
        Journal(path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (a)")
    with pytest.raises(RelandError, match="an SQLite file, but not a journal; change config.llm.journal"):
        Journal(path)
    newer = tmp_path / "newer.sqlite"
    Journal(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(RelandError, match="a journal of version 9, written by a newer program"):
        Journal(newer)


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.record([accepted(request, "x" * 3000) for request in REQUESTS])
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(RelandError, match="j.sqlite: the journal"):
        Journal(path)


def test_a_large_journal_is_checked_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of answers is damaged: opening does not read it where the file is large, `check` does."""
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.record([accepted(request, "x" * 3000) for request in REQUESTS])
        journal.check()
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(RelandError, match="j.sqlite: the journal"):
        Journal(path)
    monkeypatch.setattr(module, "_CHECKED_BYTES", 4096)
    with Journal(path) as journal, pytest.raises(RelandError, match="j.sqlite: the journal"):
        journal.check()


@pytest.mark.parametrize("column", ["content", "model", "created", "key", "kind", "paid_prompt"])
def test_an_answer_that_was_changed_is_never_used(tmp_path: Path, column: str) -> None:
    """SQLite sees nothing wrong with a bit that flips within a text."""
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.record([accepted(request) for request in REQUESTS])
    changed = {"key": f"'{KEYS[0][:-1]}x'", "kind": "'acceptee'", "paid_prompt": "2"}.get(column, "'x'")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"UPDATE received SET {column} = {changed} WHERE key = ?", (KEYS[2],))
    with pytest.raises(RelandError, match="j.sqlite: the journal is damaged .the checksum of answer 3"):
        Journal(path)


def test_an_answer_is_checked_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a journal too large to be read through when it is opened, and bit by bit."""
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        bad = Reception(REQUESTS[1], MALFORMED, Answer("MALFORMED", "m", 1, 1, ""), "raw", "bad", (1, 1))
        journal.record([accepted(REQUESTS[0], "Step 2: UNIQUE"), bad])
        twice = bad._replace(request=REQUESTS[2], answer=Answer("TWICE", "m", 1, 1, ""))
        journal.record([twice, twice._replace(again=True, messages="[again]")])
    whole = path.read_bytes()
    monkeypatch.setattr(module, "_CHECKED_BYTES", 0)
    texts = {b"Step 2: UNIQUE": "answers", b"MALFORMED": "malformed", b"[again]": "quarantined"}
    for text, read in texts.items():
        damaged = bytearray(whole)
        damaged[whole.index(text)] ^= 1
        path.write_bytes(damaged)
        with Journal(path) as journal, pytest.raises(RelandError, match="the journal is damaged"):
            getattr(journal, read)(KEYS)


def test_prompts_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.record([accepted(REQUESTS[0])])
    for change, fault in (
        ("prompt = 'another'", "the hash of prompt 1 is wrong"),
        ("key = 'x'", "answer 1 belongs to no prompt"),
    ):
        content = path.read_bytes()
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(f"UPDATE asked SET {change}")
        with pytest.raises(RelandError, match=fault):
            Journal(path)
        path.write_bytes(content)


def test_retired_answers_are_sound(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.record([accepted(REQUESTS[0])])
        assert journal.retire(KEYS, "9999") == 1
        journal.check()


def older(path: Path, version: int, beat: float = 0.0) -> sqlite3.Connection:
    """Turns a journal into one of an older version, with what its killed process had under way."""
    database = sqlite3.connect(path, isolation_level=None)
    install_functions(database)
    columns = CHECKED.removesuffix(", again")
    for statement in (
        "ALTER TABLE received DROP COLUMN again", "DROP TABLE pending",
        f"UPDATE received SET checksum = checksum_of({columns})",
        "CREATE TABLE owners (id TEXT, machine TEXT, pid INTEGER, started TEXT, alone INTEGER, beat REAL,"
        " lease REAL)",
        "CREATE TABLE claims (key TEXT, owner TEXT, sent_prompt INTEGER, sent_response INTEGER)",
        f"INSERT INTO owners VALUES ('a', 'host', 77, '', 0, {beat}, 180)",
        f"INSERT INTO claims VALUES ('{KEYS[0]}', 'a', 0, 0), ('{KEYS[4]}', 'a', 100, 20)",
        f"PRAGMA user_version = {version}",
    ):  # fmt: skip
        database.execute(statement)
    if version == 1:
        database.execute("ALTER TABLE received DROP COLUMN checksum")
        database.execute("ALTER TABLE owners DROP COLUMN lease")
    return database


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_journal_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "j.sqlite"
    bad = Reception(REQUESTS[3], MALFORMED, Answer("no", "m", 1, 1, ""), "raw", "bad", (3, 4))
    with Journal(path) as journal:
        journal.record([*map(accepted, REQUESTS[:3]), bad, bad._replace(again=True, messages="[again]")])
        journal.record([], [Sent(REQUESTS[4], 1, 1)])
        before = journal.answers(KEYS)
    older(path, version).close()
    with Journal(path) as journal:
        assert journal.answers(KEYS) == before and journal.usage() == {"m": Usage(5, 15, 20)}
        assert set(journal.malformed(KEYS)) == set(journal.quarantined(KEYS)) == {KEYS[3]}
        journal.check()
        journal.hold()
        assert journal.usage() == {"m": Usage(6, 115, 40)}


def test_an_older_journal_that_is_damaged_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.record([accepted(request) for request in REQUESTS])
    with closing(older(path, 2)) as database:
        database.execute("UPDATE received SET content = 'x' WHERE id = 2")
    for _ in range(2):
        with pytest.raises(RelandError, match="the journal is damaged .the checksum of answer 2 is wrong"):
            Journal(path)


def test_an_older_journal_at_which_an_older_program_works_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    older(path, 2, beat=time.time() - 100).close()
    with pytest.raises(RelandError, match="process 77, of an older version of this program, was using"):
        Journal(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT COUNT(*) FROM claims").fetchone() == (2,)


def test_an_emptied_journal_is_refused(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.record([accepted(REQUESTS[0])])
    (tmp_path / "j.sqlite").write_bytes(b"")
    with pytest.raises(RelandError, match="j.sqlite: the journal is empty .0 bytes.*paid"):
        open_journal(tmp_path)
    assert (tmp_path / "j.sqlite").read_bytes() == b""


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RelandError, match="file/j.sqlite: the journal cannot be used .*(exists|directory)"):
        Journal(tmp_path / "file" / "j.sqlite")


def test_answers_under_way_are_written_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound on pages raises the very error of a full disk."""
    with open_journal(tmp_path) as journal:
        journal.hold_room(1 << 16)
        room = next(tmp_path.glob(".*room*"))
        assert room.stat().st_blocks * 512 >= 1 << 16
        pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        release = DiskReserve.release

        def released(reserve: DiskReserve) -> bool:
            journal._database.execute(f"PRAGMA max_page_count = {pages + 16}")
            return release(reserve)

        monkeypatch.setattr(DiskReserve, "release", released)
        assert not journal.out_of_room
        journal.record([accepted(REQUESTS[0], "x" * 9000)])
        assert journal.out_of_room and set(journal.answers(KEYS)) == {KEYS[0]} and not room.exists()
        with pytest.raises(RelandError, match="if the disk is full, make room"):
            journal.record([accepted(REQUESTS[1], "x" * 90_000)])


def test_without_room_for_answers_nothing_begins(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        with pytest.raises(RelandError, match="the journal cannot be used"):
            journal.hold_room(1 << 60)
        assert not list(tmp_path.glob(".*room*"))
