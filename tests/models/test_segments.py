"""Every form of D^-1/2 A D^-1/2 X against NumPy, on one device and on eight, forward and backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import MeshConfig
from reland_jax.device import sizes_of, use_sizes
from reland_jax.mesh import pad_to_axis, use_mesh
from reland_jax.models import bipartite_graph, build_graph, build_propagation
from reland_jax.models.entity_graph import propagate_in_tiles
from reland_jax.models.graph import CompressedRows, propagate
from reland_jax.models.sampling import propagate_sampled, sample_tree
from reland_jax.models.segments import Edges, add, neighbour_sum, raise_to
from reland_jax.train.placement import distribute
from reland_jax.types import Ragged
from tests.toys import dense_adjacency, ragged, random_ragged

NUM_ITEMS, DIM = 19, 5
ONE, EIGHT, BOTH = MeshConfig(), MeshConfig(model=8), MeshConfig(data=2, model=4)
TRAINS = {
    "random": random_ragged([3, 1, 7, 0, 4, 9, 2, 11, 5, 0, 1], NUM_ITEMS),
    "bought again": ragged([[1, 1, 2], [2], [], [3, 1, 3, 3], [19, 19]]),
    "one edge": ragged([[], [7], []]),
}


class Case(NamedTuple):
    """A form of the sum, edges of a tile, and a mesh."""

    form: str
    tile: int
    mesh: MeshConfig


CASES = [
    Case("compressed rows", 1, ONE),
    Case("compressed rows", 1, EIGHT),
    Case("sorted edges", 1 << 16, ONE),
    Case("sorted edges", 3, ONE),
    Case("sorted edges", 3, EIGHT),
    Case("sorted edges", 1 << 16, BOTH),
    Case("whole graph", 1 << 16, ONE),
    Case("whole graph", 3, ONE),
    Case("whole graph", 3, EIGHT),
    Case("sampled", 1, ONE),
    Case("sampled", 1, EIGHT),
]


def product(case: Case, train: Ragged) -> Callable[[jax.Array], jax.Array]:
    """X -> D^-1/2 A D^-1/2 X in the form of the case, on the mesh in use."""
    counts = train.num_rows, NUM_ITEMS + 1

    def split(nodes: jax.Array) -> list[jax.Array]:
        return [
            jnp.pad(side, ((0, pad_to_axis(count) - count), (0, 0)))
            for side, count in zip(jnp.split(nodes, counts[:1]), counts, strict=True)
        ]

    def joined(sides: Sequence[jax.Array]) -> jax.Array:
        return jnp.concatenate([side[:count] for side, count in zip(sides, counts, strict=True)])

    if case.form in ("compressed rows", "sorted edges"):
        compressed = case.form == "compressed rows"
        halves = build_propagation(bipartite_graph(train, NUM_ITEMS), counts[0], compressed_rows=compressed)
        propagation = distribute(halves)
        return lambda nodes: joined(propagate(propagation, *split(nodes)))
    graph = build_graph(train, NUM_ITEMS)
    most = int(graph.nodes["degree"].max())

    def whole(nodes: jax.Array) -> jax.Array:
        nodes = jnp.concatenate(split(nodes))
        if case.form == "whole graph":
            nodes = propagate_in_tiles(graph, nodes)
        else:  # as many neighbours as anyone has; what comes out has X added to it
            tree = sample_tree(graph, jnp.arange(len(nodes)), (most,), jax.random.key(0))
            nodes = propagate_sampled(graph, tree, nodes[tree.node]) - nodes
        return joined(jnp.split(nodes, [pad_to_axis(counts[0])]))

    return whole


@pytest.mark.parametrize("name", TRAINS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form}-{case.tile}-{case.mesh.model}")
def test_every_form_is_the_dense_product(name: str, case: Case) -> None:
    """And so are its gradients, by the same symmetric matrix."""
    train, rng = TRAINS[name], np.random.default_rng(1)
    nodes, pull = rng.normal(size=(2, train.num_rows + NUM_ITEMS + 1, DIM)).astype(np.float32)
    with use_sizes(dataclasses.replace(sizes_of("cpu"), edges=case.tile)), use_mesh(case.mesh):
        form = product(case, train)

        @jax.jit
        def pulled(nodes: jax.Array, pull: jax.Array) -> tuple[jax.Array, jax.Array]:
            summed, pull_back = jax.vjp(form, nodes)
            return summed, *pull_back(pull)

        summed, gradient = map(np.asarray, pulled(nodes, pull))
    matrix = dense_adjacency(train, NUM_ITEMS)
    np.testing.assert_allclose(summed, matrix @ nodes, atol=2e-6)
    np.testing.assert_allclose(gradient, matrix @ pull, atol=2e-6)


def test_the_device_says_which_form_is_laid_out() -> None:
    graph = bipartite_graph(TRAINS["random"], NUM_ITEMS)
    forms = {}
    for backend in ("cpu", "gpu", "tpu"):
        with use_sizes(sizes_of(backend)):
            forms[backend] = {type(half) for half in build_propagation(graph, 11)}
    assert forms == {"cpu": {CompressedRows}, "gpu": {Edges}, "tpu": {Edges}}


def test_an_edge_of_another_tile_is_left_out() -> None:
    """Receivers of -1 are not the last node, as they are where NumPy counts from the end."""
    edges = Edges(jnp.array([0, 1, 2]), jnp.array([-1, 0, 2]))
    values = jnp.array([[100.0], [2.0], [3.0]])
    assert add(jnp.ones((4, 1)), edges, values)[:, 0].tolist() == [3, 1, 4, 1]
    assert raise_to(jnp.full((4, 1), 2.5), edges, values)[:, 0].tolist() == [2.5, 2.5, 3, 2.5]


def test_without_weights_every_edge_counts_once() -> None:
    edges = Edges(jnp.array([2, 2, 0, 1]), jnp.array([0, 0, 0, 3]))
    summed = neighbour_sum(edges, jnp.array([[1.0], [10.0], [100.0]]), 4)
    assert summed[:, 0].tolist() == [201, 0, 0, 10]
