"""Texts as fields: frozen vectors through projections that start at zero."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

PROJECTION = "projection"
"""Name of the kernels that `RankerConfig.text_l2` keeps small."""


class Texts(NamedTuple):
    """What a ranker is given of texts, the same in training and in serving; None for what an arm lacks.

    Attributes:
        items: ``<float32>[I, T]``, a vector per item; zero where it has no text.
        rationales: ``<float32>[S, T]``, the encoded pool.
        seed: ``<int32>[U]``, each user's seed user as a row of `rationales`, -1 for none.
        cosine: ``<float32>[U]``, of the user with it (Eq. 3).
    """

    items: jax.Array | None = None
    rationales: jax.Array | None = None
    seed: jax.Array | None = None
    cosine: jax.Array | None = None


def seed_of(texts: Texts, user_row: jax.Array) -> jax.Array:
    """The seed users of some users: ``<int32>[B]`` of -1 for none -> ``<int32>[B]``, -1 for none."""
    assert texts.seed is not None
    return jnp.where(user_row >= 0, texts.seed[jnp.maximum(user_row, 0)], -1)


class TextField(nn.Module):
    """A linear projection of a frozen vector, and a learned vector where there is none.

    Both start at zero: the ranker begins as it is without the text.

    Attributes:
        width: k.
    """

    width: int

    @nn.compact
    def __call__(self, table: jax.Array, row: jax.Array) -> jax.Array:
        """Texts ``<float32>[n, T]``, rows ``<int32>[B]`` (-1: none) -> ``<float32>[B, k]``."""
        zeros, is_there = nn.initializers.zeros, (row >= 0)[:, None]
        text = jnp.where(is_there, table[jnp.maximum(row, 0)], 0.0)
        projected = nn.Dense(self.width, use_bias=False, kernel_init=zeros, name=PROJECTION)(text)
        return projected + jnp.where(is_there, 0.0, self.param("absent", zeros, (self.width,)))


class CosineField(nn.Module):
    """The cosine to the seed user as a number: far matches can count less. Starts at zero.

    Attributes:
        width: k.
    """

    width: int

    @nn.compact
    def __call__(self, cosine: jax.Array, row: jax.Array) -> jax.Array:
        """Cosines ``<float32>[U]``, rows ``<int32>[B]`` (-1: none, as a cosine of 0) -> ``<float32>[B, k]``."""
        number = jnp.where(row >= 0, cosine[jnp.maximum(row, 0)], 0.0)
        return number[:, None] * self.param("vector", nn.initializers.zeros, (self.width,))
