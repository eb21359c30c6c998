"""Texts as fields: frozen vectors through projections that start at zero."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

AnyArray: TypeAlias = np.ndarray | jax.Array
"""An array on the host or on a device."""

PROJECTION = "projection"
"""Name of the kernels that `RankerConfig.text_l2` keeps small."""


class Texts(NamedTuple):
    """What a ranker is given of texts, the same in training and in serving; None for what an arm lacks.

    Attributes:
        items: ``<float32>[I, T]``, a vector per item; zero where it has no text.
        rationales: ``<float32>[S, T]``, the encoded pool.
        seed: ``<int32>[U]``, each user's seed user as a row of `rationales`, -1 for none.
        cosine: ``<float32>[U]``, of the user with it (Eq. 3).
        scenarios: ``<float32>[S, T]``, what is known of every scenario; read by meta layers alone.
    """

    items: AnyArray | None = None
    rationales: AnyArray | None = None
    seed: AnyArray | None = None
    cosine: AnyArray | None = None
    scenarios: AnyArray | None = None


def seed_of(texts: Texts, user_row: jax.Array) -> jax.Array:
    """The seed users of some users: ``<int32>[B]`` of -1 for none -> ``<int32>[B]``, -1 for none."""
    assert texts.seed is not None
    return entries(texts.seed, user_row, -1)


def entries(table: AnyArray, row: jax.Array, absent: float) -> jax.Array:
    """Rows ``<int32>[B]`` of a table ``[n, ...]``; `absent` for -1, and for what came after it was made."""
    outside = jnp.where(row >= 0, row, len(table))
    return jnp.asarray(table).at[outside].get(mode="fill", fill_value=absent)


class TextField(nn.Module):
    """A linear projection of a frozen vector, and a learned vector where there is none.

    Both start at zero: the ranker begins as it is without the text.

    Attributes:
        width: k.
    """

    width: int

    @nn.compact
    def __call__(self, table: AnyArray, row: jax.Array) -> jax.Array:
        """Texts ``<float32>[n, T]`` (zero: none), rows ``<int32>[B]`` (-1: none) -> ``<float32>[B, k]``."""
        zeros = nn.initializers.zeros
        text = entries(table, row, 0.0)
        is_there = jnp.any(text != 0, -1, keepdims=True)
        projected = nn.Dense(self.width, use_bias=False, kernel_init=zeros, name=PROJECTION)(text)
        return projected + jnp.where(is_there, 0.0, self.param("absent", zeros, (self.width,)))


class NumbersField(nn.Module):
    """Numbers about a row, each times a vector, such as the cosine to the seed user. Starts at zero.

    Attributes:
        width: k.
    """

    width: int

    @nn.compact
    def __call__(self, *numbers: jax.Array) -> jax.Array:
        """Numbers ``<float32>[B]`` -> ``<float32>[B, k]``."""
        zeros = nn.initializers.zeros
        return nn.Dense(self.width, use_bias=False, kernel_init=zeros, name="vectors")(jnp.stack(numbers, -1))


def similarity(texts: Texts, user_row: jax.Array, item_row: jax.Array) -> jax.Array:
    """Cosines of the rationales' vectors with those of the items, ``<float32>[B]``; 0 where one is missing.

    A product of two projections can become it, but only slowly, and differently for every rationale. What it
    says holds for all of them alike, also those that training has seldom.
    """
    assert texts.items is not None and texts.rationales is not None
    said = entries(texts.rationales, seed_of(texts, user_row), 0.0)
    item = entries(texts.items, item_row, 0.0)
    lengths = jnp.sum(said**2, -1) * jnp.sum(item**2, -1)
    return jnp.sum(said * item, -1) * jax.lax.rsqrt(jnp.where(lengths > 0, lengths, 1.0))
