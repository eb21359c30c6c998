"""Attention node by node in numpy, against all edges at once, in tiles, and over sampled neighbours."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.device import sizes_of, use_sizes
from reland_jax.models import Graph, build_graph
from reland_jax.models.gat import GAT
from reland_jax.models.sampling import Hop, Tree, sample_tree
from tests.toys import random_ragged

NUM_ITEMS, DIM, HEADS, LAYERS = 9, 6, 2, 2
TRAIN = random_ragged([3, 1, 7, 0, 4, 9, 2], NUM_ITEMS)
ENTITIES = np.array([[-1, 0, 1, 1, -1, 0, 2, 2, 1, 0], [-1, 3, 3, 3, 4, 4, 4, -1, -1, 3]], np.int32)
USERS, KNOWN = TRAIN.num_rows, TRAIN.num_rows + NUM_ITEMS + 1
GRAPHS = {"with entities": build_graph(TRAIN, NUM_ITEMS, ENTITIES), "without": build_graph(TRAIN, NUM_ITEMS)}
CONFIG = ModelConfig(backbone="gat", dim=DIM, heads=HEADS, layers=LAYERS, dropout=0.0)
MODEL = GAT(CONFIG)
_rng = np.random.default_rng(0)
SIDES = tuple(jnp.asarray(_rng.normal(size=(rows, DIM)), jnp.float32) for rows in (USERS, NUM_ITEMS + 1))


def indptr_of(graph: Graph) -> np.ndarray:
    return np.searchsorted(graph.receivers, np.arange(len(graph.nodes["degree"]) + 1))


def random_params(graph: Graph) -> Any:
    """Of a size at which every part matters."""
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), *SIDES, graph, False))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def attended(p: dict[str, np.ndarray], depth: int, nodes: np.ndarray, graph: Graph) -> np.ndarray:
    """A layer: for every node the softmax over itself and its neighbours, one head after the other."""
    sender, relation = np.asarray(graph.senders), np.asarray(graph.edges["relation"])
    indptr = indptr_of(graph)
    projected = nodes @ p["kernel"][depth]
    out = np.zeros_like(nodes)
    for node in range(len(nodes)):
        row = slice(indptr[node], indptr[node + 1])
        near, kinds = [node, *sender[row]], [0, *relation[row]]
        for head in range(HEADS):
            part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
            send, receive = p["send"][depth, head], p["receive"][depth, head]
            logits = projected[near][:, part] @ send + projected[node, part] @ receive
            logits = logits + p["relation"][depth, kinds, head]
            weight = np.exp(np.where(logits > 0, logits, 0.2 * logits))
            out[node, part] = weight @ projected[near][:, part] / weight.sum()
    return out


def expected(params: Any, graph: Graph) -> np.ndarray:
    """The mean over the embeddings and both layers, of users and items."""
    p = jax.tree.map(np.asarray, params["params"])
    nodes = np.concatenate([*map(np.asarray, SIDES), *(e["embedding"] for e in [p.get("entities")] if e)])
    layers = [nodes]
    for depth in range(LAYERS):
        layers.append(attended(p["attention"], depth, layers[-1], graph))
    return np.mean(layers, 0)[:KNOWN]


def found(params: Any, graph: Graph, train: bool) -> np.ndarray:
    (users,), (items,) = jax.jit(partial(MODEL.apply, train=train))(params, *SIDES, graph)
    return np.concatenate([users, items])


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("train", [True, False])
def test_every_node_attends_to_itself_and_its_neighbours(name: str, train: bool) -> None:
    """User 3 and the padding item have no edges. Without `train` in tiles of 10 of the 84 or 52 edges."""
    graph = GRAPHS[name]
    params = random_params(graph)
    assert ("entities" in params["params"]) == (name == "with entities")
    by_hand = expected(params, graph)
    with use_sizes(dataclasses.replace(sizes_of("cpu"), edges=10)):
        outcome = found(params, graph, train)
    np.testing.assert_allclose(outcome, by_hand, rtol=1e-4, atol=1e-5)


def rows_of(tree: Tree) -> jax.Array:
    """Embeddings of the users and items of a tree, and zeros."""
    return jnp.concatenate([*SIDES, jnp.zeros((5, DIM))])[tree.node]


@pytest.mark.parametrize("name", GRAPHS)
def test_with_a_large_fanout_it_is_the_attention_over_all(name: str) -> None:
    graph = GRAPHS[name]
    params = random_params(graph)

    @jax.jit
    def sampled() -> jax.Array:
        tree = sample_tree(graph, jnp.arange(KNOWN), (10, 12), jax.random.key(0))
        return MODEL.apply(params, rows_of(tree), tree, graph, KNOWN, False, method="sampled")[0]

    np.testing.assert_allclose(sampled(), expected(params, graph), rtol=1e-4, atol=1e-5)


def test_a_neighbour_that_stands_for_three_counts_three_times() -> None:
    """Node 0 with neighbour 1 of weight 3 and two unused places, against 1 listed three times."""
    params = random_params(GRAPHS["without"])
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(4, DIM)), jnp.float32)

    @jax.jit
    def layer(copies: jax.Array, neighbours: jax.Array) -> jax.Array:
        kind = jnp.ones((1, 3), jnp.int8)
        hop = Hop(jnp.zeros((1, 3), jnp.int32), kind, copies[None])
        own = jnp.concatenate([rows[:1], rows[neighbours]])
        return MODEL.apply(params, 0, own, (hop,), False, method=lambda m, *a: m.attention.sampled(*a))

    once, thrice = layer(jnp.array([3.0, 0.0, 0.0]), jnp.array([1, 2, 3])), jnp.array([1, 1, 1])
    np.testing.assert_allclose(once, layer(jnp.ones(3), thrice), rtol=1e-5)
    assert np.abs(once - layer(jnp.array([1.0, 0.0, 0.0]), thrice)).max() > 1e-2


@pytest.mark.slow
def test_more_sampled_neighbours_come_nearer() -> None:
    """The mean error of the sampled attention falls with the fan-out, and so does its bias."""
    graph = GRAPHS["with entities"]
    params = random_params(graph)
    truth = expected(params, graph)

    def errors(fanout: tuple[int, int]) -> tuple[float, float]:
        @jax.jit
        @jax.vmap
        def draw(key: jax.Array) -> jax.Array:
            tree = sample_tree(graph, jnp.arange(KNOWN), fanout, key)
            return MODEL.apply(params, rows_of(tree), tree, graph, KNOWN, False, method="sampled")[0]

        drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
        return float(np.abs(drawn - truth).mean()), float(np.abs(drawn.mean(0) - truth).mean())

    few, more = errors((1, 1)), errors((5, 5))
    assert more[0] < 0.5 * few[0] and more[1] < 0.5 * few[1]


def test_at_the_start_it_is_the_mean_over_neighbours() -> None:
    """As initialised, but for the small vectors of the attention: identity, no preference for a kind."""
    graph = GRAPHS["without"]
    params = jax.jit(partial(MODEL.init, train=False))(jax.random.key(0), *SIDES, graph)
    weights = params["params"]["attention"]
    none = {name: jnp.zeros_like(weights[name]) for name in ("send", "receive")}
    params = {"params": {"attention": {**weights, **none}}}
    sender, indptr = np.asarray(graph.senders), indptr_of(graph)
    nodes = layer = np.concatenate(SIDES)
    total = nodes
    for _ in range(LAYERS):
        rows = [[v, *sender[indptr[v] : indptr[v + 1]]] for v in range(len(nodes))]
        layer = np.stack([layer[row].mean(0) for row in rows])
        total = total + layer
    np.testing.assert_allclose(found(params, graph, True), total / (LAYERS + 1), atol=1e-5)


def test_dropout_is_on_in_training_only() -> None:
    graph = GRAPHS["with entities"]
    params = random_params(graph)
    model = GAT(ModelConfig(backbone="gat", dim=DIM, heads=HEADS, layers=LAYERS, dropout=0.5))
    rngs = {"dropout": jax.random.key(0)}
    (users,), _ = jax.jit(lambda: model.apply(params, *SIDES, graph, True, rngs=rngs))()
    (plain,), _ = jax.jit(lambda: model.apply(params, *SIDES, graph, False))()
    truth = expected(params, graph)[:USERS]
    np.testing.assert_allclose(plain, truth, rtol=1e-4, atol=1e-5)
    assert np.abs(users - truth).max() > 1e-2
