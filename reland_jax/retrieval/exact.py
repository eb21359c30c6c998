"""Exact nearest keys by cosine, on the device, for one tile of queries at a time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reland_jax.retrieval.vectors import checked, unit_rows
from reland_jax.types import RelandError


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

    def one_tile(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # HIGHEST: the default on an accelerator rounds the factors to fewer bits, which reorders seeds.
        cosine = jnp.dot(unit_rows(rows), keys.T, precision=lax.Precision.HIGHEST)
        # `top_k` puts 0.0 before -0.0, and a zero vector must tie with everything.
        cosine = jnp.clip(jnp.where(cosine == 0.0, 0.0, cosine), -1.0, 1.0)
        if k == 1:
            return jnp.argmax(cosine, axis=1)[:, None].astype(jnp.int32), cosine.max(axis=1, keepdims=True)
        best, index = lax.top_k(cosine, k)
        return index, best

    padded = jnp.pad(queries, ((0, -num_queries % tile), (0, 0)))
    index, cosine = lax.map(one_tile, padded.reshape(-1, tile, width))
    return index.reshape(-1, k)[:num_queries], cosine.reshape(-1, k)[:num_queries]
