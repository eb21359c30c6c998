"""Probabilities of a funnel of labels, and the losses on them.

Every task returns logits of *reaching* a label: that it and all labels before it are 1 (click; click and
conversion, the CTCVR). They are of all rows, and so is the loss; there is no choice of clicked rows in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from reland_jax.rankers.schema import WEIGHT, Batch


class Scores(NamedTuple):
    """Probabilities of T labels in the order of the funnel.

    Attributes:
        reached: ``<float32>[B, T]``, of this label and all before it: pCTR, pCTCVR.
        given: ``<float32>[B, T]``, of this label given all before it: pCTR, pCVR. Where a task holds a later
            label for more probable than the one before it, 1.
    """

    reached: jax.Array
    given: jax.Array


def scores(logits: jax.Array) -> Scores:
    """Probabilities from logits of reaching each label, ``<float32>[B, T]``."""
    log_reached = jax.nn.log_sigmoid(logits)
    before = jnp.pad(log_reached[:, :-1], ((0, 0), (1, 0)))
    return Scores(jnp.exp(log_reached), jnp.exp(jnp.minimum(log_reached - before, 0.0)))


def reached_logits(given: jax.Array) -> jax.Array:
    """Logits of reaching each label from logits of each given those before it.

    With a and b the logits of click and conversion, ``-log(e^-a + e^-b + e^(-a-b))`` is that of their
    product: the odds against several events are ``prod(1 + e^-a_i) - 1``. No probability is formed, so
    nothing is rounded to 0 or 1.

    Args:
        given: ``<float32>[B, T]``.

    Returns:
        ``<float32>[B, T]``.
    """
    against, found = -given[:, 0], [given[:, 0]]
    for at in range(1, given.shape[1]):
        own = -given[:, at]
        against = jnp.logaddexp(jnp.logaddexp(against, own), against + own)
        found.append(-against)
    return jnp.stack(found, 1)


def reached_labels(batch: Batch, labels: Sequence[str]) -> jax.Array:
    """Whether each label and all before it are 1, ``<float32>[B, T]``."""
    return jnp.cumprod(jnp.stack([jnp.asarray(batch[name]) for name in labels], 1), 1)


def row_weights(batch: Batch, trained_on: str = "") -> jax.Array:
    """The weight of every row in the loss, ``<float32>[B]``.

    Args:
        batch: see `reland_jax.rankers`.
        trained_on: the label that a row must have to count; "" for none.
    """
    weight = jnp.asarray(batch[WEIGHT])
    return weight * jnp.asarray(batch[trained_on]) if trained_on else weight


def funnel_loss(logits: jax.Array, reached: jax.Array, weight: jax.Array) -> jax.Array:
    """Sum over the labels of the mean log loss.

    Args:
        logits: ``<float32>[B, T]``, of reaching each label.
        reached: ``<float32>[B, T]``, see `reached_labels`.
        weight: ``<float32>[B]``.

    Returns:
        ``<float32>[]``, 0 where no row counts.
    """
    losses = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, reached), 1)
    return weighted_mean(losses, weight)


def excess(logits: jax.Array, weight: jax.Array) -> jax.Array:
    """By how much later labels are held for more probable than those before, on average ``<float32>[]``."""
    reached = jax.nn.sigmoid(logits)
    return weighted_mean(jnp.sum(jnp.maximum(reached[:, 1:] - reached[:, :-1], 0.0), 1), weight)


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """``<float32>[B]`` twice -> ``<float32>[]``, 0 where all weights are."""
    total = jnp.sum(weight)
    return jnp.sum(values * weight) / jnp.where(total > 0, total, 1.0)
