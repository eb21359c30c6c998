"""NGCF against Eq. 7 with a dense adjacency matrix."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.models.graph import bipartite_graph, build_propagation
from reland_jax.models.ngcf import NGCF
from tests.toys import random_ragged

NUM_USERS, NUM_ITEMS, DIM, LAYERS = 5, 8, 4, 2
TRAIN = random_ragged([3, 1, 0, 5, 2], NUM_ITEMS)
PROPAGATION = build_propagation(bipartite_graph(TRAIN, NUM_ITEMS), NUM_USERS)
RNG = np.random.default_rng(0)
USERS = RNG.normal(size=(NUM_USERS, DIM)).astype(np.float32)
ITEMS = RNG.normal(size=(NUM_ITEMS + 1, DIM)).astype(np.float32)
ITEMS[0] = 0.0
MODULE = NGCF(ModelConfig(dim=DIM, layers=LAYERS, dropout=0.5))


@pytest.fixture(scope="module")
def params() -> Any:
    initialise = partial(MODULE.init, train=False, method=both_sides)
    shapes = jax.eval_shape(initialise, jax.random.key(0), USERS, ITEMS, PROPAGATION)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)


def both_sides(module: NGCF, *inputs: Any, train: bool) -> tuple[jax.Array, ...]:
    """All users and all items, read out of the layers."""
    return tuple(module.readout(side, train) for side in module(*inputs, train))


def represent(params: Any, users: Any, items: Any, train: bool = False, **rngs: Any) -> tuple[jax.Array, ...]:
    return MODULE.apply(params, users, items, PROPAGATION, train=train, method=both_sides, **rngs)


def without_biases(params: Any) -> Any:
    """With them even a node without edges or features would get a representation."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * ("bias" not in jax.tree_util.keystr(path)), params
    )


def dense_adjacency() -> np.ndarray:
    """D^-1/2 A D^-1/2 over users, the padding item and items."""
    nodes = NUM_USERS + NUM_ITEMS + 1
    adjacency = np.zeros((nodes, nodes))
    for user in range(NUM_USERS):
        for item in TRAIN.row(user).tolist():
            adjacency[user, NUM_USERS + item] = adjacency[NUM_USERS + item, user] = 1.0
    scale = 1 / np.sqrt(np.maximum(adjacency.sum(1), 1))
    return scale[:, None] * adjacency * scale


def equation_7(params: Any) -> np.ndarray:
    """LeakyReLU((L + I) E W_1 + L E * E W_2), layer by layer, then all of them side by side."""
    laplacian = dense_adjacency()
    nodes = np.concatenate([USERS, ITEMS]).astype(np.float64)
    outputs = [nodes]
    for layer in range(LAYERS):
        dense = params["params"][f"layer_{layer}"]
        first, second = np.split(dense["kernel"], 2)
        mixed = (laplacian + np.eye(len(nodes))) @ nodes @ first
        mixed += ((laplacian @ nodes) * nodes) @ second + dense["bias"]
        nodes = np.where(mixed > 0, mixed, 0.2 * mixed)
        length = np.linalg.norm(nodes, axis=1, keepdims=True)
        outputs.append(np.divide(nodes, length, out=np.zeros_like(nodes), where=length > 1e-9))
    return np.concatenate(outputs, 1)


@pytest.mark.parametrize("biases", [True, False])
def test_representations_are_equation_7(params: Any, biases: bool) -> None:
    """Node 2 has no edges; without biases the padding item's rows stay zero."""
    params = params if biases else without_biases(params)
    users, items = represent(params, USERS, ITEMS)
    expected = equation_7(params)
    assert users.shape[1] == (LAYERS + 1) * DIM
    np.testing.assert_allclose(users, expected[:NUM_USERS], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(items, expected[NUM_USERS:], rtol=1e-3, atol=1e-5)
    assert biases or not np.asarray(items[0]).any()


def test_a_row_of_zeros_has_a_finite_gradient(params: Any) -> None:
    """Its length is 0, where a norm has no derivative; no gradient of it or of the weights may be NaN."""
    params = without_biases(params)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2))
    def gradients(params: Any, users: jax.Array, items: jax.Array) -> jax.Array:
        found = represent(params, users, items)
        return sum(jnp.sum(jnp.sin(side)) for side in found)

    for leaf in jax.tree.leaves(gradients(params, jnp.asarray(USERS).at[2].set(0.0), jnp.asarray(ITEMS))):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() < 1e8


def test_dropout_is_on_in_training_only(params: Any) -> None:
    """It leaves the embeddings alone and works on the messages, of which it drops about half."""

    def users(train: bool, key: int) -> np.ndarray:
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(represent(params, USERS, ITEMS, train, rngs=rngs)[0])

    np.testing.assert_array_equal(users(False, 0), users(False, 1))
    trained = np.concatenate([users(True, key) for key in range(8)])
    np.testing.assert_array_equal(trained[:, :DIM], np.tile(USERS, (8, 1)))
    for layer in np.split(trained[:, DIM:], LAYERS, axis=1):
        assert 0.3 < (layer == 0).mean() < 0.7
