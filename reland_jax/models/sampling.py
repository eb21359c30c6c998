"""Neighbours of the nodes of a batch, drawn on the device within a training step.

The memory of a step then depends on its batch and the fan-out, and not on the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.models.graph import Graph
from reland_jax.models.segments import inverse_root


class Hop(NamedTuple):
    """Sampled neighbours of n nodes.

    Attributes:
        node: ``<int32>[n, fanout]``, the neighbours; any node where `copies` is 0.
        relation: ``<int8>[n, fanout]``, the kind of the edge from each of them.
        copies: ``<float32>[n, fanout]``, how many neighbours each one stands for; 0 where unused.
    """

    node: jax.Array
    relation: jax.Array
    copies: jax.Array


class Tree(NamedTuple):
    """Sampled neighbours of a batch of nodes, neighbours of these, and so on.

    Attributes:
        node: ``<int32>[N]``, the nodes of all depths: the batch ``[B]``, its neighbours ``[B, fanout[0]]``,
            theirs ``[B, fanout[0], fanout[1]]`` and so on, each flattened.
        hops: from every depth but the last to the next.
    """

    node: jax.Array
    hops: tuple[Hop, ...]


def sample_neighbours(graph: Graph, node: jax.Array, fanout: int, key: jax.Array) -> Hop:
    """Draws at most `fanout` neighbours of every node, all with the same probability.

    A node with at most `fanout` neighbours gets each of them once. Of d neighbours, where there are more,
    every (d / fanout)-th is taken, from a random one on: they are distinct, each is taken with probability
    fanout / d, and stands for d / fanout. So the sum of ``copies * f(neighbour)`` is an unbiased estimate
    of the sum of f over all neighbours.

    Args:
        graph: see `Graph`.
        node: ``<int32>[n]``.
        fanout: neighbours per node.
        key: PRNG key.
    """
    begin, degree = (graph.nodes[name][node][:, None] for name in ("begin", "degree"))
    start = jax.random.randint(key, degree.shape, 0, jnp.maximum(degree, 1))
    edge = jnp.minimum(begin + places(degree, start, fanout), len(graph.senders) - 1)
    used = jnp.arange(fanout) < degree
    copies = jnp.where(used, jnp.maximum(degree / fanout, 1.0), 0.0)
    return Hop(graph.senders[edge], graph.edges["relation"][edge], copies)


def places(degree: jax.Array, start: jax.Array, fanout: int) -> jax.Array:
    """Which of a node's neighbours are taken.

    Args:
        degree: ``<int32>[n, 1]``, how many there are.
        start: ``<int32>[n, 1]`` in 0 .. degree - 1.
        fanout: how many may be taken.

    Returns:
        ``<int32>[n, fanout]``: 0, 1, 2 and so on where there are few; else, for slot s, the whole part of
        (s degree + start) / fanout, computed without a product that int32 cannot hold.
    """
    slot = jnp.arange(fanout, dtype=jnp.int32)
    spread = slot * (degree // fanout) + (slot * (degree % fanout) + start) // fanout
    return jnp.where(degree > fanout, spread, jnp.minimum(slot, jnp.maximum(degree - 1, 0)))


def sample_tree(graph: Graph, node: jax.Array, fanout: Sequence[int], key: jax.Array) -> Tree:
    """Draws ``fanout[k]`` neighbours of every node of depth k; the nodes of depth 0 are ``<int32>[B]``."""
    depths, hops = [node], []
    for depth, count in enumerate(fanout):
        hop = sample_neighbours(graph, depths[-1], count, jax.random.fold_in(key, depth))
        hops.append(hop)
        depths.append(hop.node.reshape(-1))
    return Tree(jnp.concatenate(depths), tuple(hops))


def split_depths(rows: jax.Array, hops: Sequence[Hop]) -> list[jax.Array]:
    """Rows of a tree's nodes ``[N, ...]``, depth by depth: ``[B, ...]``, ``[B fanout[0], ...]`` and so on."""
    ends = np.cumsum([len(hops[0].node), *(hop.node.size for hop in hops)])
    return jnp.split(rows[: ends[-1]], ends[:-1])


def propagate_sampled(graph: Graph, tree: Tree, rows: jax.Array) -> jax.Array:
    """The sum of the hops 0 to K of D^-1/2 A D^-1/2 X at the nodes of a batch, estimated without bias.

    A sampled edge counts with its weight 1 / sqrt(d_v d_j) times the edges it stands for, so that what is
    estimated is the sum over all neighbours; neighbours of different nodes are drawn independently, so
    that an estimated sum of estimates has no bias either.

    Args:
        graph: see `Graph`.
        tree: of K hops.
        rows: ``<float32>[N, D]``, X at the nodes of the tree.

    Returns:
        ``<float32>[B, D]``.
    """
    scale = inverse_root(graph.nodes["degree"][tree.node])
    scales, depths = split_depths(scale, tree.hops), split_depths(rows, tree.hops)
    total = depths[-1]
    for depth, hop in reversed(list(enumerate(tree.hops))):
        far = (scales[depth + 1] * total).reshape(*hop.node.shape, -1)
        total = depths[depth] + scales[depth] * jnp.einsum("nf,nfd->nd", hop.copies, far)
    return total
