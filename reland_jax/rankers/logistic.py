"""Logistic regression: every feature has a weight."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class LogisticRegression(nn.Module):
    """The sum of all fields, each embedded as one number, and a bias: the logit itself."""

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, 1]`` -> ``<float32>[B, 1]``, the logit."""
        del train
        return jnp.sum(fields, 1) + self.param("bias", nn.initializers.zeros, (1,))
