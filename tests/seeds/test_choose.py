"""The glue: how many seed users and clusters a `SeedsConfig` means, and that its seed decides all."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.config import SeedsConfig
from reland_jax.seeds import choose_seeds
from reland_jax.types import IMPORTANT, RelandError


def population(num_users: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(num_users, 4)).astype(np.float32), rng.integers(1, 20, num_users)


@pytest.mark.parametrize(
    ("num_users", "fraction", "clusters", "num_seeds", "num_clusters"),
    [(223, 0.1, 0, 22, 11), (223, 0.1, 5, 22, 5), (4, 0.1, 0, 1, 1), (9, 1.0, 0, 9, 4)],
)
def test_sizes(num_users: int, fraction: float, clusters: int, num_seeds: int, num_clusters: int) -> None:
    vectors, activity = population(num_users)
    seeds, clustering = choose_seeds(vectors, activity, SeedsConfig(fraction=fraction, clusters=clusters))
    assert len(np.unique(seeds.user)) == len(seeds.user) == num_seeds
    assert clustering.centres.shape == (num_clusters, 4)
    np.testing.assert_array_equal(seeds.cluster, clustering.cluster[seeds.user])


def test_first_seeds_are_the_closest_to_their_centres() -> None:
    """With K = S / 2 and two rounds, clusters of the usual size give exactly their closest member."""
    vectors, activity = population(223)
    seeds, clustering = choose_seeds(vectors, activity, SeedsConfig())
    first_round = seeds.user[: int(np.argmax(seeds.how == IMPORTANT))]
    assert set(clustering.cluster[first_round].tolist()) == set(clustering.cluster.tolist())
    for cluster in range(11):
        members = np.flatnonzero(clustering.cluster == cluster)
        if 1 <= len(members) < 55:  # N_k = round(n |C_k| / U) is 1 here, as n = 6
            closest = members[clustering.distance[members].argmin()]
            assert closest in first_round


def test_the_seed_decides_everything() -> None:
    vectors, activity = population(223)
    first, again, other = (choose_seeds(vectors, activity, SeedsConfig(seed=s))[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first.user, again.user)
    assert set(first.user.tolist()) != set(other.user.tolist())


def test_more_clusters_than_users_is_an_error() -> None:
    vectors, activity = population(10)
    with pytest.raises(RelandError, match=r"11 clusters of 10 users"):
        choose_seeds(vectors, activity, SeedsConfig(clusters=11))


def test_seed_users_may_be_drawn_uniformly() -> None:
    """The ablation without adaptive sampling: as many, distinct, whatever their activity; by the seed."""
    vectors, activity = population(223)
    counts = np.zeros(223)
    for seed in range(100):
        config = SeedsConfig(sampling="random", seed=seed, iterations=1)
        found, clustering = choose_seeds(vectors, activity, config)
        counts[found.user] += 1
        assert len(np.unique(found.user)) == 22 and IMPORTANT not in found.how
        np.testing.assert_array_equal(found.cluster, clustering.cluster[found.user])
    again, _ = choose_seeds(vectors, activity, config)
    np.testing.assert_array_equal(again.user, found.user)
    assert abs(np.corrcoef(counts, activity)[0, 1]) < 0.2
    adaptive = choose_seeds(vectors, activity, SeedsConfig(seed=99))[0]
    assert adaptive.user.tolist() != found.user.tolist()
