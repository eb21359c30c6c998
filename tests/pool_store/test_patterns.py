"""Patterns of people: searched for in all texts, refused where they are mistakes, and never for ever."""

from __future__ import annotations

import time

import numpy as np
import pytest

from reland_jax.pool_store import patterns
from reland_jax.pool_store.patterns import check_patterns, found_in
from reland_jax.types import RelandError
from tests.pool_store.toys import rationale


def test_what_is_found() -> None:
    """In step 1, step 2 or the raw answer; case does not count, other letters do not matter to the search."""
    fields = [{}, {"step1": "A GÜN"}, {"step2": "gün\nand"}, {"response": "\0gün?"}, {"step1": "g\ud800"}]
    texts = [rationale(row, **changes) for row, changes in enumerate(fields)]
    assert found_in(texts, [r"\bgün\b"]).tolist() == [False, True, True, True, False]
    assert found_in(texts, ["gün", "thing0$"]).tolist() == [True, True, True, True, False]
    assert found_in(texts, []).tolist() == [False] * 5 and found_in([], ["x"]).dtype == np.bool_


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"--pattern='\(' is not a regular"),
        ("a{99999999999999}", "is not a regular"),
        ("a*", "matches the empty text"),
        ("", "matches the empty text"),
    ],
)
def test_patterns_that_are_mistakes(pattern: str, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        check_patterns(["fine", pattern])


ENDLESS = [
    r"(\w+\s?)+!",
    r"(a|a)*$x",
    "((((a?){99}){99}){99}){99}b",
    r"(x+x+)+y",
    r"^(([a-z])+.)+[0-9]$",
]


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_takes_too_long_is_given_up(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    texts = [
        rationale(0, step1="a" * 99, response="x" * 200, step2="shopping for one thing and another " * 9)
    ]
    began = time.monotonic()
    with pytest.raises(RelandError, match="takes (longer than 0.101 s|too much memory) to search for"):
        found_in(texts, ["thing0", pattern], "--match")
    assert time.monotonic() - began < 20, "a bound in processor time; the machine may be busy"
    assert found_in(texts, ["shopping"]).tolist() == [True]


def test_many_texts_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1.0)
    texts = [rationale(row) for row in range(5000)]
    assert found_in(texts, ["thing7$"]).sum() == 1
