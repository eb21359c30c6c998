"""Users without training items: votes of all others by brute force, ties, and who is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import assign, assign_with_cold, cold, profile_weights, profiles
from reland_jax.retrieval.cold import MISSING, most_voted
from reland_jax.strings import as_strings
from reland_jax.types import RelandError


def shares(
    profile: np.ndarray, activity: np.ndarray, nearest: np.ndarray, mismatch: float, num_seeds: int
) -> np.ndarray:
    """Shares of the votes ``<float64>[C, S]``, one pair of users after the other."""
    found = np.zeros((np.count_nonzero(activity == 0), num_seeds))
    for row, user in enumerate(np.flatnonzero(activity == 0).tolist()):
        for voter in np.flatnonzero(activity).tolist():
            pairs = zip(profile[user], profile[voter], strict=True)
            differ = sum(a != b or a == MISSING for a, b in pairs)
            found[row, nearest[voter]] += mismatch**differ
    return found / found.sum(1, keepdims=True)


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.3, 1.0]))
def test_equals_brute_force(seed: int, mismatch: float) -> None:
    rng = np.random.default_rng(seed)
    profile = rng.integers(MISSING, 3, (40, 3)).astype(np.int32)
    activity, nearest = rng.integers(0, 3, 40), rng.integers(0, 6, 40)
    activity[:2] = 0, 1
    weights = profile_weights(profile, activity, mismatch)
    np.testing.assert_array_equal(weights.cold, np.flatnonzero(activity == 0))
    np.testing.assert_array_equal(weights.warm, np.flatnonzero(activity))
    of_users = weights.weight[weights.cold_profile][:, weights.warm_profile]
    np.testing.assert_allclose(of_users.sum(1), 1.0, rtol=1e-5)
    found = most_voted(weights, nearest[weights.warm], 6, 6)
    expected = shares(profile, activity, nearest, mismatch, 6)
    assert found.seed.dtype == np.int32 and found.cosine.dtype == np.float32
    np.testing.assert_allclose(found.cosine, -np.sort(-expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, found.seed, axis=1), found.cosine, atol=1e-5)


def test_with_no_tolerance_only_the_nearest_profiles_vote() -> None:
    """The second cold user has no equal: those who differ in one field are its nearest."""
    profile = np.array([[0, 0], [2, 1], [0, 0], [0, 1], [1, 1], [1, 0]], np.int32)
    weights = profile_weights(profile, np.array([0, 0, 1, 1, 1, 1]), 0.0)
    of_users = weights.weight[weights.cold_profile][:, weights.warm_profile]
    np.testing.assert_allclose(of_users, [[1, 0, 0, 0], [0, 0.5, 0.5, 0]])


def test_many_fields_that_differ_leave_weights() -> None:
    profile = np.stack([np.zeros(500), np.ones(500), np.ones(500)]).astype(np.int32)
    weights = profile_weights(profile, np.array([0, 1, 1]), 0.02)
    np.testing.assert_allclose(weights.weight, [[0.5]])


def test_equal_shares_go_to_the_smaller_row() -> None:
    profile = np.zeros((7, 1), np.int32)
    weights = profile_weights(profile, np.array([0, 1, 1, 1, 1, 1, 1]), 0.1)
    found = most_voted(weights, np.array([4, 2, 4, 2, 3, 0]), 5, 5)
    np.testing.assert_array_equal(found.seed, [[2, 4, 0, 3, 1]])
    np.testing.assert_allclose(found.cosine * 6, [[2, 2, 1, 1, 0]], rtol=1e-6)


def test_fields_that_hardly_repeat_are_left_out() -> None:
    """ "zip" has 4 users per value, "age" 5; missing values count neither as users nor as a value."""
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


def test_marks_of_missing_values_are_missing_and_a_long_value_costs_its_length() -> None:
    """Written by a program that has no other way; of fixed width the column would take 4 GB."""
    values = ["a"] * 5000 + ["nan"] * 5000 + ["x" * 100_000] * 5
    found = profiles({"town": as_strings(values)}, len(values))
    assert (found[5000:10_000] == MISSING).all()
    assert len(np.unique(found[[0, -1]])) == 2 and MISSING not in found[[0, -1]]


def test_fields_of_many_values_go_where_profiles_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    user = np.arange(60)
    many, some, few = ((user % values).astype(str) for values in (12, 5, 2))
    features = {"town": many, "age": some, "sign": few}
    assert profiles(features, 60).shape == (60, 3)
    monkeypatch.setattr(cold, "MOST_PROFILES", 10)
    found = profiles(features, 60)
    assert len(np.unique(found, axis=0)) == 10
    np.testing.assert_array_equal(found, np.stack([user % 2, user % 5], axis=1))
    monkeypatch.setattr(cold, "MOST_PROFILES", 1)
    assert profiles(features, 60).shape == (60, 1), "one field is left"


def people() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Forty users, every fifth cold; behaviour, activity, profiles and six seed users."""
    rng = np.random.default_rng(1)
    activity = np.where(np.arange(40) % 5 == 4, 0, 3)
    profile = np.stack([np.arange(40) % 4, np.arange(40) % 3], axis=1).astype(np.int32)
    seeds = np.array([30, 1, 2, 13, 7, 5])
    return rng.normal(size=(40, 6)).astype(np.float32), activity, profile, seeds


def test_warm_users_are_assigned_as_ever_and_cold_ones_by_votes() -> None:
    behaviour, activity, profile, seeds = people()
    config = RetrievalConfig(neighbours=2, cold_mismatch=0.2)
    found = assign_with_cold(behaviour, seeds, activity, profile, config)
    warm, without = np.flatnonzero(activity), np.flatnonzero(activity == 0)
    alone = assign(behaviour, seeds, config)
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours[warm], expected[warm])
    expected = shares(profile, activity, alone.seed[:, 0], 0.2, 6)
    np.testing.assert_allclose(found.cosine[without], -np.sort(-expected, axis=1)[:, :2], rtol=1e-5)


def test_the_vectors_of_cold_users_mean_nothing() -> None:
    """Neither whom they are near to nor that they are not numbers changes anything, for anybody."""
    behaviour, activity, profile, seeds = people()
    expected = assign_with_cold(behaviour, seeds, activity, profile, RetrievalConfig())
    behaviour[activity == 0] = np.nan
    behaviour[4] = 1e3 * behaviour[seeds[0]]
    found = assign_with_cold(behaviour, seeds, activity, profile, RetrievalConfig())
    np.testing.assert_array_equal(found.seed, expected.seed)
    np.testing.assert_array_equal(found.cosine, expected.cosine)


def test_without_a_profile_those_who_represent_most_come_first() -> None:
    behaviour, activity, _, seeds = people()
    found = assign_with_cold(behaviour, seeds, activity, profiles({}, 40), RetrievalConfig(neighbours=6))
    represented = np.bincount(found.seed[activity > 0, 0], minlength=6)
    order = np.argsort(-represented, kind="stable")
    without = activity == 0
    np.testing.assert_array_equal(found.seed[without], np.tile(order, (without.sum(), 1)))
    np.testing.assert_allclose(found.cosine[without], np.tile(represented[order] / 32, (8, 1)), rtol=1e-6)


def test_without_cold_users_nothing_is_added() -> None:
    behaviour, _, profile, seeds = people()
    config = RetrievalConfig(neighbours=2)
    found = assign_with_cold(behaviour, seeds, np.ones(40, int), profile, config)
    expected = assign(behaviour, seeds, config)
    np.testing.assert_array_equal(found.seed, expected.seed)
    np.testing.assert_array_equal(found.cosine, expected.cosine)


def test_a_cold_seed_user_is_refused() -> None:
    behaviour, activity, profile, seeds = people()
    seeds[2] = 9
    with pytest.raises(RelandError, match="seed user 9 has no training items"):
        assign_with_cold(behaviour, seeds, activity, profile, RetrievalConfig())
