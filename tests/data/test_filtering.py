"""k-core and duplicates against plain-Python brute force."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.data.filtering import first_of_duplicates, k_core

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)


def _brute_force_core(pairs: list[tuple[int, int]], k: int) -> list[int]:
    """Takes away one row of a too-rare user or item at a time."""
    rows = list(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in rows)
        items = Counter(pairs[row][1] for row in rows)
        bad = [row for row in rows if users[pairs[row][0]] < k or items[pairs[row][1]] < k]
        if not bad:
            return rows
        rows.remove(bad[-1])


@given(PAIRS, st.integers(0, 4))
def test_k_core_equals_one_at_a_time_removal(pairs: list[tuple[int, int]], k: int) -> None:
    user, item = (np.array([pair[axis] for pair in pairs], dtype=np.int32) for axis in (0, 1))
    assert k_core(user, item, k).tolist() == _brute_force_core(pairs, k)


def test_k_core_needs_more_than_one_pass() -> None:
    # Item 2 is too rare; without it user 1 is; without user 1 item 1 is too rare, then user 0 as well.
    user = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    item = np.array([0, 1, 1, 2, 3, 4, 3, 4])
    assert k_core(user, item, 2).tolist() == [4, 5, 6, 7]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_first_of_duplicates_keeps_the_first(rows: list[tuple[int, int, int]]) -> None:
    user, item, time = (np.array([row[axis] for row in rows], dtype=np.int64) for axis in range(3))
    timed = [at for at, row in enumerate(rows) if row not in rows[:at]]
    pairs = [row[:2] for row in rows]
    untimed = [at for at, pair in enumerate(pairs) if pair not in pairs[:at]]
    assert first_of_duplicates(user, item, time.astype(np.float64)).tolist() == timed
    assert first_of_duplicates(user, item, None).tolist() == untimed
