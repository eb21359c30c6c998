"""Sums over the edges of a graph, receiver by receiver, in tiles.

Edges lie in the order of their receivers, which are stored with them. The messages of a tile of edges are
added up by `jax.ops.segment_sum`'s own operation, a scatter with `indices_are_sorted=True`, into
what the tiles before have left; so nothing as long as the edges is built, whatever the device. (On a GPU the
additions into one row come in no fixed order, so the last bits may differ from run to run.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.device import sizes


class Edges(NamedTuple):
    """Directed edges, or a tile of them.

    Attributes:
        sender: ``<int32>[E]``, where every edge comes from.
        receiver: ``<int32>[E]``, where it leads to, ascending. In a tile it is -1 for an edge that another
            tile has counted, and `add` and `raise_to` leave that out.
        weight: ``<float32>[E]``, or None where all have the same.
        relation: ``<int8>[E]``, the kind of every edge, or None where there is but one.
    """

    sender: np.ndarray | jax.Array
    receiver: np.ndarray | jax.Array
    weight: np.ndarray | jax.Array | None = None
    relation: np.ndarray | jax.Array | None = None


# What JAX takes as arguments of different types.
_SORTED: dict[str, Any] = {"indices_are_sorted": True, "mode": "drop", "wrap_negative_indices": False}


def over_tiles(edges: Edges, step: Callable[[Any, Edges], Any], start: Any) -> Any:
    """Folds `step` over all edges, `Sizes.edges` at a time.

    Args:
        edges: see `Edges`.
        step: (carry, a tile of edges) -> carry.
        start: the first carry.
    """
    count = len(edges.sender)
    size = min(sizes().edges, count)
    if count == size:
        return step(start, edges) if count else start

    def tile(carry: Any, index: jax.Array) -> tuple[Any, None]:
        # The last tile reaches back into the one before it, to edges that were counted there. They come
        # first, so that with receivers of -1 the order is kept.
        begin = jnp.minimum(index * size, count - size)
        cut = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, begin, size), edges)
        new = begin + jnp.arange(size, dtype=jnp.int32) >= index * size
        return step(carry, cut._replace(receiver=jnp.where(new, cut.receiver, -1))), None

    return jax.lax.scan(tile, start, jnp.arange(-(-count // size), dtype=jnp.int32))[0]


def add(total: jax.Array, edges: Edges, messages: jax.Array) -> jax.Array:
    """Adds messages ``[n, ...]`` of a tile's edges to the rows ``[nodes, ...]`` of their receivers."""
    return total.at[edges.receiver].add(messages, **_SORTED)


def raise_to(top: jax.Array, edges: Edges, values: jax.Array) -> jax.Array:
    """The larger of rows ``[nodes, ...]`` and of the values ``[n, ...]`` that a tile's edges bring them."""
    return top.at[edges.receiver].max(values, **_SORTED)


def neighbour_sum(edges: Edges, senders: jax.Array, rows: int) -> jax.Array:
    """The weighted sum over the edges into each row.

    Args:
        edges: with weights or without.
        senders: ``<float32>[columns, D]``, what the edges carry.
        rows: how many receivers there are.

    Returns:
        ``<float32>[rows, D]``.
    """

    def step(total: jax.Array, tile: Edges) -> jax.Array:
        messages = senders[tile.sender]
        if tile.weight is None:
            return add(total, tile, messages)
        return add(total, tile, jnp.asarray(tile.weight)[:, None] * messages)

    return over_tiles(edges, step, jnp.zeros((rows, senders.shape[1]), senders.dtype))


def inverse_root(degree: jax.Array) -> jax.Array:
    """The diagonal of D^-1/2 as a column ``<float32>[n, 1]``, of degrees ``<int32>[n]``; 1 where it is 0."""
    return jax.lax.rsqrt(jnp.maximum(degree, 1).astype(jnp.float32))[:, None]
