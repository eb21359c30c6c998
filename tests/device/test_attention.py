"""Attention: every form against NumPy, and where the fused kernel is taken."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.device import attend, sizes, use_sizes
from reland_jax.models.sasrec import SASRec

ROWS, WIDTH, HEADS, SIZE = 2, 6, 2, 8


def arrays(dtype: str = "float32", width: int = WIDTH) -> tuple[jax.Array, ...]:
    """Query, key, value, and a causal mask of two segments a row."""
    rng = np.random.default_rng(0)
    drawn = (jnp.asarray(rng.normal(size=(ROWS, width, HEADS, SIZE)), dtype) for _ in range(3))
    segment = np.arange(width) // (width // 2)
    mask = np.tril(segment[:, None] == segment[None])
    return *drawn, jnp.asarray(np.broadcast_to(mask, (ROWS, 1, width, width)))


def expected(query: Any, key: Any, value: Any, mask: Any) -> np.ndarray:
    """Row by row, head by head and query by query, in float64."""
    query, key, value = (np.asarray(each, np.float64) for each in (query, key, value))
    out = np.zeros(query.shape)
    for row, at, head in np.ndindex(ROWS, query.shape[1], HEADS):
        seen = np.flatnonzero(mask[row, 0, at])
        logits = key[row, seen, head] @ query[row, at, head] / np.sqrt(SIZE)
        weight = np.exp(logits - logits.max())
        out[row, at, head] = weight @ value[row, seen, head] / weight.sum()
    return out


@pytest.mark.parametrize("form", ["written out", "xla"])
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_every_form_equals_numpy(form: str, dtype: str, near: float) -> None:
    given = arrays(dtype)
    with use_sizes(dataclasses.replace(sizes(), attention=form)):
        found = attend(*given, None)
    assert found.dtype == given[0].dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected(*given), atol=near)


def test_dropout_is_of_the_weights() -> None:
    """Doubling every weight doubles what comes out, in every form: none that is fused has dropout."""
    given = arrays()
    for form in ("written out", "xla", "cudnn"):
        with use_sizes(dataclasses.replace(sizes(), attention=form)):
            found = attend(*given, lambda weights: 2 * weights)
        np.testing.assert_allclose(found, 2 * expected(*given), atol=1e-5)


def kernels(program: str) -> int:
    """How often cuDNN's kernel is called."""
    return program.count("custom_call @__cudnn$fmha")


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As if there were an NVIDIA GPU, whose programs can be lowered and not run."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr("reland_jax.device.attention.has_cudnn", lambda: True)
    with use_sizes(dataclasses.replace(sizes(), attention="cudnn")):
        yield


@pytest.mark.parametrize(
    ("dtype", "width", "taken"), [("bfloat16", 6, 1), ("float32", 6, 0), ("bfloat16", 5, 0)]
)
def test_cudnn_is_taken_where_it_can_be(nvidia: None, dtype: str, width: int, taken: int) -> None:
    del nvidia
    traced = jax.jit(partial(attend, drop=None)).trace(*arrays(dtype, width))
    assert kernels(traced.lower(lowering_platforms=("cuda",)).as_text()) == taken


def test_sasrec_is_evaluated_with_cudnn_and_trained_without(nvidia: None) -> None:
    del nvidia
    config = ModelConfig(dim=16, layers=2, heads=2, inner=12, dropout=0.4, activations="bfloat16")
    model, integers = SASRec(config, 6), jnp.zeros((2, 6), jnp.int32)
    given = jnp.ones((2, 6, 16)), integers, integers
    params = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), *given)
    for train, calls in ((False, 2), (True, 0)):
        rngs = {"dropout": jax.random.key(0)}
        traced = jax.jit(partial(model.apply, train=train, rngs=rngs)).trace(params, *given)
        assert kernels(traced.lower(lowering_platforms=("cuda",)).as_text()) == calls


def test_without_an_nvidia_gpu_cudnn_is_not_taken() -> None:
    with use_sizes(dataclasses.replace(sizes(), attention="cudnn")):
        given = arrays("bfloat16")
        np.testing.assert_allclose(np.asarray(attend(*given, None), float), expected(*given), atol=0.03)
