"""The precision of products: what a column says, what a user sets, and that models are traced with it."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from reland_jax.device import matmul_precision, sizes_of, use_sizes
from reland_jax.models import applied


def products(backend: str) -> str:
    layer, x = nn.Dense(2), jnp.ones((3, 4))
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    with use_sizes(sizes_of(backend)):
        return jax.jit(partial(applied, layer)).trace(params, x).lower().as_text()


@pytest.mark.parametrize(("backend", "said"), [("cpu", "default"), ("gpu", "highest"), ("tpu", "highest")])
def test_layers_multiply_as_the_device_says(backend: str, said: str) -> None:
    with use_sizes(sizes_of(backend)):
        assert matmul_precision() == said
    assert ("HIGHEST" in products(backend)) == (said == "highest")


def test_what_a_user_sets_goes_first() -> None:
    with jax.default_matmul_precision("tensorfloat32"), use_sizes(sizes_of("gpu")):
        assert matmul_precision() == "tensorfloat32"
        assert "HIGHEST" not in products("gpu")
