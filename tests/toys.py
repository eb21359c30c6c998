"""Small made-up data that several rooms' tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reland_jax.types import Ragged, Splits


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Rows of items as a `Ragged`."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.array([item for row in rows for item in row], np.int32)
    return Ragged(indptr, items)


def random_ragged(lengths: Sequence[int], num_items: int, seed: int = 0) -> Ragged:
    """Rows of the given lengths, each of distinct items in 1 .. `num_items`, in random order."""
    rng = np.random.default_rng(seed)
    return ragged([(rng.permutation(num_items)[:length] + 1).tolist() for length in lengths])


def planted_splits(num_users: int = 32, num_items: int = 12, length: int = 8) -> Splits:
    """Every user walks round the circle of items, one step at a time: the next item is always certain."""
    rows = [[(user + step) % num_items + 1 for step in range(length + 2)] for user in range(num_users)]
    parts = (ragged([row[cut] for row in rows]) for cut in (slice(length), slice(length, -1), slice(-1, None)))
    return Splits(*parts, num_items, "leave_one_out")
