"""Exact nearest keys by cosine, on the device, for one tile of queries at a time.

`exact_top_k` is one call; `ExactIndex` keeps the keys for repeated calls with a stream of queries, and
divides the queries among the devices of the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reland_jax.device import sizes
from reland_jax.retrieval.vectors import checked, unit_rows
from reland_jax.types import RelandError

_USERS = "users"  # the axis along which devices divide the queries


class ExactIndex:
    """Keys prepared once for many batches of queries; the results are those of `exact_top_k`.

    Cosines may differ from those of `exact_top_k` in the last bit, as products of another shape do.
    """

    def __init__(
        self, keys: np.ndarray, recall: float = 1.0, devices: Sequence[jax.Device] | None = None
    ) -> None:
        """Checks the keys and puts them on every device.

        Args:
            keys: ``<float32>[S, D]``, finite.
            recall: below 1, `jax.lax.approx_max_k` picks the nearest keys and is asked for this share
                of the true ones; it was made for TPUs, and finds all of them on other devices, with equal
                cosines in any order.
            devices: each searches its share of the queries; None takes those of this process. What is
                found does not depend on them.

        Raises:
            RelandError: keys that are not finite, or a recall outside (0, 1].
        """
        if not 0.0 < recall <= 1.0:
            raise RelandError(f"retrieval: recall {recall} must be above 0 and at most 1")
        _, self._given = checked(keys[:1], keys, 1)
        self._recall = recall
        self._mesh = Mesh(np.asarray(jax.local_devices() if devices is None else devices), (_USERS,))
        self._rows = sizes().exact_queries * self._mesh.size
        unit = unit_rows(jnp.asarray(self._given))
        layout = (unit, _key_tiles(unit), jnp.asarray(len(unit), jnp.int32))
        self._layout = jax.device_put(layout, NamedSharding(self._mesh, PartitionSpec()))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k keys of largest cosine for every query; arguments, results and errors as `exact_top_k`.

        Memory beyond the arguments is O(tile): queries are padded to whole tiles, so that a batch of
        any length runs the one compiled program.
        """
        queries, _ = checked(queries, self._given, k)
        count = len(queries)
        if not count:
            return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
        padded = np.pad(queries, ((0, -count % self._rows), (0, 0)))
        search, tiles = _on_each(self._mesh, k, self._recall), range(0, len(padded), self._rows)
        found = [search(padded[row : row + self._rows], self._layout) for row in tiles]
        index = np.concatenate([np.asarray(part[0]) for part in found])
        cosine = np.concatenate([np.asarray(part[1]) for part in found])
        return index[:count], cosine[:count]


def exact_top_k(
    queries: np.ndarray | jax.Array, keys: np.ndarray | jax.Array, k: int, tile: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of largest cosine for every query (paper, Eq. 3).

    Where float32 cosines are equal, the smaller key number comes first. A vector of zeros has
    cosine 0 with everything.

    Args:
        queries: ``<float32>[Q, D]``, finite.
        keys: ``<float32>[S, D]``, finite.
        k: keys per query, in 1 .. S.
        tile: queries compared with all keys at a time; the device holds ``tile x S`` cosines.

    Returns:
        Key numbers ``<int32>[Q, k]``, nearest first, and their cosines ``<float32>[Q, k]`` in [-1, 1].

    Raises:
        RelandError: an argument out of range, or vectors that are not finite (their rows are named).
    """
    queries, keys = checked(queries, keys, k)
    if tile < 1:
        raise RelandError(f"retrieval: config.retrieval.tile={tile} must be at least 1")
    if not len(queries):
        return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
    index, cosine = _top_k(queries, keys, k=k, tile=min(tile, len(queries)))
    return np.asarray(index), np.asarray(cosine)


@functools.partial(jax.jit, static_argnames=("k", "tile"))
def _top_k(queries: jax.Array, keys: jax.Array, *, k: int, tile: int) -> tuple[jax.Array, jax.Array]:
    num_queries, width = queries.shape
    keys = unit_rows(keys)

    padded = jnp.pad(queries, ((0, -num_queries % tile), (0, 0)))
    index, cosine = lax.map(lambda rows: nearest(rows, keys, k), padded.reshape(-1, tile, width))
    return index.reshape(-1, k)[:num_queries], cosine.reshape(-1, k)[:num_queries]


def nearest(rows: jax.Array, keys: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`exact_top_k` as a pure function of rows ``<float32>[q, D]`` and keys ``[S, D]`` of length 1."""
    # HIGHEST: the default on an accelerator rounds the factors to fewer bits, which reorders seeds.
    cosine = jnp.dot(unit_rows(rows), keys.T, precision=lax.Precision.HIGHEST)
    # `top_k` puts 0.0 before -0.0, and a zero vector must tie with everything.
    cosine = jnp.clip(jnp.where(cosine == 0.0, 0.0, cosine), -1.0, 1.0)
    if k == 1:
        return jnp.argmax(cosine, axis=1)[:, None].astype(jnp.int32), cosine.max(axis=1, keepdims=True)
    best, index = lax.top_k(cosine, k)
    return index, best


def _key_tiles(keys: jax.Array) -> jax.Array:
    """Unit keys ``[S, D]`` as ``[tiles, D, keys of a tile]``; the last tile is filled with key 0, whose
    copies lose every tie against it."""
    size = min(sizes().exact_keys, len(keys))
    fill = jnp.broadcast_to(keys[:1], (-len(keys) % size, keys.shape[1]))
    return jnp.concatenate([keys, fill]).reshape(-1, size, keys.shape[1]).transpose(0, 2, 1)


@functools.lru_cache
def _on_each(mesh: Mesh, k: int, recall: float) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The search of one tile of queries per device, among keys that every device holds."""

    def one_tile(
        rows: jax.Array, layout: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        keys, tiles, num_keys = layout
        if recall < 1.0:
            return _approximate(rows, keys, k=k, recall=recall)
        if k == 1:
            return _nearest(rows, tiles, num_keys)
        return _top_k(rows, keys, k=k, tile=len(rows))

    own, whole = PartitionSpec(_USERS), PartitionSpec()
    return jax.jit(jax.shard_map(one_tile, mesh=mesh, in_specs=(own, whole), out_specs=own, check_vma=False))


def _nearest(rows: jax.Array, tiles: jax.Array, num_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest key ``[q, 1]`` and its cosine, with a running maximum over the tiles of keys."""
    rows, size = unit_rows(rows), tiles.shape[2]
    numbers = jnp.arange(size, dtype=jnp.int32)

    def one_tile(
        best: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        keys, number = tile
        cosine = jnp.clip(jnp.dot(rows, keys, precision=lax.Precision.HIGHEST), -1.0, 1.0)
        # A maximum, then the first index that has it: XLA's argmax on a CPU is slower than both.
        largest = cosine.max(axis=1)
        first = jnp.where(cosine == largest[:, None], numbers, size - 1).min(axis=1) + number * size
        better = largest > best[1]
        return (jnp.where(better, first, best[0]), jnp.where(better, largest, best[1])), None

    start = (jnp.zeros(len(rows), jnp.int32), jnp.full(len(rows), -2.0))
    (index, cosine), _ = lax.scan(one_tile, start, (tiles, jnp.arange(len(tiles), dtype=jnp.int32)))
    index = jnp.where(index < num_keys, index, 0)
    return index[:, None], jnp.where(cosine == 0.0, 0.0, cosine)[:, None]


def _approximate(rows: jax.Array, keys: jax.Array, *, k: int, recall: float) -> tuple[jax.Array, jax.Array]:
    cosine = jnp.dot(unit_rows(rows), keys.T, precision=lax.Precision.HIGHEST)
    cosine = jnp.clip(jnp.where(cosine == 0.0, 0.0, cosine), -1.0, 1.0)
    best, index = lax.approx_max_k(cosine, k, recall_target=recall)
    return index, best
