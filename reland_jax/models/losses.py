"""Training losses: BPR over pairs, and cross-entropy over the whole catalogue."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

TILE = 128
"""Targets per tile of `catalogue_cross_entropy`: a tile of logits stays in a CPU core's cache."""


def bpr_loss(positive: jax.Array, negative: jax.Array, weight: jax.Array) -> jax.Array:
    """Bayesian personalised ranking (Rendle et al. 2009): mean of -log sigmoid(positive - negative).

    Args:
        positive: ``<float32>[B, 1]`` scores of observed items.
        negative: ``<float32>[B, n]`` scores of sampled items.
        weight: ``<float32>[B]``, at least 0, with a positive sum.

    Returns:
        A float32 scalar.
    """
    return jnp.sum(weight * jax.nn.softplus(negative - positive).mean(-1)) / jnp.sum(weight)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def catalogue_cross_entropy(
    users: jax.Array, items: jax.Array, target: jax.Array, weight: jax.Array, dtype: str = "float32"
) -> jax.Array:
    """Weighted mean of -log softmax(users @ items.T)[target] without keeping the logits.

    Both gradients are formed tile by tile in the forward pass, while a tile of logits is still in
    cache, so the ``[B, I]`` matrix never exists and its softmax is computed once.

    Args:
        users: ``<float32>[B, D]``, B a multiple of `TILE`.
        items: ``<float32>[I + 1, D]``; row 0, the padding item, takes no part.
        target: ``<int32>[B]`` in 1 .. I.
        weight: ``<float32>[B]``, at least 0, with a positive sum.
        dtype: "float32" or "bfloat16", of what is multiplied; logits, exponentials and sums are float32.

    Returns:
        A float32 scalar.
    """
    return _forward(users, items, target, weight, dtype)[0]


def _forward(
    users: jax.Array, items: jax.Array, target: jax.Array, weight: jax.Array, dtype: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    scale = weight / jnp.sum(weight)
    multiplied = items.astype(dtype)
    transposed = multiplied.T
    # Finite, so that an unused entry, of target 0 and weight 0, contributes 0 and not 0 x inf.
    penalty = jnp.zeros(items.shape[0], jnp.float32).at[0].set(-1e30)

    def tile(grad_items: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        tile_users, tile_target, tile_scale = inputs
        logits = _product(tile_users.astype(dtype), transposed) + penalty
        top = logits.max(-1, keepdims=True)
        mass = jnp.exp(logits - top)
        total = mass.sum(-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, tile_target[:, None], 1)
        losses = tile_scale * (jnp.log(total) + top - chosen)[:, 0]
        spread = tile_scale[:, None] / total
        mass = mass.astype(dtype)
        grad_users = _product(mass, multiplied) * spread - tile_scale[:, None] * items[tile_target]
        return grad_items + _product((tile_users * spread).T.astype(dtype), mass), (losses, grad_users)

    tiles = users.shape[0] // TILE
    split = tuple(a.reshape(tiles, TILE, *a.shape[1:]) for a in (users, target, scale))
    grad_items, (losses, grad_users) = jax.lax.scan(tile, jnp.zeros(transposed.shape), split)
    grad_items = grad_items.T.at[target].add(-scale[:, None] * users)
    return losses.sum(), (grad_users.reshape(users.shape), grad_items)


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.dot(first, second, preferred_element_type=jnp.float32)


def _backward(
    dtype: str, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del dtype
    grad_users, grad_items = residuals
    return cotangent * grad_users, cotangent * grad_items, None, None


catalogue_cross_entropy.defvjp(_forward, _backward)
