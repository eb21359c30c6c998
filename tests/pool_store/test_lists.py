"""The lists of a store: nobody comes back, no id is readable, and a lost or damaged list stops everything."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from reland_jax.pool_store import audit
from reland_jax.pool_store.lists import (
    NEXT_FILE,
    PATTERNS_FILE,
    REMOVALS_FILE,
    Removals,
    allowed,
    read_patterns,
    read_removals,
)
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError
from tests.pool_store.toys import CHANGE, content, rationale


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_WAIT_SECONDS", 0.0)


def listed(folder: Path, **entries: list[str]) -> PoolStore:
    """A store with a version and entries on its lists."""
    store = PoolStore(folder)
    with store.locked():
        if store.current() is None:
            store.publish(content(), CHANGE)
        store.remember(**entries)
    return store


def test_removals_are_found_again_and_not_readable(tmp_path: Path) -> None:
    listed(tmp_path, users=["Zoë Müller", "7"], seeds=["anton"])
    text = (tmp_path / "removed.json").read_bytes()
    assert b"anton" not in text and b"ller" not in text and b'"7"' not in text
    found = read_removals(tmp_path)
    assert found.left(["7", "anton", "Zoë Müller", "77"]).tolist() == [True, False, True, False]
    assert found.barred(["7", "anton", "77"]).tolist() == [True, True, False]


def test_two_stores_hash_differently(tmp_path: Path) -> None:
    first, second = (read_removals(tmp_path / name).plus(users=["7"]) for name in "ab")
    assert first.users != second.users


def test_nobody_is_barred_by_an_empty_list() -> None:
    assert not Removals("00", frozenset(), frozenset()).barred(["a", "b"]).any()


def test_patterns_keep_their_order(tmp_path: Path) -> None:
    assert read_patterns(tmp_path) == ()
    listed(tmp_path, patterns=["b", "ä+", "b"])
    listed(tmp_path, patterns=["a", "b"])
    assert read_patterns(tmp_path) == ("b", "ä+", "a")


@pytest.mark.parametrize("read", [read_removals, read_patterns])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format_version": 1', "cannot be read .*restore it from a copy"),
        ('{"format_version": 2}', "format version 2, this program reads 1"),
        ("[]", "format version None"),
        ("[" * 100_000, "cannot be read"),
        ('{"format_version": 1}', "lacks"),
    ],
)
def test_a_damaged_list_without_an_audit_log_is_refused(
    tmp_path: Path, read: Callable[[Path], object], content: str, message: str
) -> None:
    for name in ("removed.json", "blocked.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(RelandError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("name", [REMOVALS_FILE, PATTERNS_FILE])
def test_a_list_that_is_not_the_one_of_the_audit_log_is_refused(tmp_path: Path, name: str) -> None:
    """Deleted, emptied, each of its bits flipped, exchanged for an older one or for that of another store."""
    store = listed(tmp_path / "store", users=["bob"], patterns=["guns?"])
    other = listed(tmp_path / "other", users=["bob"], patterns=["knives"]).folder / name
    older = (store.folder / name).read_bytes()
    listed(store.folder, users=["ann"], patterns=["spam"])
    path = store.folder / name
    whole = path.read_bytes()
    flipped = [
        whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), 7)
    ]
    for damage in (None, b"", older, other.read_bytes(), *flipped):
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        for use in (lambda: read_removals(store.folder), lambda: read_patterns(store.folder), store.state):
            with pytest.raises(RelandError, match=f"{name}: (missing|edited|cannot be read).*pool seal"):
                use()
    path.write_bytes(whole)
    assert read_patterns(store.folder) == ("guns?", "spam")


def test_a_list_that_nobody_made_here_is_refused(tmp_path: Path) -> None:
    store = PoolStore(tmp_path)
    with store.locked():
        store.publish(content(), CHANGE)
    (tmp_path / REMOVALS_FILE).write_text('{"format_version": 1, "salt": "00", "users": [], "seeds": []}')
    with pytest.raises(RelandError, match="removed.json: not made here"):
        read_removals(tmp_path)


def test_a_change_of_lists_that_was_killed_is_whole_or_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the audit log has it, nothing has happened; after that, readers have it."""
    store = listed(tmp_path, users=["bob"])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for where, expected in (("append", False), ("finish_lists", True)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"reland_jax.pool_store.lists.{where}", killed)
            listed(tmp_path, users=[where])
        assert (tmp_path / NEXT_FILE).exists()
        assert read_removals(tmp_path).left(["bob", where]).tolist() == [True, expected]
        with store.locked():
            assert not (tmp_path / NEXT_FILE).exists()
        assert read_removals(tmp_path).left(["bob", where]).tolist() == [True, expected]


def test_what_is_allowed(tmp_path: Path) -> None:
    """By user, by step 1, by step 2, by the raw answer; case does not count."""
    fields = [{}, {"step1": "A GUN"}, {"step2": "guns"}, {"response": "gun?"}, {}, {}]
    texts = [rationale(row, **changes) for row, changes in enumerate(fields)]
    removals = read_removals(tmp_path).plus(users=["u4"])
    found = allowed(texts, [f"u{row}" for row in range(6)], removals, [r"\bguns?\b"])
    assert found.tolist() == [True, False, False, False, False, True]


def test_a_user_comes_off_both_lists(tmp_path: Path) -> None:
    removals = read_removals(tmp_path).plus(users=["a", "b"], seeds=["a", "c"])
    found = removals.minus(["a", "never there"])
    assert found.left(["a", "b", "c"]).tolist() == [False, True, False]
    assert found.barred(["a", "b", "c"]).tolist() == [False, True, True]


def test_lists_are_plain_json_for_their_owner_alone(tmp_path: Path) -> None:
    listed(tmp_path, patterns=["x"], users=["bob"])
    assert json.loads((tmp_path / "blocked.json").read_text()) == {"format_version": 1, "patterns": ["x"]}
    for name in (REMOVALS_FILE, PATTERNS_FILE, audit.AUDIT_FILE, audit.MARK_FILE):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
