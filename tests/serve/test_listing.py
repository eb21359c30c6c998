"""Lists against a sort of all scores in NumPy."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import jax.tree_util
import numpy as np
import pytest

from reland_jax.device import sizes, use_sizes
from reland_jax.eval import Vectors
from reland_jax.models.scores import dot_product
from reland_jax.serve.listing import best_of, nothing, rows_of
from reland_jax.types import Ragged
from tests.toys import ragged, random_ragged

USERS, NUM_ITEMS = 11, 9


def whole_numbers(seed: int) -> tuple[Vectors, np.ndarray]:
    """Vectors of small whole numbers, so that many scores are equal, and all scores."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(-1, 2, (USERS, 3)), rng.integers(-1, 2, (NUM_ITEMS + 1, 3))
    score = jax.tree_util.Partial(dot_product)
    vectors = Vectors(jnp.asarray(users, jnp.float32), jnp.asarray(items, jnp.float32), score)
    return vectors, users @ items.T


def sorted_lists(
    scores: np.ndarray, users: np.ndarray, masked: Ragged, count: int, allowed: list[int]
) -> list[list[int]]:
    """Best first, of equal scores the smaller number first."""
    lists = []
    for row, user in enumerate(users.tolist()):
        out = set(masked.row(row).tolist())
        left = [item for item in allowed if item not in out]
        lists.append(sorted(left, key=lambda item: (-scores[user, item], item))[:count])
    return lists


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("allowed", [None, [2, 3, 7], [5]])
def test_lists_are_those_of_a_sort(seed: int, allowed: list[int] | None) -> None:
    vectors, scores = whole_numbers(seed)
    users = np.array([3, 0, 10, 3, 5, 7])
    masked = random_ragged([0, 2, 5, 9, 1, 3], NUM_ITEMS, seed)
    chosen = None if allowed is None else np.array(allowed, np.int32)
    found = best_of(vectors, users, masked, 4, NUM_ITEMS, chosen)
    expected = sorted_lists(scores, users, masked, 4, allowed or list(range(1, NUM_ITEMS + 1)))
    for row, wanted in enumerate(expected):
        assert found.item[row, : len(wanted)].tolist() == wanted
        assert (found.item[row, len(wanted) :] == 0).all() and np.isneginf(
            found.score[row, len(wanted) :]
        ).all()
        np.testing.assert_array_equal(found.score[row, : len(wanted)], scores[users[row], wanted])


def test_batches_change_nothing() -> None:
    vectors, _ = whole_numbers(9)
    users, masked = np.arange(USERS), random_ragged([user % 4 for user in range(USERS)], NUM_ITEMS, 2)
    whole = best_of(vectors, users, masked, 5, NUM_ITEMS)
    with use_sizes(dataclasses.replace(sizes(), score_bytes=3 * 8 * (NUM_ITEMS + 1))):
        parts = best_of(vectors, users, masked, 5, NUM_ITEMS)
    np.testing.assert_array_equal(whole.item, parts.item)
    np.testing.assert_array_equal(whole.score, parts.score)


def test_of_nobody_and_of_nothing() -> None:
    vectors, _ = whole_numbers(0)
    assert best_of(vectors, np.zeros(0, np.int64), nothing(0), 3, NUM_ITEMS).item.shape == (0, 0)
    none = best_of(vectors, np.arange(2), nothing(2), 3, NUM_ITEMS, np.zeros(0, np.int32))
    assert none.item.shape == (2, 0)


def test_rows_in_another_order() -> None:
    found = rows_of(ragged([[1, 2], [], [3], [4, 5, 6]]), np.array([3, 1, 0, 3]))
    assert [found.row(row).tolist() for row in range(4)] == [[4, 5, 6], [], [1, 2], [4, 5, 6]]
