"""Sampled neighbours: which are drawn how often, and what sums over them are expected to be."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.models import Graph, build_graph
from reland_jax.models.entity_graph import propagate_in_tiles
from reland_jax.models.sampling import places, propagate_sampled, sample_neighbours, sample_tree, split_depths
from tests.toys import random_ragged

NUM_ITEMS, DIM = 9, 4
TRAIN = random_ragged([3, 1, 7, 0, 4, 9, 2], NUM_ITEMS)
ENTITIES = np.array([[-1, 0, 1, 1, -1, 0, 2, 2, 1, 0]], np.int32)
GRAPH = build_graph(TRAIN, NUM_ITEMS, ENTITIES)
NODES = int(GRAPH.n_node[0])


def neighbours(graph: Graph, node: int) -> dict[int, int]:
    """Sender -> relation of the edges into a node."""
    into = np.asarray(graph.receivers) == node
    kinds = np.asarray(graph.edges["relation"])[into]
    return dict(zip(np.asarray(graph.senders)[into].tolist(), kinds.tolist(), strict=True))


@pytest.mark.parametrize("fanout", [1, 3, 4])
def test_drawn_are_distinct_neighbours_with_their_kind(fanout: int) -> None:
    draw = jax.jit(sample_neighbours, static_argnums=2)
    hop = jax.tree.map(np.asarray, draw(GRAPH, jnp.arange(NODES), fanout, jax.random.key(0)))
    for node in range(NODES):
        known = neighbours(GRAPH, node)
        used = hop.copies[node] > 0
        drawn = hop.node[node][used].tolist()
        assert len(set(drawn)) == len(drawn) == min(fanout, len(known))
        assert {each: known[each] for each in drawn} == dict(
            zip(drawn, hop.relation[node][used].tolist(), strict=True)
        )
        np.testing.assert_allclose(hop.copies[node][used], max(len(known) / fanout, 1.0))
    assert ((hop.node >= 0) & (hop.node < NODES)).all()


@pytest.mark.parametrize("fanout", [1, 5, 12])
def test_every_neighbour_is_as_likely(fanout: int) -> None:
    """Over all starts each of d neighbours is taken fanout times: with probability fanout / d exactly."""
    degree, start = (each[:, None] for each in np.array([(d, s) for d in range(1, 31) for s in range(d)]).T)
    found = np.asarray(jax.jit(places, static_argnums=2)(degree, start, fanout))
    for d in range(1, 31):
        taken = found[degree[:, 0] == d, :d]
        assert (np.diff(taken, axis=1) > 0).all(), "one of them twice"
        assert set(np.bincount(taken.ravel(), minlength=d).tolist()) == {min(fanout, d)}


def test_large_degrees_do_not_overflow() -> None:
    """Of 2^31 - 1000 neighbours, 25 that are a 25th of them apart."""
    degree, fanout = np.array([[2**31 - 1000]], np.int32), 25
    (found,) = np.asarray(places(degree, degree - 1, fanout)).astype(np.int64)
    assert set(np.diff(found).tolist()) <= {(2**31 - 1000) // fanout, (2**31 - 1000) // fanout + 1}
    assert 0 < found[0] and found[-1] == degree - 1


def two_hops() -> tuple[Graph, jax.Array, np.ndarray]:
    """A graph of users and items, random rows of its nodes, and the sum of their hops 0 to 2."""
    graph = build_graph(TRAIN, NUM_ITEMS)
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(int(graph.n_node[0]), DIM)), jnp.float32)
    hop = jax.jit(propagate_in_tiles)
    return graph, rows, np.asarray(rows + hop(graph, rows) + hop(graph, hop(graph, rows)))


def test_the_expected_sum_is_that_of_the_whole_graph() -> None:
    """The mean over many draws of the sum of hops 0 to 2, against full propagation, in standard errors."""
    graph, rows, expected = two_hops()

    @jax.jit
    @jax.vmap
    def estimate(key: jax.Array) -> jax.Array:
        tree = sample_tree(graph, jnp.arange(len(rows)), (2, 3), key)
        return propagate_sampled(graph, tree, rows[tree.node])

    found = np.asarray(estimate(jax.random.split(jax.random.key(2), 20_000)), np.float64)
    error = found.std(0) / np.sqrt(len(found)) + 1e-6
    assert (np.abs(found.mean(0) - expected) < 4.5 * error).all()
    assert error.max() > 1e-3, "nothing was sampled"


def test_a_large_fanout_leaves_nothing_to_chance() -> None:
    graph, rows, expected = two_hops()

    @jax.jit
    def exactly() -> jax.Array:
        tree = sample_tree(graph, jnp.arange(len(rows)), (9, 12), jax.random.key(0))
        return propagate_sampled(graph, tree, rows[tree.node])

    np.testing.assert_allclose(exactly(), expected, atol=1e-5)


def test_trees_are_a_function_of_the_key() -> None:
    draw = jax.jit(partial(sample_tree, fanout=(2, 2)))
    batch = jnp.array([2, 5, 11, 5], jnp.int32)
    first, again, other = (draw(GRAPH, batch, key=jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (np.asarray(first.node) != np.asarray(other.node)).any()
    depths = split_depths(first.node, first.hops)
    np.testing.assert_array_equal(depths[0], batch)
    for depth, hop in zip(depths[1:], first.hops, strict=True):
        np.testing.assert_array_equal(depth, np.asarray(hop.node).reshape(-1))
    assert (np.asarray(depths[1])[2:4] != np.asarray(depths[1])[6:8]).any(), "one node twice, drawn once"
