"""Batches of static shapes."""

from __future__ import annotations

import pytest

from reland_jax.serve.listing import BATCH_SIZES, Batch, batches, in_rows, power_of_two
from tests.toys import ragged


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 63, 600, 1100])
@pytest.mark.parametrize("largest", [0, 1, 20, 64, 10_000])
def test_every_user_is_in_one_batch_of_a_static_size(count: int, largest: int) -> None:
    found = list(batches(count, largest))
    users = [user for batch in found for user in range(batch.begin, batch.begin + batch.used)]
    assert users == list(range(count))
    for batch in found:
        smaller = [size for size in BATCH_SIZES if size < batch.size]
        assert batch.size in BATCH_SIZES and max(smaller, default=0) < batch.used <= batch.size
        assert batch.size <= max(largest, 1)


def test_powers_of_two() -> None:
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]


def test_lists_in_rows_keep_their_end() -> None:
    lists = ragged([[9], [1, 2, 3, 4], [], [5, 6], [7]])
    assert in_rows(lists, Batch(1, 3, 4), 3).tolist() == [[2, 3, 4], [0, 0, 0], [5, 6, 0], [0, 0, 0]]
    assert in_rows(lists, Batch(0, 5, 5), 4)[1].tolist() == [1, 2, 3, 4]
