"""Dropout with a random byte per element."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 2014) whose mask costs a quarter of the usual random numbers.

    `flax.linen.Dropout` draws 32 random bits per element, which on a CPU takes longer than the layers
    around it: 15 of 100 ms in a training step of NGCF for each layer. A byte tells 256 rates apart, so
    the rate is rounded to the nearest multiple of 1/256, and the scale is that of the rounded rate.

    Attributes:
        rate: share of elements dropped, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Args: x of any shape. Without `deterministic` needs the rng "dropout"."""
        kept = max(round((1.0 - self.rate) * 256), 1)
        if deterministic or kept == 256:
            return x
        words = jax.random.bits(self.make_rng("dropout"), (-(-x.size // 4),), jnp.uint32)
        drawn = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size].reshape(x.shape)
        return jnp.where(drawn < kept, x * (256 / kept), 0.0)
