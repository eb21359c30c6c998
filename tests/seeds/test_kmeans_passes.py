"""Passes over all users: NumPy by brute force, tiles of any size, the same on eight devices as on one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from reland_jax.device import sizes_of, use_sizes
from reland_jax.seeds import kmeans_passes
from reland_jax.seeds.kmeans_passes import (
    NearTiles,
    Placed,
    cluster_sums,
    compare_near,
    place,
    resolve_centre,
    start_distances,
    update_nearest_tile,
)

USERS, CENTRES, WIDTH = 203, 37, 5
"""Users are no multiple of a block or of eight devices, centres none of a tile."""

MESHES = {"one device": None, "eight": (8, 1), "four by two": (4, 2)}


@pytest.fixture(params=list(MESHES))
def mesh(request: pytest.FixtureRequest) -> Mesh | None:
    shape = MESHES[request.param]
    return jax.make_mesh(shape, ("data", "model")) if shape else None


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_passes, "_NEAR_BLOCK", 8)


@pytest.fixture(scope="module", autouse=True)
def _small_tiles() -> Iterator[None]:
    """Several blocks and tiles, also of few users."""
    with use_sizes(dataclasses.replace(sizes_of("cpu"), pass_users=16, pass_centres=16)):
        yield


@pytest.fixture
def population() -> tuple[np.ndarray, np.ndarray]:
    """Vectors with a common offset, and centres, which come less the mean of the vectors."""
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(USERS, WIDTH)) + 30.0).astype(np.float32)
    return vectors, rng.normal(size=(CENTRES, WIDTH)).astype(np.float32)


def distances(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared, in float64 ``[U, K]``."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    return ((centred[:, None] - centres[None]) ** 2).sum(axis=2)


def all_compared(placed: Placed, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every user, and the squared distance."""
    with jax.set_mesh(placed.mesh):
        nearest = update_nearest_tile(placed, start_distances(placed), centres, 0)
        cluster = resolve_centre(placed, nearest, centres)
    return np.asarray(cluster)[: placed.users], np.asarray(nearest.squared)[: placed.users]


def test_all_centres(population: Any, mesh: Mesh | None) -> None:
    vectors, centres = population
    placed = place(vectors, mesh)
    assert len(placed.rows.sharding.device_set) == (8 if mesh else 1)
    cluster, squared = all_compared(placed, centres)
    oracle = distances(vectors, centres)
    np.testing.assert_array_equal(cluster, oracle.argmin(axis=1))
    np.testing.assert_allclose(squared, oracle.min(axis=1), rtol=1e-4, atol=1e-4)


def test_batches_are_like_all_at_once(population: Any) -> None:
    vectors, centres = population
    placed = place(vectors, None)
    nearest = start_distances(placed)
    # Batches within a tile, batches of tiles, and a rest.
    for begin, end in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 37)):
        nearest = update_nearest_tile(placed, nearest, centres[begin:end], begin)
    expected = update_nearest_tile(placed, start_distances(placed), centres, 0)
    np.testing.assert_array_equal(nearest.tile, expected.tile)
    np.testing.assert_array_equal(resolve_centre(placed, nearest, centres), all_compared(placed, centres)[0])


def test_ties_go_to_the_smaller_number(population: Any) -> None:
    """Within a tile, and between the tiles."""
    vectors, centres = population
    centres[[9, 20, 36]] = centres[4]
    cluster, _ = all_compared(place(vectors, None), centres)
    assert (cluster == 4).any() and not np.isin(cluster, [9, 20, 36]).any()


def test_near_centres(population: Any, mesh: Mesh | None) -> None:
    """Each tile's users see the centres of two tiles, found here by looking at all of these."""
    vectors, centres = population
    number = np.append(np.random.default_rng(1).permutation(CENTRES), 5).reshape(-1, 2).astype(np.int32)
    home = np.empty(CENTRES, np.int32)
    home[number] = np.arange(len(number))[:, None]
    near = np.stack([np.arange(19), (np.arange(19) + 7) % 19], axis=1).astype(np.int32)
    own = np.random.default_rng(2).integers(0, 11, USERS).astype(np.int32)
    placed = place(vectors, mesh)
    padded = np.pad(own, (0, len(placed.rows) - USERS))
    with jax.set_mesh(placed.mesh):
        found = compare_near(placed, jax.device_put(padded), centres, NearTiles(number, home, near))
    oracle = distances(vectors, centres)
    for user in range(USERS):
        seen = number[near[home[own[user]]]].reshape(-1)
        assert np.asarray(found)[user] == seen[oracle[user, seen].argmin()]


def test_measure(population: Any, mesh: Mesh | None) -> None:
    """Cluster 3 is empty; padding counts nowhere, though it is in a cluster like a user."""
    vectors, centres = population
    cluster = np.random.default_rng(3).integers(4, CENTRES, USERS).astype(np.int32)
    placed = place(vectors, mesh)
    padded = np.pad(cluster, (0, len(placed.rows) - USERS))
    with jax.set_mesh(placed.mesh):
        squared, total, members = map(np.asarray, cluster_sums(placed, jax.device_put(padded), centres))
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    expected = np.stack([centred[cluster == c].sum(axis=0) for c in range(CENTRES)])
    np.testing.assert_allclose(total, expected, atol=1e-4)
    np.testing.assert_array_equal(members, np.bincount(cluster, minlength=CENTRES))
    oracle = distances(vectors, centres)[np.arange(USERS), cluster]
    np.testing.assert_allclose(squared[:USERS], oracle, rtol=1e-4, atol=1e-5)
    assert (squared[USERS:] == 0).all()


def test_fewer_users_than_devices() -> None:
    vectors = np.array([[0.0], [1.0], [5.0]], np.float32)
    centres = np.array([[3.0], [-2.0]], np.float32)
    cluster, _ = all_compared(place(vectors, jax.make_mesh((8,), ("data",))), centres)
    np.testing.assert_array_equal(cluster, [1, 1, 0])


def test_no_array_of_users_by_centres() -> None:
    """What each program needs beside its arguments and results, for 64 times as many users as centres."""
    users, clusters, width = 65_536, 1024, 64
    placed = place(np.zeros((users, width), np.float32), None)
    centres, whose = np.zeros((clusters, width), np.float32), np.zeros(users, np.int32)
    tiles = np.zeros((64, width, 16), np.float32), np.zeros((64, 16), np.float32)
    number, near = np.zeros((64, 16), np.int32), np.zeros((64, 4), np.int32)
    common = placed.mesh, placed.rows, placed.mean
    programs = (
        kmeans_passes._compare.lower(*common, *start_distances(placed), *tiles, np.zeros(64, np.int32)),
        kmeans_passes._choose_near.lower(*common, whose, *tiles, number, near),
        kmeans_passes._measure.lower(*common, whose, centres, np.int32(users)),
    )
    for program in programs:
        beside = program.compile().memory_analysis().temp_size_in_bytes
        assert beside < 32 * users, "a few numbers for each user, not 4 KiB, and no copy of the vectors"
