"""Codes of histories: equal for equal items in equal order, different otherwise."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.histories import history_codes
from reland_jax.strings import as_strings
from reland_jax.types import Ragged
from tests.toys import ragged

IDS = np.asarray(["", *(f"item-{number}" for number in range(1, 9))], object)
ROWS = st.lists(st.lists(st.integers(1, 8), max_size=6), min_size=1, max_size=5)


@given(ROWS, ROWS)
def test_codes_are_equal_where_the_first_items_are(left: list[list[int]], right: list[list[int]]) -> None:
    for length in range(7):
        a, b = (
            history_codes(ragged(rows), IDS, np.full(len(rows), length)).tolist() for rows in (left, right)
        )
        for x, first in zip(a, left, strict=True):
            for y, second in zip(b, right, strict=True):
                assert (x == y) == (first[:length] == second[:length])


def test_codes_speak_of_external_ids() -> None:
    """Another numbering of the same items, beside longer names, changes nothing."""
    other = np.asarray(["", "a much longer name é", *reversed(IDS[1:].tolist())], object)
    rows = [[1, 2, 3], [8], []]
    again = [[10 - item for item in row] for row in rows]
    lengths = np.asarray([2, 1, 0])
    codes = history_codes(ragged(rows), IDS, lengths)
    np.testing.assert_array_equal(codes, history_codes(ragged(again), other, lengths))
    assert codes.dtype == np.uint64 and len(set(codes.tolist())) == 3


def test_codes_tell_nuls_at_the_end_and_do_not_grow_with_the_longest_id() -> None:
    items = as_strings(["", "i05", "i05\0", "i05\0\0", "x" * 1_000_000, *map(str, range(2000))])
    codes = history_codes(ragged([[1], [2], [3], [4]]), items, np.ones(4, int))
    assert len(set(codes.tolist())) == 4


def test_codes_are_those_of_stores_that_exist() -> None:
    """A change would take every stored rationale for one of another history."""
    codes = history_codes(ragged([[1, 2], [3]]), IDS, np.asarray([2, 1]))
    assert codes.tolist() == [9014113437522173162, 9083266451028590981]


def test_no_accidents_among_many() -> None:
    """200,000 pairs of two out of 1,000 items, as codes of histories of two."""
    items = np.asarray(["", *map(str, range(1, 1001))], object)
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(1, 1001, size=(200_000, 2)), axis=0)
    indptr = np.arange(0, 2 * len(pairs) + 1, 2)
    rows = Ragged(indptr, pairs.ravel())
    codes = history_codes(rows, items, np.full(len(pairs), 2))
    assert len(np.unique(codes)) == len(pairs)
