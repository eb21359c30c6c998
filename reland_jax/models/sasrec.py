"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018)."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.device import attend
from reland_jax.models.dropout import Dropout

_normal = nn.initializers.normal(0.02)


class SelfAttention(nn.Module):
    """Causal multi-head attention within segments (section III-B, Eq. 2), with a residual."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Args: x ``[R, W, D]`` of `activations`; mask ``<bool>[R, 1, W, W]``, True where a key is seen."""
        dim, heads, dtype = self.config.dim, self.config.heads, self.config.activations
        projected = nn.Dense(3 * dim, dtype=dtype, kernel_init=_normal, name="query_key_value")(x)
        split = projected.reshape(*x.shape[:2], 3, heads, dim // heads)
        query, key, value = (split[:, :, i] for i in range(3))
        dropout = Dropout(self.config.dropout)
        drop = partial(dropout, deterministic=False) if train and self.config.dropout else None
        mixed = attend(query, key, value, mask, drop).reshape(x.shape)
        mixed = nn.Dense(dim, dtype=dtype, kernel_init=_normal, name="output")(mixed)
        mixed = Dropout(self.config.dropout)(mixed, not train)
        return nn.LayerNorm(epsilon=1e-12, dtype=dtype)(x + mixed)


class FeedForward(nn.Module):
    """Point-wise feed-forward network (section III-C, Eq. 4) with GELU, and a residual."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Args: x ``[R, W, D]`` of `config.activations`."""
        dtype = self.config.activations
        inner = nn.Dense(self.config.inner, dtype=dtype, kernel_init=_normal)(x)
        outer = nn.Dense(self.config.dim, dtype=dtype, kernel_init=_normal)(nn.gelu(inner))
        outer = Dropout(self.config.dropout)(outer, not train)
        return nn.LayerNorm(epsilon=1e-12, dtype=dtype)(x + outer)


class SASRec(nn.Module):
    """Encodes every position of packed sequences from the items up to it.

    Attributes:
        config: sizes and dropout.
        max_length: L, number of learned positions.
    """

    config: ModelConfig
    max_length: int

    @nn.compact
    def __call__(
        self, embedded: jax.Array, position: jax.Array, segment: jax.Array, train: bool
    ) -> jax.Array:
        """Hidden states.

        Args:
            embedded: ``<float32>[R, W, D]`` item representations.
            position: ``<int32>[R, W]`` in 0 .. L-1, place within the sequence.
            segment: ``<int32>[R, W]``, which sequence of the row; 0 for no token.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``[R, W, D]`` of `config.activations`.
        """
        positions = self.param("position", _normal, (self.max_length, self.config.dim))
        hidden = nn.LayerNorm(epsilon=1e-12, dtype=self.config.activations)(embedded + positions[position])
        hidden = Dropout(self.config.dropout)(hidden, not train)
        mask = segment[:, None, :, None] == segment[:, None, None, :]
        mask &= jnp.tril(jnp.ones(mask.shape[-2:], bool))
        for layer in range(self.config.layers):
            hidden = SelfAttention(self.config, name=f"attention_{layer}")(hidden, mask, train)
            hidden = FeedForward(self.config, name=f"feed_forward_{layer}")(hidden, train)
        return hidden
