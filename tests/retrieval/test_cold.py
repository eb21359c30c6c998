"""Users without training items: profiles by brute force over one-hot vectors, ties, and who is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import assign, assign_with_cold, profiles, represented_users
from reland_jax.retrieval.cold import MISSING, match_profiles
from reland_jax.types import RelandError


def one_hot(profile: np.ndarray) -> np.ndarray:
    """Profiles ``<int32>[n, F]`` as zeros and ones, ``<float64>[n, V]``."""
    blocks = [column[:, None] == np.arange(column.max() + 1) for column in profile.T]
    return np.concatenate(blocks, axis=1).astype(np.float64)


@pytest.mark.parametrize("tile", [1, 7, 4096])
def test_equals_brute_force(tile: int) -> None:
    rng = np.random.default_rng(0)
    profile = rng.integers(MISSING, 3, (120, 4)).astype(np.int32)
    queries, seeds, represented = profile[:100], profile[100:], rng.permutation(20)
    found = match_profiles(queries, seeds, represented, 6, tile)
    vectors = one_hot(profile)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    cosine = np.round(unit[:100] @ unit[100:].T, 9)
    order = np.lexsort((np.broadcast_to(-represented, cosine.shape), -cosine))[:, :6]
    assert found.seed.dtype == np.int32 and found.cosine.dtype == np.float32
    np.testing.assert_array_equal(found.seed, order)
    np.testing.assert_allclose(found.cosine, np.take_along_axis(cosine, order, axis=1), atol=1e-6)


def test_ties_go_to_who_represents_most_and_then_to_the_smaller_row() -> None:
    seeds = np.array([[0, 1], [0, 0], [0, 0], [0, 0], [1, 1]], np.int32)
    queries = np.array([[0, 0], [1, MISSING], [MISSING, MISSING]], np.int32)
    found = match_profiles(queries, seeds, np.array([9, 2, 5, 2, 1]), 4)
    np.testing.assert_array_equal(found.seed, [[2, 1, 3, 0], [4, 0, 2, 1], [0, 2, 1, 3]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found.cosine, [[1, 1, 1, 0.5], [half, 0, 0, 0], [0, 0, 0, 0]], atol=1e-6)


@given(st.integers(1, 9), st.integers(0, 10_000))
def test_equal_profiles_tie_exactly(fields: int, seed: int) -> None:
    """Seed users with as many equal values come in the order of `represented`, whatever the fields."""
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 2, (12, fields)).astype(np.int32)
    query = np.zeros((1, fields), np.int32)
    represented = rng.permutation(12)
    found = match_profiles(query, seeds, represented, 12)
    expected = np.lexsort((-represented, -(seeds == 0).sum(1)))
    np.testing.assert_array_equal(found.seed[0], expected)


def test_fields_that_hardly_repeat_are_left_out() -> None:
    """"zip" has 4 users per value, "age" 5; missing values count neither as users nor as a value."""
    features = {
        "zip": np.array([str(user // 4) for user in range(20)], object),
        "age": np.array(["young", "old"] * 5 + [""] * 10, object),
        "name": np.array([f"name {user}" for user in range(20)], object),
        "unknown": np.full(20, "", object),
    }
    found = profiles(features, 20)
    assert found.shape == (20, 1) and found.dtype == np.int32
    assert (found[10:] == MISSING).all()
    young, old = found[0, 0], found[1, 0]
    assert MISSING not in (young, old) and young != old
    np.testing.assert_array_equal(found[:10, 0], [young, old] * 5)
    np.testing.assert_array_equal(profiles({}, 3), np.full((3, 1), MISSING))


def people() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Forty users, every fifth cold; behaviour, activity, profiles and six seed users."""
    rng = np.random.default_rng(1)
    activity = np.where(np.arange(40) % 5 == 4, 0, 3)
    features = {"group": np.array([f"group {user % 4}" for user in range(40)], object)}
    seeds = np.array([30, 1, 2, 13, 7, 5])
    return rng.normal(size=(40, 6)).astype(np.float32), activity, features, seeds


def test_warm_users_are_assigned_as_ever_and_cold_ones_by_profile() -> None:
    behaviour, activity, features, seeds = people()
    config = RetrievalConfig(neighbours=2, cold_neighbours=4)
    found = assign_with_cold(behaviour, seeds, activity, features, config)
    warm, cold = np.flatnonzero(activity), np.flatnonzero(activity == 0)
    alone = assign(behaviour, seeds, RetrievalConfig(neighbours=4))
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours[warm], expected[warm])
    same = seeds[found.seed[cold, 0]] % 4 == cold % 4
    has = np.isin(cold % 4, seeds % 4)
    np.testing.assert_array_equal(same, has)
    np.testing.assert_array_equal(found.cosine[cold, 0] == 1.0, has)


def test_the_vectors_of_cold_users_mean_nothing() -> None:
    """Neither whom they are near to nor that they are no numbers changes anything, for anybody."""
    behaviour, activity, features, seeds = people()
    config = RetrievalConfig(cold_neighbours=3)
    expected = assign_with_cold(behaviour, seeds, activity, features, config)
    behaviour[activity == 0] = np.nan
    behaviour[4] = 1e3 * behaviour[seeds[0]]
    found = assign_with_cold(behaviour, seeds, activity, features, config)
    np.testing.assert_array_equal(found.seed, expected.seed)
    np.testing.assert_array_equal(found.cosine, expected.cosine)


def test_without_a_profile_those_who_represent_most_come_first() -> None:
    behaviour, activity, _, seeds = people()
    found = assign_with_cold(behaviour, seeds, activity, {}, RetrievalConfig(cold_neighbours=6))
    warm, cold = activity > 0, activity == 0
    represented = np.bincount(found.seed[warm, 0], minlength=6)
    np.testing.assert_array_equal(represented_users(found.seed, activity, 6), represented)
    order = np.argsort(-represented, kind="stable")
    np.testing.assert_array_equal(found.seed[cold], np.tile(order, (cold.sum(), 1)))
    assert (found.cosine[cold] == 0).all()


def test_without_cold_users_nothing_is_added() -> None:
    behaviour, _, features, seeds = people()
    config = RetrievalConfig(neighbours=2, cold_neighbours=5)
    found = assign_with_cold(behaviour, seeds, np.ones(40, int), features, config)
    expected = assign(behaviour, seeds, config)
    np.testing.assert_array_equal(found.seed, expected.seed)
    np.testing.assert_array_equal(found.cosine, expected.cosine)


def test_more_cold_neighbours_than_seed_users_are_all_of_them() -> None:
    behaviour, activity, features, seeds = people()
    found = assign_with_cold(behaviour, seeds, activity, features, RetrievalConfig(cold_neighbours=99))
    np.testing.assert_array_equal(np.sort(found.seed, axis=1), np.tile(np.arange(6), (40, 1)))


def test_a_cold_seed_user_is_refused() -> None:
    behaviour, activity, features, seeds = people()
    seeds[2] = 9
    with pytest.raises(RelandError, match="seed user 9 has no training items"):
        assign_with_cold(behaviour, seeds, activity, features, RetrievalConfig())
