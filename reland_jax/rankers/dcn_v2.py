"""DCN-V2: explicit products of fields beside a DNN (Wang et al., WWW 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import MLP, flat


class DCNV2(nn.Module):
    """Cross layers ``x' = x_0 o (W x + b) + x`` with full matrices, in parallel with hidden layers.

    The outputs of both are concatenated, those of the hidden layers first.

    The product of two fields has two weights, one in the matrix of each. Fields that are only read, the texts
    of users, have the one in the matrices of the others, so that matrices grow along one side only.

    Attributes:
        cross_layers: number of cross layers.
        widths: units of the hidden layers.
        dropout: share of hidden units dropped in training.
        only_read: how many of the last fields are not crossed among themselves, and stay as they are.
    """

    cross_layers: int
    widths: Sequence[int]
    dropout: float = 0.0
    only_read: int = 0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, H + f k]``."""
        every = flat(fields)
        width = every.shape[1] - self.only_read * fields.shape[2]
        crossed = first = every[:, :width]
        for number in range(self.cross_layers):
            read = jnp.concatenate([crossed, every[:, width:]], 1)
            crossed = first * nn.Dense(width, name=f"cross_{number}")(read) + crossed
        deep = MLP(self.widths, self.dropout, name="layers")(every, train)
        return jnp.concatenate([deep, crossed, every[:, width:]], -1)
