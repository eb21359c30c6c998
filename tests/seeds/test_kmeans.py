"""K-means against a numpy Lloyd, planted clusters, and the cases that break a careless one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.seeds.kmeans import (
    KMeansResult,
    _assign,
    _iterate,
    _result,
    _start_and_iterate,
    _tile,
    kmeans,
    plus_plus,
)
from reland_jax.types import RelandError


def lloyd(vectors: Any, centres: Any, *, iterations: int, tolerance: float) -> KMeansResult:
    """K-means from given centres."""
    vectors, centres = jnp.asarray(vectors, jnp.float32), jnp.asarray(centres, jnp.float32)
    mean = vectors.mean(axis=0)
    state = _iterate(vectors - mean, centres - mean, iterations, tolerance, _tile(len(centres)))
    return _result(state, mean)


def squared_distances(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    difference = vectors[:, None].astype(np.float64) - centres[None].astype(np.float64)
    return (difference**2).sum(axis=2)


def numpy_lloyd(vectors: np.ndarray, centres: np.ndarray, iterations: int) -> tuple[np.ndarray, ...]:
    """Float64 Lloyd without empty clusters, written with plain loops."""
    vectors = vectors.astype(np.float64)
    for _ in range(iterations):
        cluster = squared_distances(vectors, centres).argmin(axis=1)
        centres = np.stack([vectors[cluster == c].mean(axis=0) for c in range(len(centres))])
    distances = squared_distances(vectors, centres)
    return centres, distances.argmin(axis=1), distances.min(axis=1)


def planted(rng: np.random.Generator, clusters: int, members: int, dim: int) -> tuple[np.ndarray, ...]:
    """Clusters far apart against their width, and which one each row belongs to."""
    centres = 100.0 * rng.permutation(np.eye(dim))[:clusters]
    label = rng.permutation(np.repeat(np.arange(clusters), members))
    return (centres[label] + rng.normal(size=(len(label), dim))).astype(np.float32), label


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_lloyd_equals_numpy_from_the_same_centres(offset: float, iterations: int) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(397, 7)) + offset).astype(np.float32)
    centres = vectors[rng.choice(397, 11, replace=False)]
    found = lloyd(vectors, centres, iterations=iterations, tolerance=0.0)
    oracle_centres, oracle_cluster, oracle_squared = numpy_lloyd(vectors, centres, iterations)
    assert found.iterations == iterations
    np.testing.assert_array_equal(found.cluster, oracle_cluster)
    np.testing.assert_allclose(found.centres, oracle_centres, atol=1e-4)
    np.testing.assert_allclose(found.distance, np.sqrt(oracle_squared), atol=1e-4)
    assert found.inertia == pytest.approx(oracle_squared.sum(), rel=1e-5)


@pytest.mark.parametrize("tile", [1, 8, 50, 51, 200])
def test_tiles_do_not_change_the_assignment(tile: int) -> None:
    rng = np.random.default_rng(1)
    vectors, centres = (rng.normal(size=(n, 5)).astype(np.float32) for n in (50, 6))
    cluster, squared = _assign(jnp.asarray(vectors), jnp.asarray(centres), tile)
    oracle = squared_distances(vectors, centres)
    np.testing.assert_array_equal(cluster, oracle.argmin(axis=1))
    np.testing.assert_allclose(squared, oracle.min(axis=1), rtol=1e-5)


def test_ties_go_to_the_smaller_centre() -> None:
    found = lloyd([[0.0], [2.0], [3.0]], [[1.0], [3.0], [1.0]], iterations=0, tolerance=0.0)
    np.testing.assert_array_equal(found.cluster, [0, 0, 1])


def test_inertia_never_rises() -> None:
    vectors = np.random.default_rng(2).normal(size=(500, 6)).astype(np.float32)
    # Two centres that attract nobody make the run pass through the re-seeding of empty clusters.
    centres = np.concatenate([vectors[:8], np.full((2, 6), 1e3, np.float32)])
    inertia = [lloyd(vectors, centres, iterations=n, tolerance=0.0).inertia for n in range(12)]
    assert all(after <= before * (1 + 1e-6) for before, after in zip(inertia, inertia[1:], strict=False))
    assert inertia[-1] < 0.9 * inertia[0]


def test_empty_clusters_go_to_the_farthest_users() -> None:
    vectors = np.array([[0.0], [1.0], [2.0], [20.0], [-10.0]], np.float32)
    centres = np.array([[1.0], [500.0], [600.0]], np.float32)
    found = lloyd(vectors, centres, iterations=1, tolerance=0.0)
    np.testing.assert_array_equal(found.cluster, [0, 0, 0, 1, 2])
    np.testing.assert_allclose(found.centres, [[2.6], [20.0], [-10.0]], atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_recovers_planted_clusters(offset: float) -> None:
    """Also far from the origin, where |x|^2 - 2 x c + |c|^2 in float32 would lose all digits."""
    vectors, label = planted(np.random.default_rng(3), clusters=12, members=20, dim=16)
    found = kmeans(vectors + np.float32(offset), 12, jax.random.key(0), iterations=20, tolerance=1e-4)
    pairs = set(zip(label.tolist(), found.cluster.tolist(), strict=True))
    assert len(pairs) == 12
    assert found.inertia == pytest.approx(240 * 16, rel=0.1)


def test_tolerance_stops_early() -> None:
    vectors = np.random.default_rng(4).normal(size=(600, 4)).astype(np.float32)
    key = jax.random.key(1)
    loose = kmeans(vectors, 9, key, iterations=100, tolerance=0.02)
    tight = kmeans(vectors, 9, key, iterations=100, tolerance=0.0)
    assert 1 <= loose.iterations < tight.iterations < 100
    before = kmeans(vectors, 9, key, iterations=loose.iterations - 1, tolerance=0.0)
    assert before.inertia - loose.inertia <= 0.02 * before.inertia


def test_same_key_same_result_other_key_another() -> None:
    vectors = np.random.default_rng(5).normal(size=(300, 4)).astype(np.float32)
    runs = [kmeans(vectors, 10, jax.random.key(k), iterations=5, tolerance=0.0) for k in (7, 7, 8)]
    np.testing.assert_array_equal(runs[0].centres, runs[1].centres)
    np.testing.assert_array_equal(runs[0].cluster, runs[1].cluster)
    assert not np.array_equal(runs[0].centres, runs[2].centres)


def test_plus_plus_draws_by_squared_distance() -> None:
    """With two centres of {0, 1, 3} on a line every pair has a probability known by hand."""
    vectors = jnp.array([[0.0], [1.0], [3.0]])
    keys = jax.random.split(jax.random.key(0), 16000)
    users = np.asarray(jax.jit(jax.vmap(lambda key: plus_plus(vectors, 2, key)))(keys))
    share = np.zeros((3, 3))
    np.add.at(share, (users[:, 0], users[:, 1]), 1 / len(users))
    expected = np.array([[0, 1 / 10, 9 / 10], [1 / 5, 0, 4 / 5], [9 / 13, 4 / 13, 0]]) / 3
    np.testing.assert_allclose(share, expected, atol=0.012)
    assert np.all(share[expected == 0] == 0)


def test_as_many_clusters_as_users() -> None:
    vectors = np.random.default_rng(6).normal(size=(37, 3)).astype(np.float32)
    found = kmeans(vectors, 37, jax.random.key(2), iterations=3, tolerance=0.0)
    assert sorted(found.cluster.tolist()) == list(range(37))
    assert found.inertia == 0.0


def test_one_cluster_is_the_mean() -> None:
    vectors = np.random.default_rng(7).normal(loc=5.0, size=(100, 3)).astype(np.float32)
    found = kmeans(vectors, 1, jax.random.key(3), iterations=10, tolerance=0.0)
    np.testing.assert_allclose(found.centres[0], vectors.mean(axis=0), rtol=1e-5)
    assert found.inertia == pytest.approx(100 * vectors.var(axis=0).sum(), rel=1e-5)


def test_fewer_distinct_vectors_than_clusters() -> None:
    vectors = np.repeat(np.random.default_rng(8).normal(size=(4, 5)), 6, axis=0).astype(np.float32)
    found = kmeans(vectors, 7, jax.random.key(4), iterations=5, tolerance=0.0)
    assert found.inertia == pytest.approx(0.0, abs=1e-10)
    assert len(set(found.cluster.tolist())) == 4
    np.testing.assert_allclose(found.centres[found.cluster], vectors, atol=1e-6)


def test_compiles_once_for_a_shape() -> None:
    vectors = np.random.default_rng(9).normal(size=(90, 3)).astype(np.float32)
    kmeans(vectors, 5, jax.random.key(0), iterations=2, tolerance=0.1)
    compiled = _start_and_iterate._cache_size()
    for number in range(1, 4):
        kmeans(vectors + number, 5, jax.random.key(number), iterations=number, tolerance=0.01 * number)
    assert _start_and_iterate._cache_size() == compiled


@pytest.mark.parametrize("num_clusters", [0, 6])
def test_impossible_number_of_clusters(num_clusters: int) -> None:
    with pytest.raises(RelandError, match=rf"{num_clusters} clusters of 5 users.*config\.seeds\.clusters"):
        kmeans(np.eye(5), num_clusters, jax.random.key(0), iterations=1, tolerance=0.0)


def test_faults_are_named() -> None:
    bad = np.eye(5)
    bad[1, 2], bad[4, 0] = np.nan, np.inf
    with pytest.raises(RelandError, match=r"2 of 5 vectors are not finite.*\[1, 4\]"):
        kmeans(bad, 2, jax.random.key(0), iterations=1, tolerance=0.0)
    with pytest.raises(RelandError, match="overflow float32"):
        kmeans(1e30 * np.eye(5), 2, jax.random.key(0), iterations=1, tolerance=0.0)
    with pytest.raises(RelandError, match=r"tolerance=1\.0 in \[0, 1\)"):
        kmeans(np.eye(5), 2, jax.random.key(0), iterations=1, tolerance=1.0)
    with pytest.raises(RelandError, match="expected .users, width., not empty"):
        kmeans(np.zeros((0, 3)), 1, jax.random.key(0), iterations=1, tolerance=0.0)
