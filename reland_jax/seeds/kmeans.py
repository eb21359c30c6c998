"""K-means on the device: k-means++ start, then Lloyd's iterations, in one compiled program.

Letters as in `reland_jax.types`; K is the number of clusters here. Memory beyond the vectors is
O(tile x K): distances are formed for one tile of users at a time, never as a U x K matrix.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reland_jax.device import sizes
from reland_jax.types import RelandError


class KMeansResult(NamedTuple):
    """What K-means found.

    Attributes:
        centres: ``<float32>[K, D]``.
        cluster: ``<int32>[U]``, the nearest centre of every user; ties go to the smaller number.
        inertia: sum over users of the squared Euclidean distance to their centre.
        iterations: Lloyd iterations done.
        distance: ``<float32>[U]``, Euclidean distance of every user to its centre.
    """

    centres: np.ndarray
    cluster: np.ndarray
    inertia: float
    iterations: int
    distance: np.ndarray


class _State(NamedTuple):
    """Carry of the Lloyd loop; cluster and squared distance belong to `centres`."""

    centres: jax.Array
    cluster: jax.Array
    squared: jax.Array
    inertia: jax.Array
    previous: jax.Array
    iteration: jax.Array


def kmeans(
    vectors: np.ndarray | jax.Array, num_clusters: int, key: jax.Array, *, iterations: int, tolerance: float
) -> KMeansResult:
    """Clusters users from a k-means++ start (paper, section 3.1.1).

    The same key gives the same result on a CPU. On a GPU the sums of a cluster are added up in no
    fixed order, so the last bits of the centres may differ from run to run.

    Args:
        vectors: ``<float32>[U, D]``, finite.
        num_clusters: K, in 1 .. U. If K exceeds the number of distinct vectors, the surplus clusters stay
            empty.
        key: a `jax.random` key.
        iterations: upper bound on the Lloyd iterations, 0 or more.
        tolerance: Lloyd stops at a relative improvement of the inertia of at most this, in [0, 1).

    Raises:
        RelandError: an argument out of range, vectors not finite or so large that their squares are not.
    """
    vectors = checked(vectors, iterations, tolerance, num_clusters)
    state, mean = _start_and_iterate(
        jnp.asarray(vectors), key, iterations, tolerance, num_clusters=num_clusters, tile=_tile(num_clusters)
    )
    return _result(state, mean)


def plus_plus(vectors: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    """The k-means++ start: users drawn one by one, with probability proportional to the squared
    distance to the nearest user drawn so far (the first one uniformly). Can be traced by `jax.jit`.

    Args:
        vectors: ``<float32>[U, D]``.
        num_clusters: K.
        key: a `jax.random` key.

    Returns:
        ``<int32>[K]`` users; a user repeats only when every vector has been drawn.
    """
    num_users = len(vectors)
    first = jax.random.randint(jax.random.fold_in(key, 0), (), 0, num_users, jnp.int32)
    users = jnp.zeros(num_clusters, jnp.int32).at[0].set(first)

    def add(step: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        users, squared = carry
        user = _draw(squared, jax.random.fold_in(key, step))
        return users.at[step].set(user), jnp.minimum(squared, _squared_norm(vectors - vectors[user]))

    start = users, _squared_norm(vectors - vectors[first])
    return lax.fori_loop(1, num_clusters, add, start)[0]


def _draw(weight: jax.Array, key: jax.Array) -> jax.Array:
    """A row number drawn in proportion to its weight ``<float32>[U]``; a weight of 0 is never drawn
    while there is another.

    Two levels (a block of users, then a user of it) need 2 sqrt(U) random numbers and no running
    sum over all users, whose rounding could pick a user of weight 0.
    """
    block_key, user_key = jax.random.split(key)
    blocks = _rows(weight, max(1, round(len(weight) ** 0.5)))
    block = jax.random.categorical(block_key, jnp.log(blocks.sum(axis=1)))
    user = jax.random.categorical(user_key, jnp.log(blocks[block]))
    return (block * blocks.shape[1] + user).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("num_clusters", "tile"))
def _start_and_iterate(
    vectors: jax.Array,
    key: jax.Array,
    iterations: jax.Array,
    tolerance: jax.Array,
    *,
    num_clusters: int,
    tile: int,
) -> tuple[_State, jax.Array]:
    mean = vectors.mean(axis=0)
    vectors = vectors - mean
    centres = vectors[plus_plus(vectors, num_clusters, key)]
    return _iterate(vectors, centres, iterations, tolerance, tile), mean


def _iterate(
    vectors: jax.Array, centres: jax.Array, iterations: jax.Array, tolerance: jax.Array, tile: int
) -> _State:
    """Lloyd's loop. The mean is subtracted from the vectors: without a common offset |x|^2 - 2 x c + |c|^2
    loses fewer digits.

    An iteration moves every centre to the mean of its users, then assigns every user again. A cluster left
    without users is moved to one of the users farthest from their own centres, a different user for each
    empty cluster; this never raises the inertia.
    """

    def improves(state: _State) -> jax.Array:
        return (state.iteration < iterations) & (state.inertia < (1.0 - tolerance) * state.previous)

    def step(state: _State) -> _State:
        centres = _move(vectors, state.cluster, state.squared, len(state.centres))
        cluster, squared = _assign(vectors, centres, tile)
        return _State(centres, cluster, squared, _total(squared), state.inertia, state.iteration + 1)

    cluster, squared = _assign(vectors, centres, tile)
    start = _State(centres, cluster, squared, _total(squared), jnp.float32(jnp.inf), jnp.int32(0))
    return lax.while_loop(improves, step, start)


def _assign(vectors: jax.Array, centres: jax.Array, tile: int) -> tuple[jax.Array, jax.Array]:
    """Nearest centre ``<int32>[U]`` of every user and the squared distance ``<float32>[U]`` to it."""
    half_norm = 0.5 * _squared_norm(centres)
    numbers = jnp.arange(len(centres), dtype=jnp.int32)

    def one_tile(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        score = half_norm - jnp.dot(rows, centres.T, precision=lax.Precision.HIGHEST)
        # A minimum, then the first index that has it: XLA's argmin on a CPU is slower than both.
        least = score.min(axis=1, keepdims=True)
        nearest = jnp.where(score == least, numbers, len(centres) - 1).min(axis=1)
        return nearest, _squared_norm(rows - centres[nearest])

    cluster, squared = lax.map(one_tile, _rows(vectors, min(tile, len(vectors))))
    return cluster.reshape(-1)[: len(vectors)], squared.reshape(-1)[: len(vectors)]


def _move(vectors: jax.Array, cluster: jax.Array, squared: jax.Array, num_clusters: int) -> jax.Array:
    """Means ``<float32>[K, D]`` of the clusters; see `_iterate` for the empty ones."""
    count = jax.ops.segment_sum(jnp.ones_like(squared), cluster, num_clusters)
    total = jax.ops.segment_sum(vectors, cluster, num_clusters)
    means = total / jnp.maximum(count, 1.0)[:, None]
    empty = count == 0

    def refill() -> jax.Array:
        farthest = jnp.argsort(squared, descending=True)[:num_clusters]
        rank = jnp.cumsum(empty) - 1
        return jnp.where(empty[:, None], vectors[farthest[rank]], means)

    return lax.cond(empty.any(), refill, lambda: means)


def _squared_norm(rows: jax.Array) -> jax.Array:
    return jnp.sum(rows * rows, axis=1)


def _total(values: jax.Array) -> jax.Array:
    """Sum of ``<float32>[U]`` in two levels, which keeps float32 accurate for millions of users."""
    return _rows(values, 1024).sum(axis=1).sum()


def _rows(values: jax.Array, width: int) -> jax.Array:
    """``[U, ...]`` padded with zeros and cut into ``[ceil(U / width), width, ...]``."""
    short = -len(values) % width
    padded = jnp.pad(values, ((0, short),) + ((0, 0),) * (values.ndim - 1))
    return padded.reshape(-1, width, *values.shape[1:])


def _tile(num_clusters: int) -> int:
    """Number of users whose distances to all centres are computed at a time."""
    return max(1, sizes().kmeans_bytes // (4 * num_clusters))


def checked(
    vectors: np.ndarray | jax.Array, iterations: int, tolerance: float, num_clusters: int = 1
) -> np.ndarray:
    """The vectors as ``<float32>[U, D]`` on the host; raises what `kmeans` does of its arguments."""
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.size == 0:
        raise RelandError(f"K-means: vectors of shape {vectors.shape}; expected [users, width], not empty")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise RelandError(
            f"K-means: {len(bad)} of {len(vectors)} vectors are not finite, the first at rows "
            f"{bad[:5].tolist()}; look at the training of the behaviour encoder"
        )
    if iterations < 0 or not 0.0 <= tolerance < 1.0:
        raise RelandError(
            f"K-means: iterations={iterations} must be at least 0 and tolerance={tolerance} in [0, 1)"
        )
    if not 1 <= num_clusters <= len(vectors):
        raise RelandError(
            f"K-means: {num_clusters} clusters of {len(vectors)} users; the number of clusters "
            "(config.seeds.clusters) must be between 1 and the number of users"
        )
    return vectors


def check_inertia(inertia: float) -> None:
    """Raises `RelandError` where the squares of the vectors were too large for float32."""
    if not np.isfinite(inertia):
        raise RelandError("K-means: the squares of the vectors overflow float32; scale the vectors down")


def _result(state: _State, mean: jax.Array) -> KMeansResult:
    inertia = float(state.inertia)
    check_inertia(inertia)
    return KMeansResult(
        centres=np.asarray(state.centres + mean),
        cluster=np.asarray(state.cluster),
        inertia=inertia,
        iterations=int(state.iteration),
        distance=np.asarray(jnp.sqrt(state.squared)),
    )
