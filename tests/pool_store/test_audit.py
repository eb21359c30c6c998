"""The audit log hangs together: what is edited, lost or exchanged in it is noticed."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reland_jax.pool_store import audit, version_files
from reland_jax.pool_store.lists import read_patterns, read_removals
from reland_jax.pool_store.purging import verify
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError
from tests.pool_store.toys import CHANGE, content


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_WAIT_SECONDS", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> PoolStore:
    """Three versions, and entries on both lists."""
    store = PoolStore(tmp_path / "store")
    for seed in range(3):
        with store.locked():
            store.publish(content(seed=seed), CHANGE)
            store.remember(users=[f"gone-{seed}"], patterns=[f"spam{seed}"])
    return store


def lines_of(store: PoolStore) -> list[bytes]:
    return (store.folder / "audit.jsonl").read_bytes().splitlines(keepends=True)


def is_refused(store: PoolStore, match: str | None = None) -> None:
    """Reading the lists, changing the store, and verify: all say so, and no version is lost."""
    for use in (store.audit, store.locked().__enter__, lambda: read_removals(store.folder), store.state):
        with pytest.raises(RelandError, match=match):
            use()
    assert verify(store) and store.numbers() == [1, 2, 3]


MARK_WITHOUT_END = ', "format_version": 1, "audit": {"lines": 1e400, "sha256": ""}}'
Damage = Callable[[list[bytes]], list[bytes]]
DAMAGES: dict[str, Damage] = {
    "the first line lost": lambda lines: lines[1:],
    "a line in the middle lost": lambda lines: [*lines[:2], *lines[3:]],
    "the last line lost": lambda lines: lines[:-1],
    "the last two lost": lambda lines: lines[:-2],
    "all lost": lambda lines: [],
    "two exchanged": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "one twice": lambda lines: [*lines, lines[-1]],
    "another why": lambda lines: [lines[0].replace(b"a test", b"b test"), *lines[1:]],
    "another why in the last": lambda lines: [*lines[:-1], lines[-1].replace(b'"when"', b'"whem"')],
    "a blank more": lambda lines: [lines[0].replace(b": ", b":  ", 1), *lines[1:]],
    "no link": lambda lines: [*lines[:-1], lines[-1].replace(b'"previous"', b'"previouz"')],
    "a number without end": lambda lines: [*lines[:-1], b'{"action": "build", "version": 1e400}\n'],
    "no JSON": lambda lines: [*lines[:3], b"\xff\xfe\n", *lines[3:]],
    "cut off": lambda lines: [*lines[:-1], lines[-1][:-9]],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_to_the_log_is_refused(store: PoolStore, name: str) -> None:
    path = store.folder / "audit.jsonl"
    path.write_bytes(b"".join(DAMAGES[name](lines_of(store))))
    is_refused(store, "audit.jsonl.*python -m experiments.pool seal")


def test_a_log_that_is_missing_is_refused(store: PoolStore) -> None:
    (store.folder / "audit.jsonl").unlink()
    is_refused(store, "audit.jsonl: lines are missing")


def test_every_flipped_byte_of_the_log_and_its_mark_is_noticed(store: PoolStore) -> None:
    before = store.audit()
    for name in ("audit.jsonl", "store.json"):
        path = store.folder / name
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                assert store.audit() == before and name == "store.json", "no edit of a blank, or of a number"
            except RelandError:
                continue
        path.write_bytes(whole)
    assert verify(store) == []


def test_an_older_copy_of_log_and_lists_is_noticed(store: PoolStore) -> None:
    """Both fit each other, and the mark tells of more."""
    shutil.copytree(store.folder, store.folder.with_name("copy"))
    with store.locked():
        store.remember(users=["one more"])
    for name in ("audit.jsonl", "removed.json"):
        shutil.copy(store.folder.with_name("copy") / name, store.folder / name)
    is_refused(store, "audit.jsonl: lines are missing")


def test_a_mark_that_is_missing_or_of_another_program_is_refused(store: PoolStore) -> None:
    path = store.folder / "store.json"
    path.write_text('{"format": "somebody else"}')
    is_refused(store, "store.json: not the mark of a pool store")
    path.write_text(path.read_text().replace("somebody else", audit.FORMAT)[:-1] + MARK_WITHOUT_END)
    is_refused(store, "store.json: not the mark of a pool store")
    path.unlink()
    is_refused(store, "store.json: missing")
    path.write_text("{")
    store.seal({"who": "ann", "why": "damaged"})
    assert verify(store) == [] and store.numbers() == [1, 2, 3]


def test_a_process_that_was_killed_before_the_mark_does_no_harm(store: PoolStore) -> None:
    mark = (store.folder / "store.json").read_bytes()
    with store.locked():
        store.note("purged", {"purged": True})
    (store.folder / "store.json").write_bytes(mark)
    assert verify(store) == []
    with store.locked():
        pass
    assert (store.folder / "store.json").read_bytes() != mark and verify(store) == []


def test_what_is_lost_for_good_can_be_accepted_on_record(store: PoolStore) -> None:
    (store.folder / "removed.json").unlink()
    path = store.folder / "audit.jsonl"
    path.write_bytes(b"".join(lines_of(store)[2:]))
    is_refused(store)
    store.seal({"who": "ann", "why": "disk broken"})
    assert verify(store) == [] and not read_removals(store.folder).users
    assert read_patterns(store.folder) == ("spam0", "spam1", "spam2")
    with store.locked():
        assert store.publish(content(), CHANGE) == 4
        store.remember(users=["gone-1"])
    assert store.numbers() == [1, 2, 3, 4] and verify(store) == []
    path.write_bytes(path.read_bytes().replace(b"spam", b"spim", 1).replace(b"ann", b"bob", 1))
    with pytest.raises(RelandError, match="edited or lost"):
        store.audit()


def test_a_damaged_list_is_not_accepted(store: PoolStore) -> None:
    (store.folder / "removed.json").write_text("{")
    before = lines_of(store)
    with pytest.raises(RelandError, match="removed.json: cannot be read"):
        store.seal({"who": "ann", "why": "disk broken"})
    assert lines_of(store) == before
    with pytest.raises(RelandError, match="not a pool store"):
        PoolStore(store.folder.with_name("nothing")).seal({})


def as_it_was(store: PoolStore) -> None:
    """Makes a store what an earlier version of this program left: no mark, no links, open files."""
    (store.folder / "store.json").unlink()
    entries = [json.loads(line) for line in lines_of(store)]
    kept = [_without(entry) for entry in entries if "version" in entry]
    text = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in kept)
    (store.folder / "audit.jsonl").write_text(text)
    for number in store.numbers():
        path = store.path_of(number) / "version.json"
        record = json.loads(path.read_text())
        record = record | {"format_version": 2, "change": _without(record["change"])}
        record["sha256"] = version_files._own_checksum(record)
        path.write_text(json.dumps(record))
    for path in store.folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _without(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("previous", "lists")}


def test_a_store_of_an_earlier_program_is_taken_over_once(
    store: PoolStore, capsys: pytest.CaptureFixture[str]
) -> None:
    as_it_was(store)
    assert verify(store) == [] and store.current() == 3
    assert read_removals(store.folder).left(["gone-0", "gone-2", "other"]).tolist() == [True, True, False]
    assert capsys.readouterr().err == "", "reading changes nothing"
    with store.locked():
        store.publish(content(seed=3), CHANGE)
    assert "upgraded from an earlier version of this program" in capsys.readouterr().err
    with store.locked():
        store.publish(content(seed=4), CHANGE)
    assert capsys.readouterr().err == "" and verify(store) == []
    assert store.numbers() == [1, 2, 3, 4, 5] and not store.unfinished_purge()
    for path in store.folder.rglob("*"):
        assert path.name in ("versions", "behaviour") or not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    (store.folder / "removed.json").unlink()
    with pytest.raises(RelandError, match="removed.json: missing"):
        read_removals(store.folder)


@pytest.mark.parametrize("name", ["removed.json", "blocked.json"])
def test_a_list_that_an_earlier_program_wrote_and_that_is_missing_is_noticed(
    store: PoolStore, name: str
) -> None:
    """Its log has hashes of the removed, and the patterns."""
    with store.locked():
        removals = read_removals(store.folder)
        store.publish(
            content(), {**CHANGE, "action": "remove", "arguments": {"user": [removals.digest("gone-1")]}}
        )
        store.publish(content(), {**CHANGE, "action": "block", "arguments": {"pattern": ["spam1"]}})
    as_it_was(store)
    assert verify(store) == []
    (store.folder / name).unlink()
    for use in (store.state, store.locked().__enter__):
        with pytest.raises(RelandError, match=f"{name}: lacks 1 entries that are in audit.jsonl"):
            use()
    assert any("lacks 1 entries" in problem for problem in verify(store))
    for action, where in (("readmit", "user"), ("unblock", "pattern")):
        entry = {
            **CHANGE,
            "version": 6,
            "action": action,
            "arguments": {where: [removals.digest("gone-1"), "spam1"]},
        }
        with (store.folder / "audit.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
    store.state()


def test_a_purge_that_an_earlier_program_left_unfinished_is_known(store: PoolStore) -> None:
    with store.locked():
        store.publish(content(), {**CHANGE, "purging": True})
    as_it_was(store)
    for _ in range(2):
        assert store.unfinished_purge()
        with store.locked():
            pass
    with store.locked():
        store.note("purged", {"purged": True})
    assert not store.unfinished_purge()
