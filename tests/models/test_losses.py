"""Losses and their hand-written gradients against the plain formulas."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.device import sizes_of
from reland_jax.models.losses import bpr_loss, catalogue_cross_entropy, tiling

DIM, NUM_ITEMS = 8, 21
TILE = sizes_of("cpu").loss_targets
COUNT = TILE + 57
"""Two tiles, and some room in them."""


class Example(NamedTuple):
    """Arguments of `catalogue_cross_entropy`."""

    users: jax.Array
    items: jax.Array
    target: jax.Array
    weight: jax.Array


def example(scale: float, unused: int) -> Example:
    """Weighted targets, the last few entries unused as a padded batch leaves them."""
    rng = np.random.default_rng(0)
    users, items = (rng.normal(0, scale, (n, DIM)).astype(np.float32) for n in (COUNT, NUM_ITEMS + 1))
    target = rng.integers(1, NUM_ITEMS + 1, COUNT).astype(np.int32)
    weight = rng.uniform(0.5, 2.0, COUNT).astype(np.float32)
    items[0] = 5 * scale
    target[COUNT - unused :], weight[COUNT - unused :], users[COUNT - unused :] = 0, 0.0, 0.0
    return Example(*map(jnp.asarray, (users, items, target, weight)))


def naive(users: jax.Array, items: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """The same loss from the whole matrix of logits; the padding item is left out."""
    log_probability = jax.nn.log_softmax(users @ items[1:].T)
    chosen = jnp.take_along_axis(log_probability, jnp.maximum(target - 1, 0)[:, None], 1)[:, 0]
    return -(jnp.where(weight > 0, chosen, 0.0) * weight).sum() / weight.sum()


ours_alone = partial(catalogue_cross_entropy, num_items=NUM_ITEMS)
gradients_of_ours = jax.jit(jax.value_and_grad(ours_alone, (0, 1)))
gradients_of_naive = jax.jit(jax.value_and_grad(naive, (0, 1)))


@pytest.mark.parametrize(("scale", "unused"), [(0.3, 0), (1.0, 37), (1.0, COUNT // 2 + 9), (12.0, 3)])
def test_cross_entropy_and_gradients(scale: float, unused: int) -> None:
    """Scale 12 has logits of several hundred, which overflow an exponential taken without care.

    Where more than half is unused, the second tile has nothing else.
    """
    arguments = example(scale, unused)
    (ours, (users, items)), (expected, (of_users, of_items)) = (
        function(*arguments) for function in (gradients_of_ours, gradients_of_naive)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_allclose(users, of_users, rtol=1e-5, atol=1e-5 * float(jnp.abs(of_users).max()))
    np.testing.assert_allclose(items, of_items, rtol=1e-5, atol=1e-5 * float(jnp.abs(of_items).max()))
    assert not np.asarray(items[0]).any(), "the padding item takes part"
    assert not np.asarray(users[COUNT - unused :]).any(), "an unused entry takes part"


def test_sixteen_bit_products_of_all_logits() -> None:
    """The target's logit is rounded as the others are: the loss is that of the rounded vectors."""
    users, items, *rest = example(12.0, 3)
    found = jax.jit(partial(ours_alone, dtype="bfloat16"))(users, items, *rest)
    rounded = (each.astype(jnp.bfloat16).astype(jnp.float32) for each in (users, items))
    np.testing.assert_allclose(found, gradients_of_naive(*rounded, *rest)[0], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 15, 16, TILE - 1, TILE, TILE + 1, 3 * TILE, 1034])
def test_tiles_hold_all_targets_and_little_else(count: int) -> None:
    tiles, size = tiling(count)
    assert count <= tiles * size < count + 16 * tiles and size <= TILE


def test_cross_entropy_scales_with_what_follows_it() -> None:
    """The gradient is multiplied by the cotangent, as in a sum with a penalty or a weighted loss."""
    arguments = example(1.0, 5)
    scaled = jax.jit(jax.grad(lambda users, *rest: -3.0 * ours_alone(users, *rest)))(*arguments)
    np.testing.assert_allclose(scaled, -3.0 * gradients_of_naive(*arguments)[1][0], rtol=1e-4, atol=1e-7)


def test_cross_entropy_of_a_certain_and_of_a_blind_model() -> None:
    """0 where the target outscores all, log(I) where all items score alike."""
    target, weight = jnp.full(COUNT, 2), jnp.ones(COUNT)
    users, blind = jnp.ones((COUNT, DIM)), jnp.zeros((NUM_ITEMS + 1, DIM))
    certain = blind.at[2].set(100.0)
    assert float(gradients_of_ours(users, certain, target, weight)[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(gradients_of_ours(users, blind, target, weight)[0]) == pytest.approx(np.log(NUM_ITEMS))


def test_bpr_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0, 2, (9, 1)), rng.normal(0, 2, (9, 3))
    weight = np.array([1, 1, 0, 2, 1, 0, 1, 1, 0.5])
    each = -np.log(1 / (1 + np.exp(-(positive - negative)))).mean(1)
    expected = (each * weight).sum() / weight.sum()
    arrays = (jnp.asarray(a, jnp.float32) for a in (positive, negative, weight))
    assert float(bpr_loss(*arrays)) == pytest.approx(expected, rel=1e-5)


def test_bpr_of_a_hopeless_pair_is_finite() -> None:
    loss, gradient = jax.value_and_grad(bpr_loss)(jnp.array([[-500.0]]), jnp.array([[500.0]]), jnp.ones(1))
    assert float(loss) == pytest.approx(1000.0) and float(gradient[0, 0]) == pytest.approx(-1.0)
