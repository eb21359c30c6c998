"""How many bits the products of a recommender's layers have.

What is ranked, the cross-entropy, K-means, the search for seed users and the text encoder ask for float32 in
full themselves.
"""

from __future__ import annotations

import contextlib

import jax

from reland_jax.device.sizes import sizes


def matmul_precision() -> str:
    """The precision of float32 products: what JAX is set to, else what the table of the device says."""
    # JAX makes the attributes of its settings at run time.
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return chosen or sizes().float32_products


def layer_products() -> contextlib.AbstractContextManager[object]:
    """Within it float32 products are traced with `matmul_precision`."""
    precision = matmul_precision()
    return contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision)
