"""Notes of whose prompts were sent, and what a purge does with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax.config import PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import ACCEPTED, MALFORMED, Reception, request_record
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.providers.batch_state import BatchState
from reland_jax.pool.reading.answers import Answer
from reland_jax.pool_store.asked import Asked, forget_asked, note_asked, read_asked
from reland_jax.pool_store.purging import Purged, purge, verify
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError
from tests.pool_store.toys import CHANGE, content

NOTES = [Asked(f"user-{row}", f"{row:064x}", "asking/journal.sqlite") for row in range(3)]


def test_notes_are_kept_once_and_forgotten(tmp_path: Path) -> None:
    assert read_asked(tmp_path) == []
    note_asked(tmp_path, NOTES[:2])
    note_asked(tmp_path, [NOTES[1], NOTES[2], NOTES[2]])
    assert read_asked(tmp_path) == NOTES
    forget_asked(tmp_path, NOTES[:1])
    assert read_asked(tmp_path) == NOTES[1:]
    assert b"user-0" not in (tmp_path / "asking" / "asked.jsonl").read_bytes()


def test_a_note_that_was_cut_off_is_left_out_and_the_next_stands_alone(tmp_path: Path) -> None:
    note_asked(tmp_path, NOTES[:2])
    path = tmp_path / "asking" / "asked.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    assert read_asked(tmp_path) == NOTES[:1]
    note_asked(tmp_path, NOTES[2:])
    assert read_asked(tmp_path) == [NOTES[0], NOTES[2]]
    for damaged in ('{"user": 1}', '{"user_id": 1, "prompt_hash": "a", "journal": "b"}', "[1e400]"):
        path.write_text(damaged + "\n")
        with pytest.raises(RelandError, match="asked.jsonl:1: not a note of a prompt"):
            read_asked(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RelandError, match="asked.jsonl: cannot be read"):
        read_asked(tmp_path)


def counts(done: Purged) -> tuple[int, int, int, tuple[Path, ...]]:
    return len(done.versions), sum(done.prompts.values()), len(done.files), done.missing


def test_a_purge_finds_prompts_that_never_came_into_a_version(tmp_path: Path) -> None:
    """In the store's journal and in one elsewhere, usable or not, of a seed user or only asked about."""
    store, elsewhere = PoolStore(tmp_path / "store"), tmp_path / "elsewhere.sqlite"
    with store.locked():
        store.publish(content(), CHANGE)
    notes = []
    for path, kind in ((store.folder / "asking" / "journal.sqlite", MALFORMED), (elsewhere, ACCEPTED)):
        with Journal(path) as journal:
            for user in ("gone-1", "here-2"):
                prompt = f"bought by {user} in {path.name}"
                answer = Answer(f"about {user}", "m", 1, 1, "")
                record = request_record(prompt, PoolConfig())
                journal.record([Reception(record, kind, answer, f"raw {user}")])
                notes.append(Asked(user, prompt_hash(prompt), str(path)))
    with store.locked():
        note_asked(store.folder, notes)
        store.remember(users=["gone-1"])
        assert counts(purge(store)) == (0, 2, 0, ())
        assert counts(purge(store)) == (0, 0, 0, ()), "once more does no harm"
    for path in (*store.folder.rglob("*"), elsewhere):
        content_of = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".sqlite" or path.name == "asked.jsonl":
            assert b"gone-1" not in content_of and b"here-2" in content_of, path


def test_no_purge_where_nobody_knows_whom_a_prompt_shows(tmp_path: Path) -> None:
    """The notes were deleted or lost a line: no purge reports success, and `verify` tells it."""
    store = PoolStore(tmp_path / "store")
    journal_file = store.folder / "asking" / "journal.sqlite"
    with Journal(journal_file) as journal:
        for user in ("gone-1", "here-2"):
            answer = Answer(f"about {user}", "m", 1, 1, "")
            record = request_record(f"bought by {user}", PoolConfig())
            journal.record([Reception(record, ACCEPTED, answer, f"raw {user}")])
    prompts = {user: prompt_hash(f"bought by {user}") for user in ("gone-1", "here-2")}
    notes = [Asked(user, digest, str(journal_file)) for user, digest in prompts.items()]
    with store.locked():
        store.publish(content(), CHANGE)
        note_asked(store.folder, notes)
        store.remember(users=["gone-1"])
        whole = (store.folder / "asking" / "asked.jsonl").read_bytes()
        for damaged in (b"", whole.split(b"\n")[1] + b"\n"):
            (store.folder / "asking" / "asked.jsonl").write_bytes(damaged)
            with pytest.raises(RelandError, match="have no note.*restore the file"):
                purge(store)
            assert any("have no note" in problem for problem in verify(store))
            assert b"gone-1" in journal_file.read_bytes()
        (store.folder / "asking" / "asked.jsonl").write_bytes(whole)
        assert counts(purge(store)) == (0, 1, 0, ())
    assert b"gone-1" not in journal_file.read_bytes()


def test_a_journal_that_was_moved_is_told_and_purged_when_it_is_back(tmp_path: Path) -> None:
    store, place, moved = PoolStore(tmp_path / "store"), tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    prompt = "bought by gone-1"
    with Journal(place) as journal:
        record = request_record(prompt, PoolConfig())
        journal.record([Reception(record, ACCEPTED, Answer("about gone-1", "m", 1, 1, ""), "raw gone-1")])
    with store.locked():
        store.publish(content(), CHANGE)
        note_asked(store.folder, [Asked("gone-1", prompt_hash(prompt), str(place))])
    assert verify(store) == []
    place.rename(moved)
    assert verify(store) == [], "nobody was removed"
    with store.locked():
        store.remember(users=["gone-1"])
        assert counts(purge(store)) == (0, 0, 0, (place,))
    assert not place.exists() and b"gone-1" in moved.read_bytes()
    told = [problem for problem in verify(store) if str(place) in problem]
    assert len(told) == 1 and "restore it" in told[0]
    moved.rename(place)
    with store.locked():
        assert counts(purge(store)) == (0, 1, 0, ())
    assert b"gone-1" not in place.read_bytes()
    assert not any(str(place) in problem for problem in verify(store))


def test_no_purge_while_a_batch_is_under_way(tmp_path: Path) -> None:
    store = PoolStore(tmp_path)
    with store.locked():
        store.publish(content(), CHANGE)
        store.publish(content(seed=1), CHANGE)
        (tmp_path / "asking").mkdir()
        BatchState(tmp_path / "asking").plan(["{}\n"])
        with pytest.raises(RelandError, match="an open batch .*fetch them"):
            purge(store)
    assert store.numbers() == [1, 2]
