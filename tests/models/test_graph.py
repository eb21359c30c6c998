"""Propagation against the dense normalised adjacency and jraph; LightGCN by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.models.graph import Propagation, bipartite_graph, build_propagation, propagate
from reland_jax.models.lightgcn import LightGCN
from reland_jax.types import Ragged
from tests.toys import dense_adjacency, ragged, random_ragged

NUM_ITEMS, DIM = 9, 5

TRAINS = {
    "random": random_ragged([3, 1, 7, 0, 4, 9, 2], NUM_ITEMS),
    "the same item twice": ragged([[1, 1, 2], [2], [], [3, 1, 3, 3]]),
}


def random_nodes(train: Ragged) -> jax.Array:
    shape = (train.num_rows + NUM_ITEMS + 1, DIM)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def hop(propagation: Propagation, nodes: jax.Array) -> jax.Array:
    """`propagate` on users and items in one array."""
    users = len(propagation.to_users.indptr) - 1
    return jnp.concatenate(propagate(propagation, nodes[:users], nodes[users:]))


@pytest.mark.parametrize("name", TRAINS)
def test_propagation_is_the_dense_product(name: str) -> None:
    train, nodes = TRAINS[name], random_nodes(TRAINS[name])
    graph = bipartite_graph(train, NUM_ITEMS)
    propagation = build_propagation(graph, train.num_rows)
    found = np.asarray(hop(propagation, nodes))
    np.testing.assert_allclose(found, dense_adjacency(train, NUM_ITEMS) @ np.asarray(nodes), atol=1e-6)
    weight = np.concatenate([half.weight for half in propagation])
    messages = weight[:, None] * nodes[graph.senders]
    summed = jraph.segment_sum(messages, jnp.asarray(graph.receivers), len(nodes))
    np.testing.assert_allclose(found, summed, atol=1e-6)


def test_gradient_is_that_of_the_dense_product() -> None:
    train, nodes = TRAINS["random"], random_nodes(TRAINS["random"])
    propagation = build_propagation(bipartite_graph(train, NUM_ITEMS), train.num_rows)
    matrix = jnp.asarray(dense_adjacency(train, NUM_ITEMS), jnp.float32)
    weight = jnp.asarray(np.random.default_rng(2).normal(size=nodes.shape), jnp.float32)
    ours = jax.grad(lambda x: (weight * jnp.tanh(hop(propagation, hop(propagation, x)))).sum())
    dense = jax.grad(lambda x: (weight * jnp.tanh(matrix @ (matrix @ x))).sum())
    np.testing.assert_allclose(ours(nodes), dense(nodes), atol=1e-5)


def test_graph_of_three_users() -> None:
    """Two edges per interaction, sorted by receiver; item i is node U + i and the padding item is alone."""
    graph = bipartite_graph(ragged([[2], [1, 2], []]), 2)
    assert (int(graph.n_node[0]), int(graph.n_edge[0])) == (6, 6)
    edges = sorted(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True))
    assert edges == list(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True))
    assert edges == [(0, 5), (1, 4), (1, 5), (4, 1), (5, 0), (5, 1)]


def test_lightgcn_by_hand() -> None:
    """Users 0: {1}, 1: {1, 2}, 2: {}; two hops, D = 1.

    Degrees: user 0 has 1, user 1 has 2; item 1 has 2, item 2 has 1. Weights: 1/sqrt(1*2) = 1/sqrt(2) for
    (0, 1) and (1, 2), and 1/sqrt(2*2) = 1/2 for (1, 1).
    """
    a, (u0, u1, u2), (i1, i2) = 2**-0.5, (1.0, 2.0, 3.0), (10.0, 20.0)
    hop1 = {"u0": a * i1, "u1": i1 / 2 + a * i2, "i1": a * u0 + u1 / 2, "i2": a * u1}
    hop2 = {
        "u0": a * hop1["i1"],
        "u1": hop1["i1"] / 2 + a * hop1["i2"],
        "i1": a * hop1["u0"] + hop1["u1"] / 2,
        "i2": a * hop1["u1"],
    }
    start = {"u0": u0, "u1": u1, "i1": i1, "i2": i2}
    mean = {name: (start[name] + hop1[name] + hop2[name]) / 3 for name in start}
    propagation = build_propagation(bipartite_graph(ragged([[1], [1, 2], []]), 2), 3)
    (users,), (items,) = LightGCN(ModelConfig(backbone="lightgcn", layers=2)).apply(
        {}, jnp.array([[u0], [u1], [u2]]), jnp.array([[0.0], [i1], [i2]]), propagation, False
    )
    np.testing.assert_allclose(users[:, 0], [mean["u0"], mean["u1"], u2 / 3], rtol=1e-6)
    np.testing.assert_allclose(items[:, 0], [0.0, mean["i1"], mean["i2"]], rtol=1e-6)
