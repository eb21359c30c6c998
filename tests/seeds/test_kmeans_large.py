"""K-means for many users, on few: as good as `kmeans`, what it promises, and the same on eight devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from reland_jax.config import SeedsConfig
from reland_jax.device import sizes_of, use_sizes
from reland_jax.seeds import centre_tiles, choose, choose_seeds, kmeans_passes, sample_seeds
from reland_jax.seeds import kmeans_large as large
from reland_jax.seeds.kmeans import KMeansResult, kmeans
from reland_jax.seeds.kmeans_large import _draw, kmeans_large
from reland_jax.types import RelandError

USERS, CLUSTERS, WIDTH = 1501, 60, 6


@pytest.fixture(autouse=True)
def _few_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 to 7 centres of which a user sees three, so that near centres are by no means all."""
    monkeypatch.setattr(centre_tiles, "_SMALLEST", 4)
    monkeypatch.setattr(centre_tiles, "_NEAR", 3)
    monkeypatch.setattr(kmeans_passes, "_NEAR_BLOCK", 32)


@pytest.fixture(scope="module", autouse=True)
def _small_tiles() -> Iterator[None]:
    """Several blocks and tiles."""
    with use_sizes(dataclasses.replace(sizes_of("cpu"), pass_users=64, pass_centres=16)):
        yield


def population(seed: int = 0) -> np.ndarray:
    """Overlapping clouds ``<float32>[U, D]``, far from the origin."""
    rng = np.random.default_rng(seed)
    return (40.0 + 3.0 * rng.normal(size=(20, WIDTH))[rng.integers(0, 20, USERS)]).astype(
        np.float32
    ) + rng.normal(size=(USERS, WIDTH)).astype(np.float32)


def run(vectors: np.ndarray, key: int = 0, **changes: object) -> KMeansResult:
    given = {"iterations": 50, "tolerance": 1e-4, **changes}
    return kmeans_large(vectors, CLUSTERS, jax.random.key(key), **given)  # type: ignore[arg-type]


def squared(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((vectors[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("iterations", [0, 1, 50])
def test_every_user_is_with_the_nearest_of_all_centres(iterations: int) -> None:
    vectors = population()
    found = run(vectors, iterations=iterations)
    oracle = squared(vectors, found.centres)
    np.testing.assert_array_equal(found.cluster, oracle.argmin(axis=1))
    np.testing.assert_allclose(found.distance, np.sqrt(oracle.min(axis=1)), atol=1e-4)
    assert found.inertia == pytest.approx(oracle.min(axis=1).sum(), rel=1e-5)
    assert found.cluster.dtype == np.int32 and found.cluster.shape == (USERS,)


def test_as_good_as_kmeans() -> None:
    """The mean over starts; one start alone is worse or better by some 2%."""
    vectors, keys = population(), range(4)
    ours = np.mean([run(vectors, key).inertia for key in keys])
    theirs = np.mean(
        [
            kmeans(vectors, CLUSTERS, jax.random.key(key), iterations=50, tolerance=1e-4).inertia
            for key in keys
        ]
    )
    assert ours == pytest.approx(theirs, rel=0.01)


def test_stops_where_no_iteration_over_all_centres_helps() -> None:
    vectors = population()
    loose, tight = run(vectors, tolerance=0.02), run(vectors, tolerance=0.0, iterations=500)
    assert 2 <= loose.iterations < tight.iterations < 500
    means = np.stack([vectors[tight.cluster == c].mean(axis=0) for c in range(CLUSTERS)])
    np.testing.assert_allclose(tight.centres, means, atol=1e-4)


def test_inertia_never_rises() -> None:
    vectors = population()
    inertia = [run(vectors, iterations=n, tolerance=0.0).inertia for n in range(0, 10)]
    # The result of n iterations ends with a look at all centres, so it is not on the way to that of n + 1.
    assert all(after <= before * 1.005 for before, after in zip(inertia, inertia[1:], strict=False))
    assert inertia[-1] < 0.9 * inertia[0]


def test_eight_devices_find_what_one_finds() -> None:
    vectors = population()
    one = run(vectors, iterations=6)
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    with jax.set_mesh(mesh):  # as the whole job does; without an argument one device does it all
        np.testing.assert_array_equal(run(vectors, iterations=6).centres, one.centres)
        found = run(vectors, iterations=6, mesh=mesh)
    np.testing.assert_array_equal(found.cluster, one.cluster)
    np.testing.assert_allclose(found.centres, one.centres, rtol=1e-5)
    np.testing.assert_allclose(found.distance, one.distance, rtol=1e-5, atol=1e-5)
    assert found.inertia == pytest.approx(one.inertia, rel=1e-5)


def test_same_key_same_result_other_key_another() -> None:
    vectors = population()
    first, again, other = (run(vectors, key, iterations=3) for key in (7, 7, 8))
    np.testing.assert_array_equal(first.centres, again.centres)
    np.testing.assert_array_equal(first.cluster, again.cluster)
    assert not np.array_equal(first.centres, other.centres)


def test_fewer_distinct_vectors_than_clusters() -> None:
    vectors = np.resize(np.random.default_rng(8).normal(size=(40, WIDTH)), (USERS, WIDTH)).astype(np.float32)
    found = run(vectors, iterations=5)
    assert found.inertia == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.centres[found.cluster], vectors, atol=1e-5)


def test_as_many_clusters_as_users() -> None:
    vectors = np.random.default_rng(6).normal(size=(37, 3)).astype(np.float32)
    found = kmeans_large(vectors, 37, jax.random.key(2), iterations=3, tolerance=0.0)
    assert sorted(found.cluster.tolist()) == list(range(37))


@pytest.mark.slow
def test_one_cluster_is_the_mean() -> None:
    vectors = population()
    found = kmeans_large(vectors, 1, jax.random.key(2), iterations=3, tolerance=0.0)
    np.testing.assert_allclose(found.centres[0], vectors.mean(axis=0), rtol=1e-6)


def test_draws_are_in_proportion_and_without_replacement() -> None:
    """The chance of either of two draws from weights 1, 2, 3, 6 beside a user drawn before."""
    weight, rng = np.array([1.0, 2.0, 5.0, 3.0, 6.0], np.float32), np.random.default_rng(0)
    drawn = np.array([_draw(weight, np.array([2]), 2, rng) for _ in range(8000)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    p = np.array([1, 2, 0, 3, 6]) / 12
    expected = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(5) if j != i) for i in range(5)]
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=5) / 8000, expected, atol=0.02)


def test_first_draw_is_uniform() -> None:
    rng, nothing = np.random.default_rng(0), np.empty(0, np.int64)
    first = [_draw(np.full(4, np.inf, np.float32), nothing, 1, rng)[0] for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 4000, 0.25, atol=0.03)


def test_an_empty_cluster_goes_to_the_farthest_user() -> None:
    vectors = np.array([[0.0], [1.0], [2.0], [21.0], [-10.0]], np.float32)
    users = kmeans_passes.place(vectors, None)
    centres = np.array([[-1.8], [500.0], [600.0]], np.float32)
    found = large._measured(users, jax.numpy.zeros(5, np.int32), centres)
    np.testing.assert_allclose(large._moved(users, vectors, found) + 2.8, [[2.8], [21.0], [-10.0]], atol=1e-5)


def test_faults_are_named() -> None:
    with pytest.raises(RelandError, match=r"60 clusters of 5 users.*config\.seeds\.clusters"):
        run(np.eye(5, dtype=np.float32))
    vectors = population()
    vectors[3, 1] = np.nan
    with pytest.raises(RelandError, match=r"1 of 1501 vectors are not finite.*\[3\]"):
        run(vectors)
    with pytest.raises(RelandError, match="overflow float32"):
        run(population() * np.float32(1e25), iterations=2)


@pytest.mark.parametrize("is_large", [False, True])
def test_which_kmeans_chooses(is_large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept seed users depend on it: below the limit it is `kmeans`, bit for bit."""
    vectors, config = population(), SeedsConfig(fraction=0.08, clusters=CLUSTERS, iterations=3, seed=4)
    activity = np.random.default_rng(0).integers(1, 20, USERS)
    monkeypatch.setattr(choose, "LARGE", USERS * CLUSTERS + (0 if is_large else 1))
    seeds, clustering = choose_seeds(vectors, activity, config)
    clusterer = kmeans_large if is_large else kmeans
    expected = clusterer(vectors, CLUSTERS, jax.random.key(4), iterations=3, tolerance=config.tolerance)
    np.testing.assert_array_equal(clustering.centres, expected.centres)
    drawn = sample_seeds(expected.cluster, expected.distance, activity, 120, rounds=2, seed=4)
    np.testing.assert_array_equal(seeds.user, drawn.user)
