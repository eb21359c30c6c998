"""GRU4Rec against flax's own GRU cell and a numpy loop, one sequence of a packed row at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.device import sizes_of, use_sizes
from reland_jax.models.gru4rec import GRU, GRU4Rec

DIM, HIDDEN = 4, 3
CONFIG = ModelConfig(dim=DIM, layers=2, hidden=HIDDEN, dropout=0.4)
MODEL = GRU4Rec(CONFIG)
POSITION = np.array([[0, 1, 2, 3, 0, 1, 0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 4, 0, 1, 0, 0, 0, 0, 0]], np.int32)
SEGMENT = np.array([[1] * 4 + [2] * 2 + [3] * 3 + [4, 0, 0], [5] * 5 + [6] * 2 + [7] + [0] * 4], np.int32)


def embedded(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*SEGMENT.shape, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def params() -> Any:
    initialise = partial(MODEL.init, train=False)
    shapes = jax.eval_shape(initialise, jax.random.key(0), embedded(), POSITION, SEGMENT)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)


@partial(jax.jit, static_argnames="train")
def encode(params: Any, items: jax.Array, key: jax.Array | int = 0, train: bool = False) -> jax.Array:
    rngs = {"dropout": jax.random.key(key)}
    return MODEL.apply(params, items, POSITION, SEGMENT, train, rngs=rngs)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_loop(inputs: np.ndarray, p: Any) -> np.ndarray:
    """One layer on one sequence ``[n, E]``, step by step."""
    state, states = np.zeros(HIDDEN), []
    for x in inputs:
        of_input = np.split(x @ p["input"]["kernel"] + p["input"]["bias"], 3)
        of_state = np.split(state @ p["state"], 3)
        z, r = (sigmoid(of_input[gate] + of_state[gate]) for gate in (0, 1))
        candidate = np.tanh(of_input[2] + r * (of_state[2] + p["candidate_bias"]))
        state = (1 - z) * candidate + z * state
        states.append(state)
    return np.array(states)


def test_packed_rows_equal_a_loop_over_each_sequence(params: Any) -> None:
    """A state never flows into the next sequence of its row."""
    items, p = embedded(), params["params"]
    found = np.asarray(encode(params, items))
    for number in range(1, 8):
        row, column = np.nonzero(SEGMENT == number)
        hidden = items[row, column].astype(np.float64)
        for layer in range(CONFIG.layers):
            hidden = gru_loop(hidden, p[f"gru_{layer}"])
        expected = hidden @ p["output"]["kernel"] + p["output"]["bias"]
        np.testing.assert_allclose(found[row, column], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_is_the_gru_of_flax(params: Any) -> None:
    """The same equations with flax's names: z "z", r "r", n "n", biases where flax has them."""
    ours = params["params"]["gru_0"]
    kernels, biases = np.split(ours["input"]["kernel"], 3, 1), np.split(ours["input"]["bias"], 3)
    gates = zip("zrn", kernels, biases, np.split(ours["state"], 3, 1), strict=True)
    theirs: dict[str, dict[str, np.ndarray]] = {}
    for name, kernel, bias, state in gates:
        theirs |= {f"i{name}": {"kernel": kernel, "bias": bias}, f"h{name}": {"kernel": state}}
    theirs["hn"]["bias"] = ours["candidate_bias"]
    cell, state, items = nn.GRUCell(HIDDEN), jnp.zeros((2, HIDDEN)), embedded()
    start = np.zeros(SEGMENT.shape, bool)
    found = GRU(HIDDEN).apply({"params": ours}, items, start)
    for step in range(items.shape[1]):
        state, _ = cell.apply({"params": theirs}, state, items[:, step])
        np.testing.assert_allclose(found[:, step], state, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_products_changes_nothing(params: Any) -> None:
    """On accelerators the inputs are multiplied before the scan, on a CPU within it."""
    ours, items, start = {"params": params["params"]["gru_0"]}, embedded(), POSITION == 0

    def states_and_gradient() -> Any:
        gradient = jax.grad(lambda p: (GRU(HIDDEN).apply(p, items, start) ** 2).sum())(ours)
        return GRU(HIDDEN).apply(ours, items, start), gradient

    within = states_and_gradient()
    with use_sizes(sizes_of("gpu")):
        ahead = states_and_gradient()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), within, ahead)


@pytest.mark.parametrize("changed", [(0, 1), (0, 4), (0, 8), (1, 0), (1, 7)])
def test_what_an_item_can_reach(params: Any, changed: tuple[int, int]) -> None:
    """Its own and later states of its own sequence, and nothing else."""
    items = embedded()
    other = items.copy()
    other[changed] += 1.0
    moved = np.abs(np.asarray(encode(params, items)) - np.asarray(encode(params, other))).max(-1) > 1e-6
    later = np.arange(SEGMENT.shape[1]) >= changed[1]
    np.testing.assert_array_equal(moved, (SEGMENT == SEGMENT[changed]) & later)


def test_dropout_is_on_in_training_only(params: Any) -> None:
    items = embedded()
    first, second = (np.asarray(encode(params, items, key)) for key in (0, 1))
    np.testing.assert_array_equal(first, second)
    drawn = [np.asarray(encode(params, items, key, train=True)) for key in (0, 1)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.05 and np.abs(drawn[0] - first).max() > 0.05
