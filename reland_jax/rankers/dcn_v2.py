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

    Attributes:
        cross_layers: number of cross layers.
        widths: units of the hidden layers.
        dropout: share of hidden units dropped in training.
    """

    cross_layers: int
    widths: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, H + f k]``."""
        crossed = first = flat(fields)
        for number in range(self.cross_layers):
            crossed = first * nn.Dense(first.shape[-1], name=f"cross_{number}")(crossed) + crossed
        deep = MLP(self.widths, self.dropout, name="layers")(first, train)
        return jnp.concatenate([deep, crossed], -1)
