"""Seed sampling: docs/method.md's formulas by hand, the frequencies of Eq. 2, and that it always ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reland_jax.seeds.sampling import (
    cluster_quota,
    importance_probability,
    representative_round,
    round_size,
    sample_seeds,
)
from reland_jax.types import IMPORTANT, REPRESENTATIVE, RelandError


def draw(**changes: Any) -> Any:
    """A population of 200 users in 10 clusters, 40 seeds."""
    rng = np.random.default_rng(0)
    arguments = {
        "cluster": rng.integers(0, 10, 200),
        "distance": rng.random(200),
        "activity": rng.integers(1, 30, 200),
        "num_seeds": 40,
        "rounds": 2,
        "seed": 0,
    }
    return sample_seeds(**{**arguments, **changes})


def test_quota_by_hand() -> None:
    cluster = np.repeat([0, 1, 2, 4], [60, 30, 9, 1])
    # n |C_k| / |U| = 6, 3, 0.9, -, 0.1 for n = 10, and 3, 1.5, 0.45, -, 0.05 for n = 5.
    np.testing.assert_array_equal(cluster_quota(cluster, 10), [6, 3, 1, 0, 1])
    np.testing.assert_array_equal(cluster_quota(cluster, 5), [3, 2, 1, 0, 1])
    np.testing.assert_array_equal(cluster_quota(cluster, 100), [60, 30, 9, 0, 1])


def test_round_size_by_hand() -> None:
    assert [round_size(s, r) for s, r in ((2236, 2), (10, 1), (1, 5), (7, 2))] == [559, 5, 1, 2]


def test_representative_round_takes_the_quota_of_every_cluster() -> None:
    rng = np.random.default_rng(1)
    cluster, quota = rng.integers(0, 6, 300), np.array([3, 1, 5, 2, 1, 0])
    drawn = representative_round(cluster, rng.random(300), quota, rng)
    np.testing.assert_array_equal(np.bincount(cluster[drawn], minlength=6), quota)


def test_single_seed_of_a_cluster_is_the_closest_member() -> None:
    cluster = np.array([0, 1, 0, 1, 0, 2, 2])
    distance = np.array([3.0, 0.5, 1.0, 0.2, 2.0, 4.0, 4.0])
    drawn = representative_round(cluster, distance, np.array([1, 1, 1]), np.random.default_rng(0))
    np.testing.assert_array_equal(np.flatnonzero(drawn), [2, 3, 5])


def test_representative_draws_are_uniform_within_a_cluster() -> None:
    rng = np.random.default_rng(2)
    cluster, distance = np.repeat([0, 1], [8, 4]), np.arange(12.0)
    count = sum(representative_round(cluster, distance, np.array([2, 3]), rng) * 1 for _ in range(4000))
    np.testing.assert_allclose(count / 4000, np.repeat([2 / 8, 3 / 4], [8, 4]), atol=0.03)


def test_importance_probability_is_equation_2() -> None:
    np.testing.assert_allclose(importance_probability(np.array([1, 3, 0, 96]), 2), [0.02, 0.06, 0, 1])
    np.testing.assert_array_equal(importance_probability(np.zeros(3, int), 2), [0, 0, 0])


def test_importance_frequencies() -> None:
    """The second round brings in every user with the p of Eq. 2, unless the first one has it already."""
    activity = np.array([1] * 10 + [4] * 5 + [20] + [0] * 44)
    count, runs = np.zeros(60), 2000
    for seed in range(runs):
        # n = 10, one cluster: the first round is 10 of 60 users, uniformly. At most 16 users can come
        # by importance, so the second round is never cut.
        seeds = sample_seeds(np.zeros(60, int), np.zeros(60), activity, 40, rounds=2, seed=seed)
        later = seeds.user[10:][np.cumsum(seeds.how[10:] == REPRESENTATIVE) == 0]
        count[later] += 1
    share = count / runs / (50 / 60)
    np.testing.assert_allclose(share[:10], 0.2, atol=0.05)
    np.testing.assert_allclose(share[10:15], 0.8, atol=0.05)
    assert share[15] == pytest.approx(1.0, abs=0.05)
    assert (share[16:] == 0).all()


def test_exact_number_distinct_and_recorded() -> None:
    cluster = np.random.default_rng(0).integers(0, 10, 200)
    seeds = draw()
    assert seeds.user.dtype == np.int32 and seeds.cluster.dtype == np.int32 and seeds.how.dtype == np.int8
    assert len(seeds.user) == len(np.unique(seeds.user)) == 40
    np.testing.assert_array_equal(seeds.cluster, cluster[seeds.user])
    # n = 10: the first round brings one or two users per cluster, the second is by importance.
    first = int((np.cumsum(seeds.how == IMPORTANT) == 0).sum())
    assert first == cluster_quota(cluster, 10).sum()
    assert (seeds.how[first : first + 5] == IMPORTANT).all()
    assert set(seeds.how.tolist()) == {REPRESENTATIVE, IMPORTANT}


def test_same_seed_same_set_other_seed_another() -> None:
    first, again, other = draw(seed=1), draw(seed=1), draw(seed=2)
    np.testing.assert_array_equal(first.user, again.user)
    np.testing.assert_array_equal(first.how, again.how)
    assert set(first.user.tolist()) != set(other.user.tolist())


def test_first_round_is_cut_uniformly_when_it_finds_too_many() -> None:
    """Ten clusters, three seeds: three of the ten closest members, each as often as another."""
    cluster = np.tile(np.arange(10), 4)
    distance = np.repeat([2.0, 1.0, 3.0, 4.0], 10)
    count = np.zeros(40)
    for seed in range(2000):
        seeds = sample_seeds(cluster, distance, np.ones(40, int), 3, rounds=2, seed=seed)
        assert (seeds.how == REPRESENTATIVE).all()
        count[seeds.user] += 1
    np.testing.assert_allclose(count[10:20] / 2000, 0.3, atol=0.05)
    assert count.sum() == count[10:20].sum() == 6000


def test_importance_adds_where_representativeness_has_nothing_new() -> None:
    """Every cluster gives only its closest member, so all others must come by importance."""
    cluster, distance = np.repeat(np.arange(10), 20), np.tile(np.arange(20.0), 10)
    seeds = sample_seeds(cluster, distance, np.ones(200, int), 40, rounds=4, seed=0)
    representative = seeds.user[seeds.how == REPRESENTATIVE]
    np.testing.assert_array_equal(np.sort(representative), np.arange(0, 200, 20))
    assert (seeds.how == IMPORTANT).sum() == 30


def test_uniform_fill_when_both_samplings_stall() -> None:
    """Nobody has an interaction and every quota is 1: only the fill can go beyond the ten closest."""
    cluster, distance = np.repeat(np.arange(10), 20), np.tile(np.arange(20.0), 10)
    count = np.zeros(200)
    for seed in range(300):
        seeds = sample_seeds(cluster, distance, np.zeros(200, int), 29, rounds=2, seed=seed)
        assert len(np.unique(seeds.user)) == 29 and (seeds.how == REPRESENTATIVE).all()
        count[seeds.user] += 1
    assert (count[::20] == 300).all()
    others = np.delete(count, np.arange(0, 200, 20)) / 300
    np.testing.assert_allclose(others, 19 / 190, atol=0.08)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_always_ends_with_exactly_s_distinct_users(data: st.DataObject) -> None:
    num_users = data.draw(st.integers(1, 40))
    column = st.lists(st.integers(0, 6), min_size=num_users, max_size=num_users)
    cluster, activity = np.array(data.draw(column)), np.array(data.draw(column)) ** 4
    num_seeds = data.draw(st.integers(1, num_users))
    rounds, seed = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 9))
    seeds = sample_seeds(cluster, np.ones(num_users), activity, num_seeds, rounds=rounds, seed=seed)
    assert len(seeds.user) == len(np.unique(seeds.user)) == num_seeds
    assert seeds.user.min() >= 0 and seeds.user.max() < num_users
    np.testing.assert_array_equal(seeds.cluster, cluster[seeds.user])
    assert (activity[seeds.user[seeds.how == IMPORTANT]] > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 0}, r"0 seed users of 200 users.*config\.seeds\.fraction"),
        ({"num_seeds": 201}, "201 seed users of 200 users"),
        ({"rounds": 0}, r"config\.seeds\.rounds=0 must be at least 1"),
        ({"activity": np.ones(199, int)}, r"activity \(199,\) must all be of shape"),
        ({"activity": np.r_[np.ones(199, int), -3]}, "activity of user 199 is -3"),
        ({"cluster": np.r_[-1, np.zeros(199, int)]}, "cluster of user 0 is -1"),
        ({"distance": np.r_[0.0, np.nan, np.zeros(198)]}, "distance of user 1 to its centre is nan"),
    ],
)
def test_faults_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        draw(**changes)
