"""SASRec against a numpy reimplementation, and what packing several users into a row must not change."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.models.sasrec import SASRec

DIM, HEADS, LENGTH = 8, 2, 6
CONFIG = ModelConfig(dim=DIM, layers=2, heads=HEADS, inner=12, dropout=0.4)
MODEL = SASRec(CONFIG, LENGTH)


@pytest.fixture(scope="module")
def params() -> Any:
    """Parameters much larger than at the start of training, so that attention is far from uniform."""
    zeros = jnp.zeros((1, LENGTH), jnp.int32)
    shapes = jax.eval_shape(
        partial(MODEL.init, train=False), jax.random.key(0), jnp.zeros((1, LENGTH, DIM)), zeros, zeros
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0.3, 0.6, leaf.shape).astype(np.float32), shapes)


@partial(jax.jit, static_argnames="train")
def encode(
    params: Any, *row: jax.Array, train: bool = False, key: jax.Array | int | None = None
) -> jax.Array:
    """Hidden states of packed rows (items, position, segment)."""
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    return MODEL.apply(params, *row, train, rngs=rngs)


def packed_row(seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row of 12 tokens: sequences of 4, 6 and 1 items, then an unused token."""
    embedded = np.random.default_rng(seed).normal(size=(1, 12, DIM)).astype(np.float32)
    position = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 0, 0]], np.int32)
    segment = np.array([[1] * 4 + [2] * 6 + [3, 0]], np.int32)
    return embedded, position, segment


def layer_norm(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    spread = np.sqrt(((x - x.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) + 1e-12)
    return (x - x.mean(-1, keepdims=True)) / spread * params["scale"] + params["bias"]


def dense(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    return x @ params["kernel"] + params["bias"]


def attend(x: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """Causal attention of one sequence ``[n, D]``, head by head and query by query."""
    query, key, value = np.split(dense(x, params["query_key_value"]), 3, axis=1)
    mixed = np.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
        for at in range(len(x)):
            logits = key[: at + 1, part] @ query[at, part] / np.sqrt(DIM // HEADS)
            weight = np.exp(logits - logits.max())
            mixed[at, part] = weight @ value[: at + 1, part] / weight.sum()
    return layer_norm(x + dense(mixed, params["output"]), params["LayerNorm_0"])


def reference(embedded: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """The network on one sequence ``[n, D]``."""
    x = layer_norm(embedded + params["position"][: len(embedded)], params["LayerNorm_0"])
    for layer in range(CONFIG.layers):
        x = attend(x, params[f"attention_{layer}"])
        block = params[f"feed_forward_{layer}"]
        inner = dense(x, block["Dense_0"])
        gelu = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = layer_norm(x + dense(gelu, block["Dense_1"]), block["LayerNorm_0"])
    return x


def test_hidden_states_equal_numpy(params: Any) -> None:
    """Every sequence of a packed row is encoded as if it were alone, from its own position 0."""
    embedded, position, segment = packed_row()
    hidden = np.asarray(encode(params, embedded, position, segment))[0]
    for number in (1, 2, 3):
        tokens = np.flatnonzero(segment[0] == number)
        expected = reference(embedded[0, tokens].astype(np.float64), params["params"])
        np.testing.assert_allclose(hidden[tokens], expected, atol=2e-4)


@pytest.mark.parametrize("changed", range(12))
def test_what_a_token_can_reach(params: Any, changed: int) -> None:
    """A changed item moves its own and later hidden states of its own sequence, and nothing else."""
    embedded, position, segment = packed_row()
    other = embedded.copy()
    other[0, changed] = np.random.default_rng(4).normal(size=DIM)
    before, after = (np.asarray(encode(params, e, position, segment))[0] for e in (embedded, other))
    moved = np.abs(before - after).max(1) > 1e-6
    reached = (segment[0] == segment[0, changed]) & (np.arange(12) >= changed)
    np.testing.assert_array_equal(moved, reached)


def test_dropout_is_off_at_evaluation_and_on_in_training(params: Any) -> None:
    row = packed_row()
    first, second = (np.asarray(encode(params, *row, train=False, key=key)) for key in (0, 1))
    np.testing.assert_array_equal(first, second)
    third = np.asarray(encode(params, *row, train=True, key=0))
    assert np.abs(first - third).max() > 0.1
