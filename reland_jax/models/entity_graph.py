"""The graph of users, items and what items are linked to."""

from __future__ import annotations

import jax
import numpy as np

from reland_jax.mesh import device_put_rows, pad_to_axis
from reland_jax.models.graph import Graph, interactions, linked_graph
from reland_jax.models.segments import Edges, inverse_root, neighbour_sum
from reland_jax.types import Ragged

SELF = 0
"""The kind of an edge from a node to itself, which is never stored."""

_FIRST_OF_FIELDS = 3


def count_relations(fields: int) -> int:
    """How many kinds of edges there are with so many fields of entities."""
    return _FIRST_OF_FIELDS + 2 * fields


def build_graph(train: Ragged, num_items: int, entities: np.ndarray | None = None) -> Graph:
    """The graph of the training interactions and of the items' entities.

    Nodes are users, then the padding item and the items, then entities: user ``u`` is node ``u``, item
    ``i`` is node ``U + i`` and entity ``e`` is node ``U + I + 1 + e``. (On a mesh U and I + 1 are the
    rows of the tables, which are filled up.) The kinds of edges are `TO_USER`, `TO_ITEM`, and for entities of
    field f ``3 + 2 f`` into items and ``4 + 2 f`` into entities.

    Args:
        train: training items of every user.
        num_items: I; item 0 is a node without edges.
        entities: ``<int32>[F, I + 1]``, the entity of every item in F fields, -1 where there is none;
            None for a graph of users and items only.
    """
    if entities is None:
        entities = np.zeros((0, num_items + 1), np.int32)
    first_item = pad_to_axis(train.num_rows)
    first_entity = first_item + pad_to_axis(num_items + 1)
    links = [interactions(train, first_item)]
    for field, entity in enumerate(entities):
        item, kind = np.flatnonzero(entity >= 0), _FIRST_OF_FIELDS + 2 * field
        links.append((item + first_item, entity[item] + first_entity, kind, kind + 1))
    nodes = first_entity + pad_to_axis(entities.max(initial=-1) + 1)
    return jax.tree.map(device_put_rows, linked_graph(links, nodes))


def edges_of(graph: Graph) -> Edges:
    """All edges, with their kinds."""
    return Edges(graph.senders, graph.receivers, relation=graph.edges["relation"])


def propagate_in_tiles(graph: Graph, nodes: jax.Array) -> jax.Array:
    """D^-1/2 A D^-1/2 X as `reland_jax.models.graph.propagate` has it, ``<float32>[nodes, D]`` both.

    No array with one entry per edge is built, on any device.
    """
    scale = inverse_root(graph.nodes["degree"])
    return scale * neighbour_sum(Edges(graph.senders, graph.receivers), scale * nodes, len(nodes))
