"""STAR: weights of all scenarios times weights of each, in a star (Sheng et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.models.dropout import Dropout
from reland_jax.rankers.layers import EPSILON, TowerLogit, flat
from reland_jax.rankers.scenarios.rows import Rows

MOVING = "moving"
"""The collection of variables that a step moves without a gradient."""


class PartitionedNorm(nn.Module):
    """Normalisation by mean and variance of the rows of a scenario, with gains and biases of all and of each.

    In training the statistics are those of the batch's rows of the scenario; otherwise moving ones of the
    scenario, which a batch without rows of it leaves as they are. The first m steps of a scenario are
    averaged alike, m about ``1 / (1 - momentum)``, so that a rare one does not start at nothing.

    Attributes:
        momentum: share of the moving statistics that a step keeps, once there were enough.
    """

    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array, rows: Rows, train: bool = False) -> jax.Array:
        """``<float32>[B, m]`` -> ``<float32>[B, m]``."""
        (width, scenarios), ones, zeros = (x.shape[-1], rows.shares.shape[-1]), jnp.ones, jnp.zeros
        shape = (scenarios, width)
        gain = self.param("gain", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        own_gain = self.param("own_gain", nn.initializers.ones, shape)
        own_bias = self.param("own_bias", nn.initializers.zeros, shape)
        mean = self.variable(MOVING, "mean", zeros, shape, x.dtype)
        variance = self.variable(MOVING, "variance", ones, shape, x.dtype)
        steps = self.variable(MOVING, "steps", zeros, (scenarios, 1), x.dtype)
        centre, spread = mean.value, variance.value
        if train:
            centre, spread, is_there = batch_statistics(x, rows, centre, spread)
            if self.is_mutable_collection(MOVING):
                share = jnp.maximum(1 / (steps.value + 1), 1 - self.momentum)
                mean.value += share * (centre - mean.value)
                variance.value += share * (spread - variance.value)
                steps.value += is_there
        of_row = rows.shares
        normal = (x - of_row @ centre) * jax.lax.rsqrt(of_row @ spread + EPSILON)
        return gain * (of_row @ own_gain) * normal + bias + of_row @ own_bias


def batch_statistics(
    x: jax.Array, rows: Rows, mean: jax.Array, variance: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and variance of the rows of each scenario.

    Args:
        x: ``<float32>[B, m]``.
        rows: their scenarios. Rows that only fill up, or whose scenario is unknown, are not counted.
        mean: ``<float32>[S, m]``, for a scenario without rows.
        variance: ``<float32>[S, m]``, the same.

    Returns:
        Both, and whether each scenario has a row, ``<bool>[S, 1]``.
    """
    member = ((rows.shares == 1) & rows.counts[:, None]).astype(x.dtype)
    count = jnp.sum(member, 0)[:, None]
    is_there = count > 0
    own_mean = jnp.where(is_there, member.T @ x / jnp.maximum(count, 1), mean)
    squares = member.T @ (x - member @ own_mean) ** 2
    return own_mean, jnp.where(is_there, squares / jnp.maximum(count, 1), variance), is_there


class StarLayer(nn.Module):
    """``x (W o W_s) + b + b_s``; W_s starts at one and b_s at zero.

    Attributes:
        width: of the output.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, shares: jax.Array) -> jax.Array:
        """``<float32>[B, m]``, ``<float32>[B, S]`` -> ``<float32>[B, width]``."""
        shape, scenarios = (x.shape[-1], self.width), shares.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        own_kernel = self.param("own_kernel", nn.initializers.ones, (scenarios, *shape))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        own_bias = self.param("own_bias", nn.initializers.zeros, (scenarios, self.width))
        # The matrices of the scenarios side by side are one product, of which each row keeps its own part.
        of_each = jnp.einsum("bm,smh->bsh", x, kernel * own_kernel)
        return jnp.einsum("bsh,bs->bh", of_each, shares) + bias + shares @ own_bias


class Star(nn.Module):
    """Partitioned normalisation, hidden layers in a star, and an auxiliary logit of the scenario and the row.

    Attributes:
        layers: units of the hidden layers.
        auxiliary: units of the hidden layers of the auxiliary network.
        momentum: see `PartitionedNorm`.
        dropout: share of units dropped in training.
    """

    layers: Sequence[int]
    auxiliary: Sequence[int]
    momentum: float
    dropout: float = 0.0

    @nn.compact
    def __call__(self, rows: Rows, train: bool = False) -> jax.Array:
        """Rows -> logits ``<float32>[B]``."""
        embedded = flat(rows.fields)
        x = PartitionedNorm(self.momentum, name="norm")(embedded, rows, train)
        for number, width in enumerate(self.layers):
            x = nn.relu(StarLayer(width, name=f"layer_{number}")(x, rows.shares))
            x = Dropout(self.dropout)(x, not train)
        logit = StarLayer(1, name="output")(x, rows.shares)[:, 0]
        beside = jnp.concatenate([rows.domain, embedded], -1)
        return logit + TowerLogit(self.auxiliary, self.dropout, name="auxiliary")(beside, train)
