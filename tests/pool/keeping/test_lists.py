"""The lists of a store: nobody comes back, no id is readable, and a damaged list stops everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reland_jax.pool.keeping.lists import (
    Removals,
    allowed,
    compiled,
    read_patterns,
    read_removals,
    write_patterns,
    write_removals,
)
from reland_jax.types import RelandError
from tests.pool.store_toys import rationale


def test_removals_are_found_again_and_not_readable(tmp_path: Path) -> None:
    write_removals(tmp_path, read_removals(tmp_path).plus(users=["Zoë Müller", "7"], seeds=["anton"]))
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
    write_patterns(tmp_path, ["b", "ä+"])
    assert read_patterns(tmp_path) == ("b", "ä+")


@pytest.mark.parametrize("read", [read_removals, read_patterns])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format_version": 1', "cannot be read .*restore it from a copy"),
        ('{"format_version": 2}', "format version 2, this program reads 1"),
        ("[]", "format version None"),
        ('{"format_version": 1}', "lacks"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, read: object, content: str, message: str) -> None:
    for name in ("removed.json", "blocked.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(RelandError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", r"--pattern='\(' is not a regular"), ("a*", "finds the empty text"), ("", "finds the empty text")],
)
def test_patterns_that_are_mistakes(pattern: str, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        compiled(pattern)


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


def test_lists_are_plain_json(tmp_path: Path) -> None:
    write_patterns(tmp_path, ["x"])
    assert json.loads((tmp_path / "blocked.json").read_text()) == {"format_version": 1, "patterns": ["x"]}
