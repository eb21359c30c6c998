"""The graph with entities, edge by edge, and the sums over its edges in tiles."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.models import Graph, build_graph, heterogeneous
from reland_jax.models.heterogeneous import Edges, over_edges, propagate_in_tiles
from tests.toys import ragged, random_ragged

NUM_ITEMS = 9
TRAIN = random_ragged([3, 1, 7, 0, 4, 9, 2], NUM_ITEMS)
ENTITIES = np.array([[-1, 0, 1, 1, -1, 0, 2, 2, 1, 0], [-1, 3, 3, 3, 4, 4, 4, -1, -1, 3]], np.int32)


def edges_of(graph: Graph) -> list[tuple[int, int, int]]:
    """(receiver, sender, relation) of every edge, as they are stored."""
    sender, indptr, relation = (np.asarray(array) for array in graph)
    receiver = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return list(zip(receiver.tolist(), sender.tolist(), relation.tolist(), strict=True))


def test_a_graph_by_hand() -> None:
    """Users 0 and 1 with items 2, and 1 twice; item 1 has entities 0 (field 0) and 2, item 2 has 1 (field 1).

    Nodes: users 0 and 1, items 2 (padding), 3 and 4, entities 5, 6 and 7.
    """
    graph = build_graph(ragged([[2], [1, 1]]), 2, np.array([[-1, 0, -1], [-1, 2, 1]]))
    to_users = [(0, 4, 1), (1, 3, 1), (1, 3, 1)]
    to_items = [(3, 1, 2), (3, 1, 2), (3, 5, 3), (3, 7, 5), (4, 0, 2), (4, 6, 5)]
    assert edges_of(graph) == [*to_users, *to_items, (5, 3, 4), (6, 4, 6), (7, 3, 6)]


def test_every_edge_has_its_reverse() -> None:
    reverse = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}
    edges = edges_of(build_graph(TRAIN, NUM_ITEMS, ENTITIES))
    assert Counter(edges) == Counter((sender, receiver, reverse[kind]) for receiver, sender, kind in edges)
    assert len(edges) == 2 * (len(TRAIN.items) + (ENTITIES >= 0).sum())


def test_without_entities_there_are_users_and_items_only() -> None:
    graph = build_graph(TRAIN, NUM_ITEMS)
    assert len(graph.indptr) == TRAIN.num_rows + NUM_ITEMS + 1 + 1
    assert {relation for *_, relation in edges_of(graph)} == {1, 2}


@pytest.mark.parametrize("tile", [1, 7, 52, 1 << 16])
def test_every_edge_is_in_one_tile(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """26 interactions and 16 links are 84 edges: tiles of 7 fit, those of 52 leave a rest."""
    monkeypatch.setattr(heterogeneous, "TILE_EDGES", tile)
    graph = build_graph(TRAIN, NUM_ITEMS, ENTITIES)
    nodes = len(graph.indptr) - 1

    def count(seen: jax.Array, edges: Edges) -> jax.Array:
        return seen.at[edges.receiver, edges.sender, edges.relation].add(1, mode="drop")

    found = over_edges(graph, count, jnp.zeros((nodes, nodes, 7), jnp.int32))
    expected = np.zeros(found.shape, int)
    np.add.at(expected, tuple(np.array(edges_of(graph)).T), 1)
    np.testing.assert_array_equal(found, expected)


def test_propagation_in_tiles_is_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heterogeneous, "TILE_EDGES", 10)
    graph = build_graph(TRAIN, NUM_ITEMS)
    nodes = np.random.default_rng(0).normal(size=(len(graph.indptr) - 1, 3)).astype(np.float32)
    adjacency = np.zeros((len(nodes),) * 2)
    for receiver, sender, _ in edges_of(graph):
        adjacency[receiver, sender] += 1
    scale = 1 / np.sqrt(np.maximum(adjacency.sum(1), 1))
    expected = (scale[:, None] * adjacency * scale) @ nodes
    np.testing.assert_allclose(propagate_in_tiles(graph, jnp.asarray(nodes)), expected, atol=1e-6)


def test_a_graph_without_edges() -> None:
    graph = build_graph(ragged([[], []]), 3)
    assert not np.asarray(propagate_in_tiles(graph, jnp.ones((6, 2)))).any()
