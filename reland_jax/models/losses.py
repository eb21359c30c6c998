"""Training losses: BPR over pairs, and cross-entropy over the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from reland_jax.mesh import DATA, MODEL, active_mesh, axis_size

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


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def catalogue_cross_entropy(
    users: jax.Array,
    items: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    num_items: int,
    dtype: str = "float32",
) -> jax.Array:
    """Weighted mean of -log softmax(users @ items.T)[target] without keeping the logits.

    Both gradients are formed tile by tile in the forward pass, while a tile of logits is still in
    cache, so the ``[B, I]`` matrix never exists and its softmax is computed once.

    On a mesh every device compares its share of the users with its share of the items; what crosses
    devices are sums and maxima per user, and the gradients.

    Args:
        users: ``<float32>[B, D]``, B a multiple of `targets_per_tile`.
        items: ``<float32>[rows, D]``; row 0, the padding item, and rows above I take no part.
        target: ``<int32>[B]`` in 1 .. I.
        weight: ``<float32>[B]``, at least 0, with a positive sum.
        num_items: I.
        dtype: "float32" or "bfloat16", of what is multiplied; logits, exponentials and sums are float32.

    Returns:
        A float32 scalar.
    """
    return _forward(users, items, target, weight, num_items, dtype)[0]


def targets_per_tile() -> int:
    """What the number of targets has to be a multiple of."""
    return TILE * axis_size(DATA)


def _forward(
    users: jax.Array, items: jax.Array, target: jax.Array, weight: jax.Array, num_items: int, dtype: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    scale = weight / jnp.sum(weight)
    local = partial(_tiles, num_items=num_items, dtype=dtype, shared=active_mesh() is not None)
    if active_mesh() is not None:
        batch, table = PartitionSpec(DATA), PartitionSpec(MODEL)
        specs = {"in_specs": (batch, table, batch, batch), "out_specs": (PartitionSpec(), (batch, table))}
        local = jax.shard_map(local, **specs, check_vma=False)
    return local(users, items, target, scale)


def _tiles(
    users: jax.Array,
    items: jax.Array,
    target: jax.Array,
    scale: jax.Array,
    *,
    num_items: int,
    dtype: str,
    shared: bool,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Loss and gradients of one device's users, over all items."""
    multiplied = items.astype(dtype)
    transposed = multiplied.T
    first = jax.lax.axis_index(MODEL) * items.shape[0] if shared else 0
    number = first + jnp.arange(items.shape[0])
    # Finite, so that an unused entry, of target 0 and weight 0, contributes 0 and not 0 x inf.
    penalty = jnp.where((number == 0) | (number > num_items), jnp.float32(-1e30), 0.0)
    place = target - first
    own = (place >= 0) & (place < items.shape[0])
    place = jnp.clip(place, 0, items.shape[0] - 1)

    def over(axis: str, reduce: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        return reduce(values, axis) if shared else values

    def tile(grad_items: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        tile_users, tile_place, tile_own, tile_scale = inputs
        logits = _product(tile_users.astype(dtype), transposed) + penalty
        top = over(MODEL, jax.lax.pmax, logits.max(-1, keepdims=True))
        mass = jnp.exp(logits - top)
        total = over(MODEL, jax.lax.psum, mass.sum(-1, keepdims=True))
        chosen = jnp.where(tile_own[:, None], jnp.take_along_axis(logits, tile_place[:, None], 1), 0.0)
        chosen = over(MODEL, jax.lax.psum, chosen)
        losses = tile_scale * (jnp.log(total) + top - chosen)[:, 0]
        spread = tile_scale[:, None] / total
        mass = mass.astype(dtype)
        toward = (tile_own * tile_scale)[:, None] * items[tile_place]
        grad_users = _product(mass, multiplied) * spread - toward
        return grad_items + _product((tile_users * spread).T.astype(dtype), mass), (losses, grad_users)

    tiles = users.shape[0] // TILE
    split = tuple(a.reshape(tiles, TILE, *a.shape[1:]) for a in (users, place, own, scale))
    grad_items, (losses, grad_users) = jax.lax.scan(tile, jnp.zeros(transposed.shape), split)
    grad_items = grad_items.T.at[place].add(-(own * scale)[:, None] * users)
    grad_users = over(MODEL, jax.lax.psum, grad_users.reshape(users.shape))
    return over(DATA, jax.lax.psum, losses.sum()), (grad_users, over(DATA, jax.lax.psum, grad_items))


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.dot(first, second, preferred_element_type=jnp.float32)


def _backward(
    num_items: int, dtype: str, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del num_items, dtype
    grad_users, grad_items = residuals
    return cotangent * grad_users, cotangent * grad_items, None, None


catalogue_cross_entropy.defvjp(_forward, _backward)
