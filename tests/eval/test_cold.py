"""Vectors of cold users: weighted means against numpy, and that nobody else's vector changes."""

from __future__ import annotations

import jax
import numpy as np

from reland_jax.eval import ColdUserWeights, Vectors, impute_cold_users, plan_ranking, rank_targets
from tests.toys import ragged


def dot(users: jax.Array, items: jax.Array) -> jax.Array:
    return users @ items.T


def test_cold_users_get_weighted_means_and_the_others_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    users = rng.normal(size=(12, 5)).astype(np.float32)
    cold, kind = np.array([11, 2, 7, 5]), np.array([1, 0, 2, 1])
    source, warm_profile = rng.choice([0, 1, 3, 4, 9], 20), rng.integers(0, 4, 20)
    weight = rng.random((3, 4)).astype(np.float32)
    weight /= weight[:, warm_profile].sum(1, keepdims=True)
    items = rng.normal(size=(4, 5)).astype(np.float32)
    borrowed = ColdUserWeights(cold, kind, weight, source, warm_profile)
    found = impute_cold_users(Vectors(users, items, jax.tree_util.Partial(dot)), borrowed)
    expected = weight[kind][:, warm_profile] @ users[source]
    np.testing.assert_allclose(found.users[cold], expected, rtol=1e-5, atol=1e-6)
    others = np.setdiff1d(np.arange(12), cold)
    assert np.asarray(found.users)[others].tobytes() == users[others].tobytes()
    assert found.items is items


def test_the_own_vector_of_a_cold_user_is_not_read() -> None:
    """It may be anything, even no number, and the ranking is that of its source."""
    users = np.array([[1.0, 0.0], [np.nan, np.inf]], np.float32)
    items = np.array([[0, 0], [3, 0], [2, 5], [1, 9]], np.float32)
    vectors = Vectors(users, items, jax.tree_util.Partial(dot))
    zero = np.array([0])
    lent = impute_cold_users(
        vectors, ColdUserWeights(np.array([1]), zero, np.ones((1, 1), np.float32), zero, zero)
    )
    plan = plan_ranking(ragged([[2], [1, 3]]), None, 3, 1 << 20)
    np.testing.assert_array_equal(rank_targets(plan, lent).rank, [1, 0, 2])
