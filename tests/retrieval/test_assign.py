"""Assignment of users to seed users: Eq. 3 by brute force, and that a seed user keeps itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import assign
from reland_jax.retrieval.assign import own_first
from reland_jax.types import RelandError


@pytest.mark.parametrize("k", [1, 3])
def test_equals_brute_force(k: int) -> None:
    rng = np.random.default_rng(0)
    behaviour = rng.normal(size=(150, 5)).astype(np.float32)
    seed_users = rng.choice(150, 20, replace=False).astype(np.int32)
    found = assign(behaviour, seed_users, RetrievalConfig(neighbours=k, tile=64))
    unit = behaviour / np.linalg.norm(behaviour, axis=1, keepdims=True)
    cosine = unit @ unit[seed_users].T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    assert found.seed.dtype == np.int32 and found.cosine.dtype == np.float32
    np.testing.assert_array_equal(found.seed, order)
    np.testing.assert_allclose(found.cosine, np.take_along_axis(cosine, order, axis=1), atol=1e-6)
    assert (found.cosine[seed_users, 0] == 1.0).all()


def test_a_seed_user_gets_itself_whatever_ties() -> None:
    """Four seeds share a vector and one is zero; an ordinary user gets the smallest of the tied."""
    behaviour = np.array([[1, 0], [1, 0], [2, 0], [1, 0], [0, 0], [0, 1], [5, 0]], np.float32)
    found = assign(behaviour, np.array([5, 3, 2, 1, 0, 4]), RetrievalConfig(neighbours=2))
    np.testing.assert_array_equal(found.seed, [[4, 1], [3, 1], [2, 1], [1, 2], [5, 0], [0, 1], [1, 2]])
    expected = [[1, 1], [1, 1], [1, 1], [1, 1], [1, 0], [1, 0], [1, 1]]
    np.testing.assert_allclose(found.cosine, expected, atol=1e-6)


def test_own_first_by_hand() -> None:
    """Row 0 already starts with itself, row 1 holds itself further on, row 2 not at all."""
    seed = np.array([[0, 2, 1], [2, 1, 0], [0, 1, 3], [3, 1, 2]], np.int32)
    cosine = np.array([[0.9, 0.8, 0.7], [1, 0.9, 0.5], [1, 0.6, 0.5], [1, 0.4, 0.3]], np.float32)
    own_first(seed, cosine, np.arange(4, dtype=np.int32))
    np.testing.assert_array_equal(seed, [[0, 2, 1], [1, 2, 0], [2, 0, 1], [3, 1, 2]])
    expected = np.array([[1, 0.8, 0.7], [1, 1, 0.5], [1, 1, 0.6], [1, 0.4, 0.3]], np.float32)
    np.testing.assert_array_equal(cosine, expected)


def test_own_first_leaves_other_users_alone() -> None:
    """Users 0 and 2 are seed users 5 and 7; 5 stands second already, 7 is not there."""
    seed = np.array([[4, 5, 6], [7, 5, 1], [1, 2, 3]], np.int32)
    cosine = np.array([[1, 0.9, 0.5], [0.7, 0.6, 0.5], [0.3, 0.2, 0.1]], np.float32)
    own_first(seed, cosine, np.array([5, -1, 7], np.int32))
    np.testing.assert_array_equal(seed, [[5, 4, 6], [7, 5, 1], [7, 1, 2]])
    expected = np.array([[1, 1, 0.5], [0.7, 0.6, 0.5], [1, 0.3, 0.2]], np.float32)
    np.testing.assert_array_equal(cosine, expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 7]))
def test_properties_with_many_ties(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    behaviour = rng.integers(-1, 2, size=(30, 2)).astype(np.float32)
    seed_users = rng.permutation(30)[:7]
    found = assign(behaviour, seed_users, RetrievalConfig(neighbours=k))
    np.testing.assert_array_equal(found.seed[seed_users, 0], np.arange(7))
    assert (np.diff(np.sort(found.seed, axis=1), axis=1) > 0).all()
    assert (np.diff(found.cosine, axis=1) <= 0).all()
    assert np.abs(found.cosine).max() <= 1.0


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_fewer_seed_users_than_neighbours_are_all_taken(seeds: int) -> None:
    behaviour = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    seed_users = np.array([3, 1, 4])[:seeds]
    found = assign(behaviour, seed_users, RetrievalConfig(neighbours=3))
    assert found.seed.shape == found.cosine.shape == (5, seeds)
    np.testing.assert_array_equal(np.sort(found.seed, axis=1), np.broadcast_to(np.arange(seeds), (5, seeds)))
    np.testing.assert_array_equal(found.seed[seed_users, 0], np.arange(seeds))


def test_faults_are_named() -> None:
    config = RetrievalConfig(neighbours=2)
    with pytest.raises(RelandError, match="seed user 2 is listed more than once"):
        assign(np.eye(3), np.array([2, 0, 2]), config)
    with pytest.raises(RelandError, match=r"seed user 3 is not among users 0 \.\. 2"):
        assign(np.eye(3), np.array([0, 3]), config)
    with pytest.raises(RelandError, match=r"seed users of shape \(0,\)"):
        assign(np.eye(3), np.array([], np.int32), config)
    with pytest.raises(RelandError, match=r"queries are not finite.*\[1\]"):
        assign(np.array([[1, 0], [np.nan, 0], [0, 1]]), np.array([0, 2]), config)
