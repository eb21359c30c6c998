"""The graph of users, items and what items are linked to, and sums over all its edges in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.mesh import even, put
from reland_jax.types import Ragged

SELF, TO_USER, TO_ITEM = 0, 1, 2
"""Kinds of edges: from a node to itself (never stored), from an item to a user, and back."""

TILE_EDGES = 1 << 16
"""Edges whose messages exist at one time during inference."""


class Graph(NamedTuple):
    """Directed edges in compressed sparse rows; every edge has its reverse.

    Nodes are users, then the padding item and the items, then entities: user ``u`` is node ``u``, item
    ``i`` is node ``U + i`` and entity ``e`` is node ``U + I + 1 + e``. (On a mesh U and I + 1 are the
    rows of the tables, which are filled up.)

    Attributes:
        sender: ``<int32>[E]``, where every edge comes from, ascending within a row.
        indptr: ``<int32>[nodes + 1]``; the edges into node ``v`` are ``indptr[v] .. indptr[v + 1]``.
        relation: ``<int8>[E]``, the kind of every edge: `TO_USER`, `TO_ITEM`, and for entities of field
            f ``3 + 2 f`` into items and ``4 + 2 f`` into entities.
    """

    sender: jax.Array
    indptr: jax.Array
    relation: jax.Array

    @property
    def num_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.indptr) - 1


def count_relations(fields: int) -> int:
    """How many kinds of edges there are with so many fields of entities."""
    return 3 + 2 * fields


def build_graph(train: Ragged, num_items: int, entities: np.ndarray | None = None) -> Graph:
    """The graph of the training interactions and of the items' entities.

    Args:
        train: training items of every user.
        num_items: I; item 0 is a node without edges.
        entities: ``<int32>[F, I + 1]``, the entity of every item in F fields, -1 where there is none;
            None for a graph of users and items only.
    """
    if entities is None:
        entities = np.zeros((0, num_items + 1), np.int32)
    first_item = even(train.num_rows)
    first_entity = first_item + even(num_items + 1)
    user = np.repeat(np.arange(train.num_rows), train.lengths())
    links = [(user, train.items + first_item, TO_USER, TO_ITEM)]
    for field, entity in enumerate(entities):
        item = np.flatnonzero(entity >= 0)
        links.append((item + first_item, entity[item] + first_entity, 3 + 2 * field, 4 + 2 * field))
    receiver = np.concatenate([end for first, second, *_ in links for end in (first, second)])
    sender = np.concatenate([end for first, second, *_ in links for end in (second, first)])
    relation = np.concatenate([np.full(len(first), kind) for first, _, *kinds in links for kind in kinds])
    order = np.lexsort((sender, receiver))
    degree = np.bincount(receiver, minlength=first_entity + even(entities.max(initial=-1) + 1))
    indptr = np.concatenate([[0], np.cumsum(degree)])
    arrays = sender[order].astype(np.int32), indptr.astype(np.int32), relation[order].astype(np.int8)
    return Graph(*map(put, arrays))


class Edges(NamedTuple):
    """A tile of the edges of a graph.

    Attributes:
        sender: ``<int32>[n]``.
        receiver: ``<int32>[n]``; the number of nodes for an edge that is not to be counted, which a
            scatter drops.
        relation: ``<int8>[n]``.
    """

    sender: jax.Array
    receiver: jax.Array
    relation: jax.Array


def over_edges(graph: Graph, step: Callable[[Any, Edges], Any], start: Any) -> Any:
    """Folds `step` over all edges, `TILE_EDGES` at a time.

    Args:
        graph: see `Graph`.
        step: (carry, a tile of edges) -> carry.
        start: the first carry.
    """
    edges = len(graph.sender)
    size = min(TILE_EDGES, edges)

    def tile(carry: Any, index: jax.Array) -> tuple[Any, None]:
        # The last tile reaches back into the one before it, to edges that were counted there.
        edge = jnp.minimum(index * size, edges - size) + jnp.arange(size, dtype=jnp.int32)
        receiver = jnp.searchsorted(graph.indptr, edge, side="right").astype(jnp.int32) - 1
        receiver = jnp.where(edge >= index * size, receiver, graph.num_nodes)
        return step(carry, Edges(graph.sender[edge], receiver, graph.relation[edge])), None

    return jax.lax.scan(tile, start, jnp.arange(-(-edges // max(size, 1)), dtype=jnp.int32))[0]


def propagate_in_tiles(graph: Graph, nodes: jax.Array) -> jax.Array:
    """D^-1/2 A D^-1/2 X as `reland_jax.models.graph.propagate` has it, ``<float32>[nodes, D]`` both.

    Nothing as long as the edges is built, whatever the device.
    """
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diff(graph.indptr), 1).astype(jnp.float32))[:, None]

    def add(total: jax.Array, edges: Edges) -> jax.Array:
        messages = scale[edges.sender] * nodes[edges.sender]
        return total.at[edges.receiver].add(messages, mode="drop")

    return scale * over_edges(graph, add, jnp.zeros_like(nodes))
