"""Graphs as jraph's `GraphsTuple`, and the propagation over users and items.

The sum over all edges takes one of two forms, which `Sizes.compressed_rows` chooses when the edges are laid
out. On a CPU it is a product with a matrix in compressed sparse rows, for which JAX has a kernel there, and
nowhere else: lowered for an accelerator the same product is a dozen gathers and scatters. There it is a
sorted segment sum (`reland_jax.models.segments`). The adjacency is symmetric, so the backward pass is the
same sum and never a scatter to the senders, which are in no order.

On a mesh the rows of users and items are sharded over the axis `model`, and so are the edges, by their
receivers. The rows of the senders travel round a ring of the devices, one shard at a time, so that no device
ever holds a whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jax.experimental import sparse
from jax.sharding import PartitionSpec

from reland_jax.device import sizes
from reland_jax.mesh import MODEL, active_mesh, axis_size, pad_to_axis
from reland_jax.models.segments import Edges, neighbour_sum
from reland_jax.types import Ragged

Graph: TypeAlias = jraph.GraphsTuple
"""Directed edges sorted by receiver, then by sender; every edge has its reverse.

Of its fields, `senders` and `receivers` are ``<int32>[E]``; `edges` is ``{"relation": <int8>[E]}``, the kind
of every edge; `nodes` is ``{"begin": <int32>[N], "degree": <int32>[N]}``: the edges into node ``v`` are the
``degree[v]`` from ``begin[v]`` on.
"""

Link = tuple[np.ndarray, np.ndarray, int, int]
"""Nodes ``<int32>[n]`` and what they are linked to ``<int32>[n]``; the kind of an edge from the second to the
first, and of its reverse."""

TO_USER, TO_ITEM = 1, 2
"""Kinds of edges: from an item to a user, and back."""


class CompressedRows(NamedTuple):
    """Weighted edges in compressed sparse rows; the rows are the receivers.

    On a mesh with m devices along `model` the arrays have two more leading axes: the shard of the rows, which
    decides the device that holds the edges, and the shard of the columns. Rows and columns are then numbered
    within their shards. The same is true of the arrays of `Edges` in a `Propagation`.

    Attributes:
        weight: ``<float32>[E]`` or ``[m, m, E']``.
        sender: ``<int32>[E]`` or ``[m, m, E']``, column of every edge, ascending within a row. An edge may
            be there twice.
        indptr: ``<int32>[rows + 1]`` or ``[m, m, rows / m + 1]``; the edges into row ``v`` are
            ``indptr[v] .. indptr[v + 1]``.
    """

    weight: np.ndarray | jax.Array
    sender: np.ndarray | jax.Array
    indptr: np.ndarray | jax.Array


class Propagation(NamedTuple):
    """The symmetrically normalised adjacency D^-1/2 A D^-1/2, in its two halves.

    Attributes:
        to_users: from items (columns) to users (rows).
        to_items: from users to items.
    """

    to_users: CompressedRows | Edges
    to_items: CompressedRows | Edges


def linked_graph(links: Sequence[Link], num_nodes: int) -> Graph:
    """A graph with an edge each way for every link.

    Args:
        links: see `Link`.
        num_nodes: N.

    Returns:
        Arrays of the host.
    """
    receivers = np.concatenate([end for first, second, *_ in links for end in (first, second)])
    senders = np.concatenate([end for first, second, *_ in links for end in (second, first)])
    relation = np.concatenate([np.full(len(first), kind) for first, _, *kinds in links for kind in kinds])
    order = np.lexsort((senders, receivers))
    degree = np.bincount(receivers, minlength=num_nodes)
    return Graph(
        nodes={"begin": (np.cumsum(degree) - degree).astype(np.int32), "degree": degree.astype(np.int32)},
        edges={"relation": relation[order].astype(np.int8)},
        globals=None,
        senders=senders[order].astype(np.int32),
        receivers=receivers[order].astype(np.int32),
        n_node=np.array([num_nodes], np.int32),
        n_edge=np.array([len(order)], np.int32),
    )


def bipartite_graph(train: Ragged, num_items: int) -> Graph:
    """Users (nodes ``0 .. U-1``) and items (node ``U + i`` for item ``i``), with edges both ways.

    Args:
        train: training items of every user.
        num_items: I; item 0 is a node without edges.

    Returns:
        A graph of ``U + I + 1`` nodes, as arrays of the host.
    """
    return linked_graph([interactions(train, train.num_rows)], train.num_rows + num_items + 1)


def interactions(train: Ragged, first_item: int) -> Link:
    """The link of every user to its training items, where item i is node ``first_item + i``."""
    user = np.repeat(np.arange(train.num_rows, dtype=np.int32), train.lengths())
    return user, train.items + np.int32(first_item), TO_USER, TO_ITEM


def build_propagation(graph: Graph, num_users: int, compressed_rows: bool | None = None) -> Propagation:
    """Normalises a graph of users and items, once, before training.

    Args:
        graph: see `bipartite_graph`.
        num_users: U.
        compressed_rows: the form of the edges; None takes what suits the device (`Sizes.compressed_rows`).

    Returns:
        Arrays of the host.
    """
    degree = np.asarray(graph.nodes["degree"])
    receivers, senders = np.asarray(graph.receivers), np.asarray(graph.senders)
    weight = 1.0 / np.sqrt(degree[receivers] * degree[senders].astype(np.float64))
    cut = int(degree[:num_users].sum())
    counts = num_users, len(degree) - num_users
    users = receivers[:cut], senders[:cut] - num_users
    items = receivers[cut:] - num_users, senders[cut:]
    halves = (weight[:cut], *users, *counts), (weight[cut:], *items, *counts[::-1])
    compressed = sizes().compressed_rows if compressed_rows is None else compressed_rows
    return Propagation(*(_laid_out(*half, compressed) for half in halves))


def _laid_out(
    weight: np.ndarray, row: np.ndarray, column: np.ndarray, rows: int, columns: int, compressed: bool
) -> CompressedRows | Edges:
    if active_mesh() is not None:
        weight, row, column, rows = _in_blocks(weight, row, column, pad_to_axis(rows), pad_to_axis(columns))
    weight, column, row = weight.astype(np.float32), column.astype(np.int32), row.astype(np.int32)
    if not compressed:
        return Edges(column, row, weight)
    return CompressedRows(weight, column, _indptr(row, rows))


def _indptr(row: np.ndarray, rows: int) -> np.ndarray:
    """Where the rows ``<int32>[..., E]`` begin and end, ``<int32>[..., rows + 1]``."""
    flat = row.reshape(-1, row.shape[-1])
    place = np.arange(len(flat))[:, None] * rows + flat
    count = np.bincount(place.reshape(-1), minlength=len(flat) * rows).reshape(-1, rows)
    indptr = np.concatenate([np.zeros((len(flat), 1), int), np.cumsum(count, 1)], 1)
    return indptr.astype(np.int32).reshape(*row.shape[:-1], -1)


def _in_blocks(
    weight: np.ndarray, row: np.ndarray, column: np.ndarray, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Edges block by block ``[m, m, E']`` with the rows of a block; each is filled up with edges of weight 0
    into its last row."""
    shares = axis_size(MODEL)
    height, width = rows // shares, columns // shares
    block = row // height * shares + column // width
    order = np.argsort(block, kind="stable")
    count = np.bincount(block, minlength=shares**2)
    longest = max(int(count.max()), 1)
    place = block[order] * longest + np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)

    def blocks(values: np.ndarray, fill: float) -> np.ndarray:
        array = np.full(shares**2 * longest, fill, values.dtype)
        array[place] = values[order]
        return array.reshape(shares, shares, longest)

    return blocks(weight, 0.0), blocks(row % height, height - 1), blocks(column % width, 0), height


@jax.custom_vjp
def propagate(propagation: Propagation, users: jax.Array, items: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One hop of normalised neighbour sums: D^-1/2 A D^-1/2 X (LightGCN, He et al. 2020, Eq. 3).

    Args:
        propagation: see `build_propagation`.
        users: ``<float32>[U, D]``.
        items: ``<float32>[I + 1, D]``.

    Returns:
        The sums over the items of every user ``<float32>[U, D]``, and over the users of every item
        ``<float32>[I + 1, D]``.
    """
    summed = _ring_sum if active_mesh() is not None else _sum
    to_users, to_items = propagation
    return summed(to_users, items, users.shape[0]), summed(to_items, users, items.shape[0])


def _forward(
    propagation: Propagation, users: jax.Array, items: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], Propagation]:
    return propagate(propagation, users, items), propagation


def _backward(
    propagation: Propagation, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[None, jax.Array, jax.Array]:
    return None, *propagate(propagation, *cotangents)


propagate.defvjp(_forward, _backward)


def _sum(edges: CompressedRows | Edges, senders: jax.Array, rows: int) -> jax.Array:
    """``<float32>[columns, D]`` -> ``<float32>[rows, D]``."""
    if isinstance(edges, Edges):
        return neighbour_sum(jax.tree.map(jnp.asarray, edges), senders, rows)
    arrays = jnp.asarray(edges.weight), jnp.asarray(edges.sender), jnp.asarray(edges.indptr)
    matrix = sparse.BCSR(arrays, shape=(rows, len(senders)), indices_sorted=True, unique_indices=False)
    return matrix @ senders


def _ring_sum(edges: CompressedRows | Edges, senders: jax.Array, rows: int) -> jax.Array:
    """`_sum` on a mesh: in step s a device adds the contribution of the shard of the s-th device after it."""
    shares = axis_size(MODEL)
    table, own = PartitionSpec(MODEL, None), PartitionSpec(MODEL, None, None)
    # Each device passes its current shard to the device before it, and receives that of the next device.
    ring = [(device, (device - 1) % shares) for device in range(shares)]

    @partial(jax.shard_map, in_specs=(own, table), out_specs=table, check_vma=False)
    def walk(edges: CompressedRows | Edges, share: jax.Array) -> jax.Array:
        here = jax.lax.axis_index(MODEL)

        def step(s: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            total, passing = carry
            block = jax.tree.map(lambda array: array[0, (here + s) % shares], edges)
            total += _sum(block, passing, rows // shares)
            return total, jax.lax.ppermute(passing, MODEL, ring)

        nothing = jnp.zeros((rows // shares, share.shape[1]), share.dtype)
        return jax.lax.fori_loop(0, shares, step, (nothing, share))[0]

    return walk(edges, senders)
