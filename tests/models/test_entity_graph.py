"""The graph with entities, edge by edge, and the sums over its edges in tiles."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.device import sizes_of, use_sizes
from reland_jax.models import Graph, build_graph
from reland_jax.models.entity_graph import edges_of, propagate_in_tiles
from reland_jax.models.segments import Edges, add, over_tiles
from tests.toys import ragged, random_ragged

NUM_ITEMS = 9
TRAIN = random_ragged([3, 1, 7, 0, 4, 9, 2], NUM_ITEMS)
ENTITIES = np.array([[-1, 0, 1, 1, -1, 0, 2, 2, 1, 0], [-1, 3, 3, 3, 4, 4, 4, -1, -1, 3]], np.int32)


def listed(graph: Graph) -> list[tuple[int, int, int]]:
    """(receiver, sender, relation) of every edge, as they are stored."""
    arrays = graph.receivers, graph.senders, graph.edges["relation"]
    return list(zip(*(np.asarray(array).tolist() for array in arrays), strict=True))


def test_a_graph_by_hand() -> None:
    """Users 0 and 1 with items 2, and 1 twice; item 1 has entities 0 (field 0) and 2, item 2 has 1 (field 1).

    Nodes: users 0 and 1, items 2 (padding), 3 and 4, entities 5, 6 and 7.
    """
    graph = build_graph(ragged([[2], [1, 1]]), 2, np.array([[-1, 0, -1], [-1, 2, 1]]))
    to_users = [(0, 4, 1), (1, 3, 1), (1, 3, 1)]
    to_items = [(3, 1, 2), (3, 1, 2), (3, 5, 3), (3, 7, 5), (4, 0, 2), (4, 6, 5)]
    assert listed(graph) == [*to_users, *to_items, (5, 3, 4), (6, 4, 6), (7, 3, 6)]


def test_every_edge_has_its_reverse() -> None:
    reverse = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}
    edges = listed(build_graph(TRAIN, NUM_ITEMS, ENTITIES))
    assert Counter(edges) == Counter((sender, receiver, reverse[kind]) for receiver, sender, kind in edges)
    assert len(edges) == 2 * (len(TRAIN.items) + (ENTITIES >= 0).sum())


def test_without_entities_there_are_users_and_items_only() -> None:
    graph = build_graph(TRAIN, NUM_ITEMS)
    assert graph.n_node.tolist() == [TRAIN.num_rows + NUM_ITEMS + 1]
    assert graph.n_edge.tolist() == [2 * len(TRAIN.items)]
    assert {relation for *_, relation in listed(graph)} == {1, 2}


def test_a_node_knows_where_its_edges_are() -> None:
    graph = build_graph(TRAIN, NUM_ITEMS, ENTITIES)
    begin, degree = (np.asarray(graph.nodes[name]) for name in ("begin", "degree"))
    for node in range(int(graph.n_node[0])):
        own = np.flatnonzero(np.asarray(graph.receivers) == node)
        assert own.tolist() == list(range(begin[node], begin[node] + degree[node]))


@pytest.mark.parametrize("tile", [1, 7, 41, 52, 1 << 16])
def test_every_edge_is_in_one_tile(tile: int) -> None:
    """26 interactions and 15 links are 82 edges: tiles of 41 fit, those of 7 and 52 leave a rest."""
    graph = build_graph(TRAIN, NUM_ITEMS, ENTITIES)
    nodes = int(graph.n_node[0])
    assert len(graph.senders) == 82

    def count(seen: jax.Array, edges: Edges) -> jax.Array:
        sorted_here = jnp.all(jnp.diff(edges.receiver) >= 0)
        code = edges.sender * 7 + edges.relation
        return add(seen, edges, jax.nn.one_hot(code, nodes * 7, dtype=jnp.int32) * sorted_here)

    with use_sizes(dataclasses.replace(sizes_of("cpu"), edges=tile)):
        found = over_tiles(edges_of(graph), count, jnp.zeros((nodes, nodes * 7), jnp.int32))
    expected = np.zeros((nodes, nodes, 7), int)
    np.add.at(expected, tuple(np.array(listed(graph)).T), 1)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_a_graph_without_edges() -> None:
    graph = build_graph(ragged([[], []]), 3)
    assert not np.asarray(propagate_in_tiles(graph, jnp.ones((6, 2)))).any()
