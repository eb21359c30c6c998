"""The items that a step 2 names, one by one."""

from __future__ import annotations

import pytest

from reland_jax.pool import phrases_of
from reland_jax.pool.reading.phrases import MOST_PHRASES


@pytest.mark.parametrize(
    ("step2", "expected"),
    [
        (
            "Recommended categories: Serums; Creams. Recommended items: OZ No. 7 Serum; Dr. Perfect 50% Gel.",
            ("OZ No. 7 Serum", "Dr. Perfect 50% Gel"),
        ),
        ("Recommended items like: A shoe; A sock; A shoe. Key words: red; blue.", ("A shoe", "A sock")),
        ("Recommended items:\n1. Heat (1995)\n2. *Alien*\n", ("Heat (1995)", "Alien")),
        ("Recommended items: tea, coffee", ("tea", "coffee")),
        ("Warm socks; thick gloves", ("Warm socks", "thick gloves")),
        ("", ()),
    ],
)
def test_the_items_of_a_step_2(step2: str, expected: tuple[str, ...]) -> None:
    assert phrases_of(step2) == expected


def test_most_phrases() -> None:
    assert len(phrases_of("Recommended items: " + "; ".join(map(str, range(100))))) == MOST_PHRASES
