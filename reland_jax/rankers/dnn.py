"""DNN: hidden layers on the embedded fields."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from reland_jax.rankers.layers import MLP, flat


class DNN(nn.Module):
    """Hidden layers with ReLU on the concatenated fields.

    Attributes:
        widths: units of every layer.
        dropout: share of units dropped in training.
    """

    widths: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, H]``."""
        return MLP(self.widths, self.dropout, name="layers")(flat(fields), train)
