"""K-means for many users and clusters: 37,500 clusters of a million users in minutes on two cores.

`kmeans` draws its start one user at a time, and compares all users with all centres in every iteration. Here
both are done in fewer and larger steps:

- The k-means++ start draws users in batches, each in proportion to the squared distance to those drawn
  before it (the idea of k-means||, Bahmani et al. 2012, without its second clustering). All batches
  together cost one comparison of all users with all centres.
- In most of Lloyd's iterations a user is compared with centres near its own only. When these stop improving,
  users are compared with all centres; the algorithm ends when that does not help either.

Memory beyond the vectors and their copy on the device is O(U + K D). The users can be split over the
devices of a mesh. The steps between the passes run on the host, which holds the vectors too.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from reland_jax.seeds.centre_tiles import near_tiles
from reland_jax.seeds.kmeans import KMeansResult, check_inertia, checked
from reland_jax.seeds.kmeans_passes import (
    Placed,
    cluster_sums,
    compare_near,
    place,
    resolve_centre,
    start_distances,
    update_nearest_tile,
)

# Users of one batch of the start, as a share of those drawn before it. The larger the share, the more often
# two users of a batch are close to each other, which k-means++ would have avoided.
_BATCH = 1 / 8

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """An assignment of users to centres.

    Attributes:
        centres: ``<float32>[K, D]``, less the mean of all users.
        cluster: ``<int32>[R]``, on the devices.
        squared: ``<float32>[U]``, the squared distance of every user to its centre.
        total: ``<float32>[K, D]``, the sum of the users of each cluster, less the mean of all users.
        members: ``<int32>[K]``, their number.
        inertia: the sum of `squared`.
    """

    centres: np.ndarray
    cluster: jax.Array
    squared: np.ndarray
    total: np.ndarray
    members: np.ndarray
    inertia: float


def kmeans_large(
    vectors: np.ndarray,
    num_clusters: int,
    key: jax.Array,
    *,
    iterations: int,
    tolerance: float,
    mesh: Mesh | None = None,
) -> KMeansResult:
    """Clusters users (paper, section 3.1.1); the result has the properties of that of `kmeans`.

    Every user is with the nearest of all centres, and Lloyd stops where an iteration over all centres
    improves the inertia by no more than `tolerance`. The same key gives the same result; on another
    number of devices up to rounding.

    Args:
        vectors: ``<float32>[U, D]``, finite.
        num_clusters: K, in 1 .. U.
        key: a `jax.random` key.
        iterations: upper bound on the Lloyd iterations of both kinds, 0 or more.
        tolerance: see `kmeans`.
        mesh: devices of this process, over all of which users are split; None is the first device.

    Raises:
        RelandError: see `kmeans`.
    """
    vectors = checked(vectors, iterations, tolerance, num_clusters)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    users = place(vectors, mesh)
    with jax.set_mesh(users.mesh):
        centres, cluster = _start(users, vectors, num_clusters, rng)
        start = _measured(users, cluster, centres)
        _log.info("K-means: started, inertia %.7g", start.inertia)
        found, done = _lloyd(users, vectors, start, rng, iterations, tolerance)
    return KMeansResult(
        centres=found.centres + np.asarray(users.mean),
        cluster=np.asarray(found.cluster)[: len(vectors)],
        inertia=found.inertia,
        iterations=done,
        distance=np.sqrt(found.squared),
    )


def _start(
    users: Placed, vectors: np.ndarray, num_clusters: int, rng: np.random.Generator
) -> tuple[np.ndarray, jax.Array]:
    """Centres ``<float32>[K, D]``, less the mean, and which of all of them is the nearest of each user."""
    drawn = np.empty(num_clusters, np.int64)
    nearest, mean, begin = start_distances(users), np.asarray(users.mean), 0
    while begin < num_clusters:
        # A power of two, of which what has been drawn is a multiple, so that few programs are compiled.
        size = 1 << max(0, int(np.log2(max(1, begin) * _BATCH)))
        end = min(begin + size, num_clusters)
        drawn[begin:end] = _draw(np.asarray(nearest.squared)[: users.users], drawn[:begin], end - begin, rng)
        nearest = update_nearest_tile(users, nearest, vectors[drawn[begin:end]] - mean, begin)
        if end.bit_length() > begin.bit_length() or end == num_clusters:
            _log.info("K-means: %d of %d centres drawn", end, num_clusters)
        begin = end
    centres = vectors[drawn] - mean
    return centres, resolve_centre(users, nearest, centres)


def _draw(squared: np.ndarray, before: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Users ``[count]`` drawn without replacement in proportion to ``<float32>[U]``, not those from before
    while there are others; uniformly where nobody has been drawn yet."""
    weight = np.where(np.isinf(squared), 1.0, squared.astype(np.float64))
    weight[before] = 0.0
    # Exponential waiting times with these rates: the first to arrive is u with probability weight[u] / sum,
    # and so on.
    with np.errstate(divide="ignore"):
        times = rng.standard_exponential(len(weight)) / weight
    return np.argpartition(times, count - 1)[:count]


def _lloyd(
    users: Placed,
    vectors: np.ndarray,
    found: _Found,
    rng: np.random.Generator,
    iterations: int,
    tolerance: float,
) -> tuple[_Found, int]:
    """Every user with the nearest of all centres, where Lloyd's iterations ended, and their number."""
    done, complete, stalled = 0, True, False
    while done < iterations and not (complete and stalled):
        complete = stalled
        centres = _moved(users, vectors, found)
        cluster = (
            _everywhere(users, centres)
            if complete
            else compare_near(users, found.cluster, centres, near_tiles(centres, rng))
        )
        before, found, done = found.inertia, _measured(users, cluster, centres), done + 1
        stalled = not found.inertia < (1.0 - tolerance) * before
        which = "all" if complete else "near"
        _log.info("K-means: iteration %d, %s centres compared, inertia %.7g", done, which, found.inertia)
    if not complete:
        found = _measured(users, _everywhere(users, found.centres), found.centres)
        _log.info("K-means: last assignment, all centres compared, inertia %.7g", found.inertia)
    return found, done


def _measured(users: Placed, cluster: jax.Array, centres: np.ndarray) -> _Found:
    squared, total, members = cluster_sums(users, cluster, centres)
    distances = np.asarray(squared)[: users.users]
    inertia = float(distances.sum(dtype=np.float64))
    check_inertia(inertia)
    return _Found(centres, cluster, distances, np.asarray(total), np.asarray(members), inertia)


def _everywhere(users: Placed, centres: np.ndarray) -> jax.Array:
    return resolve_centre(users, update_nearest_tile(users, start_distances(users), centres, 0), centres)


def _moved(users: Placed, vectors: np.ndarray, found: _Found) -> np.ndarray:
    """Means ``<float32>[K, D]`` of the clusters; an empty one goes to one of the users farthest from their
    own centres, a different one each."""
    means = found.total / np.maximum(found.members, 1)[:, None].astype(np.float32)
    empty = np.flatnonzero(found.members == 0)
    if len(empty):
        farthest = np.argsort(-found.squared, kind="stable")[: len(empty)]
        means[empty] = vectors[farthest] - np.asarray(users.mean)
    return means
