"""Attention of every token to those of its row that a mask allows: written out, or by a fused kernel.

The fused kernel (`jax.nn.dot_product_attention`) holds no ``[R, H, W, W]`` of weights. cuDNN's has two limits
that decide where it is taken: it multiplies 16-bit numbers only, and its dropout draws the same mask in every
step, since its seed is a constant of the program. So training with dropout is written out everywhere;
evaluation, and training without dropout, take the kernel where the table of the device names one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from reland_jax.device.sizes import sizes


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    drop: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
    """``softmax(query key^T / sqrt(d)) value`` within every row, the softmax in float32.

    Args:
        query: ``[R, W, H, d]``, float32 or bfloat16; so are the others.
        key: ``[R, W, H, d]``.
        value: ``[R, W, H, d]``.
        mask: ``<bool>[R, 1, W, W]``, True where a query sees a key; every query sees one at least.
        drop: dropout of the weights ``[R, H, W, W]``, or None.

    Returns:
        ``[R, W, H, d]`` of the same type.
    """
    form = sizes().attention
    if drop is None and (form == "xla" or (form == "cudnn" and _suits_cudnn(query))):
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=form)  # type: ignore[call-overload]  # one of its two names
    logits = jnp.einsum("rqhd,rkhd->rhqk", query, key) / jnp.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask, logits.astype(jnp.float32), -1e9)).astype(query.dtype)
    weights = drop(weights) if drop else weights
    return jnp.einsum("rhqk,rkhd->rqhd", weights, value)


def _suits_cudnn(query: jax.Array) -> bool:
    """Whether cuDNN's kernel takes these arrays, with their gradients, on any GPU that has the kernel."""
    _, width, _, size = query.shape
    sixteen_bits = query.dtype in (jnp.bfloat16, jnp.float16)
    return sixteen_bits and size % 8 == 0 and size <= 128 and width % 2 == 0 and has_cudnn()


def has_cudnn() -> bool:
    """Whether the devices in use are NVIDIA's."""
    return "cuda" in jax.devices()[0].client.platform_version
