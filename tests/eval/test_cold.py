"""Borrowed vectors: weighted means against numpy, and that nobody else's vector changes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from reland_jax.eval import Borrowed, Vectors, borrow, lend, plan_ranking, rank_targets
from tests.toys import ragged


def dot(users: jax.Array, items: jax.Array) -> jax.Array:
    return users @ items.T


def test_weights_are_the_cosine_times_the_users_represented() -> None:
    """Without any likeness the users represented alone; a negative cosine is none."""
    user, source = np.array([3, 4, 5]), np.array([[0, 1], [1, 2], [2, 0]])
    cosine = np.array([[0.9, 0.3], [0.0, 0.0], [0.5, -0.5]], np.float32)
    represented = np.array([[1, 9], [3, 1], [1, 5]])
    found = borrow(user, source, cosine, represented)
    np.testing.assert_allclose(found.weight, [[0.25, 0.75], [0.75, 0.25], [1.0, 0.0]], rtol=1e-6)
    assert [each.dtype for each in found] == [np.int32, np.int32, np.float32]


@pytest.mark.parametrize("k", [1, 4])
def test_cold_users_get_weighted_means_and_the_others_keep_theirs(k: int) -> None:
    rng = np.random.default_rng(0)
    users = rng.normal(size=(12, 5)).astype(np.float32)
    cold = np.array([11, 2, 7])
    source = rng.choice([0, 1, 3, 4, 9], (3, k))
    borrowed = borrow(cold, source, rng.random((3, k)).astype(np.float32), rng.integers(1, 9, (3, k)))
    items = rng.normal(size=(4, 5)).astype(np.float32)
    found = lend(Vectors(users, items, jax.tree_util.Partial(dot)), borrowed)
    expected = np.einsum("ck,ckd->cd", borrowed.weight, users[source])
    np.testing.assert_allclose(found.users[cold], expected, rtol=1e-5, atol=1e-6)
    others = np.setdiff1d(np.arange(12), cold)
    assert np.asarray(found.users)[others].tobytes() == users[others].tobytes()
    assert found.items is items


def test_the_own_vector_of_a_cold_user_is_not_read() -> None:
    """It may be anything, even no number, and the ranking is that of its source."""
    users = np.array([[1.0, 0.0], [np.nan, np.inf]], np.float32)
    items = np.array([[0, 0], [3, 0], [2, 5], [1, 9]], np.float32)
    vectors = Vectors(users, items, jax.tree_util.Partial(dot))
    lent = lend(vectors, Borrowed(np.array([1]), np.array([[0]]), np.ones((1, 1), np.float32)))
    plan = plan_ranking(ragged([[2], [1, 3]]), None, 3, 1 << 20)
    np.testing.assert_array_equal(rank_targets(plan, lent).rank, [1, 0, 2])
