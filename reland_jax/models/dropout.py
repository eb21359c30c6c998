"""Dropout whose mask is drawn with few random bits."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.device import drawn_rate, kept


class Dropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 2014) with as few random bits as the device and the rate allow.

    `flax.linen.Dropout` draws 32 random bits per element. A byte tells 256 rates apart: the rate is rounded
    to a multiple of 1/256 where that is within 5% of it (`reland_jax.device.drawn_rate`), and the scale is
    that of the rounded rate.

    Attributes:
        rate: share of elements dropped, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Args: x of any shape. Without `deterministic` needs the rng "dropout"."""
        if deterministic or not self.rate:
            return x
        mask = kept(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(mask, x * (1 / (1 - drawn_rate(self.rate))), 0.0)
