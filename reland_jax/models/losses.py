"""Training losses: BPR over pairs, and cross-entropy over the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from reland_jax.device import sizes
from reland_jax.mesh import DATA, MODEL, active_mesh

LANES = 16
"""A tile's targets are a multiple of it."""


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

    Both gradients are computed tile by tile in the forward pass, while a tile of logits is still in cache, so
    the ``[B, I]`` matrix never exists and its softmax is computed once.

    On a mesh every device compares its shard of the users with its shard of the items; only sums and maxima
    per user, and the gradients, are exchanged.

    Args:
        users: ``<float32>[B, D]``; on a mesh, B is a multiple of the devices that share the batch.
        items: ``<float32>[rows, D]``; row 0, the padding item, and rows above I take no part.
        target: ``<int32>[B]`` in 1 .. I.
        weight: ``<float32>[B]``, at least 0, with a positive sum.
        num_items: I.
        dtype: "float32" or "bfloat16", of what is multiplied; logits, exponentials and sums are float32.

    Returns:
        A float32 scalar.
    """
    return _forward(users, items, target, weight, num_items, dtype)[0]


def scored_cross_entropy(
    score: Callable[[jax.Array, jax.Array], jax.Array],
    users: jax.Array,
    items: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    num_items: int,
) -> jax.Array:
    """`catalogue_cross_entropy` for a score that is no dot product.

    The scores of a tile of users are computed again for the gradients, so that the ``[B, I]`` matrix never
    exists.

    Args:
        score: users ``<float32>[n, E]``, `items` -> ``<float32>[n, rows]``.
        users: ``<float32>[B, E]``.
        items: ``<float32>[rows, E]``; row 0, the padding item, and rows above I take no part.
        target: ``<int32>[B]`` in 1 .. I.
        weight: ``<float32>[B]``, at least 0, with a positive sum.
        num_items: I.

    Returns:
        A float32 scalar.
    """

    @jax.checkpoint
    def tile(total: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        tile_users, tile_target, tile_scale = inputs
        scores = score(tile_users, items)[:, 1 : num_items + 1]
        chosen = jnp.take_along_axis(scores, jnp.maximum(tile_target - 1, 0)[:, None], 1)[:, 0]
        return total + tile_scale @ (jax.nn.logsumexp(scores, axis=1) - chosen), None

    tiles, size = tiling(len(users))
    split = tuple(_divided(each, tiles, size) for each in (users, target, weight / jnp.sum(weight)))
    return jax.lax.scan(tile, jnp.zeros(()), split)[0]


def sampled_cross_entropy(
    positive: jax.Array,
    scores: jax.Array,
    target: jax.Array,
    candidates: jax.Array,
    weight: jax.Array,
    num_items: int,
) -> jax.Array:
    """Cross-entropy over the catalogue, whose other items are estimated from uniformly drawn ones.

    The sum of the exponentials over all other items is that over the drawn ones times as many as each stands
    for (Bengio and Senecal, 2008), so a sample of all items gives the loss over the catalogue.

    Args:
        positive: ``<float32>[B, 1]``, scores of the targets.
        scores: ``<float32>[B, n]``, scores of the candidates.
        target: ``<int32>[B]``.
        candidates: ``<int32>[n]``, the same for all users; one that is the target of a user is left out.
        weight: ``<float32>[B]``, at least 0, with a positive sum.
        num_items: I.

    Returns:
        A float32 scalar.
    """
    others = candidates[None] != target[:, None]
    each = jnp.log((num_items - 1) / jnp.maximum(others.sum(1, keepdims=True), 1))
    logits = jnp.concatenate([positive, jnp.where(others, scores + each, -jnp.inf)], 1)
    return jnp.sum(weight * (jax.nn.logsumexp(logits, axis=1) - positive[:, 0])) / jnp.sum(weight)


def tiling(count: int) -> tuple[int, int]:
    """How many equal tiles hold `count` targets, and how many targets each has room for."""
    tiles = max(-(-count // sizes().loss_targets), 1)
    return tiles, -(-count // (tiles * LANES)) * LANES


def _forward(
    users: jax.Array, items: jax.Array, target: jax.Array, weight: jax.Array, num_items: int, dtype: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    scale = weight / jnp.sum(weight)
    local = partial(_tiles, num_items=num_items, dtype=dtype, shared=active_mesh() is not None)
    if active_mesh() is not None:
        batch, table = PartitionSpec(DATA), PartitionSpec(MODEL)
        local = jax.shard_map(
            local,
            in_specs=(batch, table, batch, batch),
            out_specs=(PartitionSpec(), (batch, table)),
            check_vma=False,
        )
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
    # A single device slices the padding rows off. A shard of a mesh has them in between, and sets their
    # logits to a finite low number, so that an unused entry, of weight 0, contributes 0 and not 0 x inf.
    first = jax.lax.axis_index(MODEL) * items.shape[0] if shared else 1
    candidates = items if shared else items[1 : num_items + 1]
    number = first + jnp.arange(len(candidates))
    penalty = jnp.where((number == 0) | (number > num_items), jnp.float32(-1e30), 0.0)
    multiplied = candidates.astype(dtype)
    place = target - first
    own = (place >= 0) & (place < len(candidates))
    place = jnp.clip(place, 0, len(candidates) - 1)

    def over(axis: str, reduce: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        return reduce(values, axis) if shared else values

    def tile(grad_items: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        tile_users, tile_place, tile_own, tile_scale = inputs
        logits = _product(tile_users.astype(dtype), multiplied.T)
        logits = logits + penalty if shared else logits
        top = over(MODEL, jax.lax.pmax, logits.max(-1, keepdims=True))
        mass = jnp.exp(logits - top)
        total = over(MODEL, jax.lax.psum, mass.sum(-1, keepdims=True))
        # Not looked up in the logits: nothing reads them afterwards, so `mass` may overwrite them.
        of_target = tile_own[:, None] * multiplied[tile_place].astype(jnp.float32)
        chosen = over(MODEL, jax.lax.psum, jnp.sum(tile_users.astype(dtype) * of_target, -1))
        losses = tile_scale * ((jnp.log(total) + top)[:, 0] - chosen)
        spread = tile_scale[:, None] / total
        mass = mass.astype(dtype)
        grad_users = _product(mass, multiplied) * spread - tile_scale[:, None] * of_target
        return grad_items + _product((tile_users * spread).T.astype(dtype), mass), (losses, grad_users)

    tiles, size = tiling(len(users))
    split = tuple(_divided(a, tiles, size) for a in (users, place, own, scale))
    grad_items, (losses, grad_users) = jax.lax.scan(tile, jnp.zeros(candidates.T.shape), split)
    grad_items = grad_items.T.at[place].add(-(own * scale)[:, None] * users)
    grad_items = grad_items if shared else jnp.zeros_like(items).at[1 : num_items + 1].set(grad_items)
    grad_users = over(MODEL, jax.lax.psum, grad_users.reshape(-1, users.shape[1])[: len(users)])
    return over(DATA, jax.lax.psum, losses.sum()), (grad_users, over(DATA, jax.lax.psum, grad_items))


def _divided(values: jax.Array, tiles: int, size: int) -> jax.Array:
    """``[B, ...]``, filled up with zeros, as ``[tiles, size, ...]``."""
    room = ((0, tiles * size - len(values)), *((0, 0),) * (values.ndim - 1))
    return jnp.pad(values, room).reshape(tiles, size, *values.shape[1:])


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
    # HIGHEST: float32 means float32 on an accelerator, too. Who wants it faster chooses bfloat16, to which
    # this does nothing.
    highest = jax.lax.Precision.HIGHEST
    return jnp.dot(first, second, precision=highest, preferred_element_type=jnp.float32)


def _backward(
    num_items: int, dtype: str, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del num_items, dtype
    grad_users, grad_items = residuals
    return cotangent * grad_users, cotangent * grad_items, None, None


catalogue_cross_entropy.defvjp(_forward, _backward)
