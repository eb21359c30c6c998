"""Shared bottom: one network for all labels, a tower for each (Caruana, Machine Learning 1997)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import NetworkFactory, TowerLogit


class SharedBottom(nn.Module):
    """A network that all labels share, and a tower of each label on it.

    Attributes:
        network: makes the network.
        labels: T, number of labels.
        tower: hidden layers of a tower.
        dropout: share of units dropped in training.
    """

    network: NetworkFactory
    labels: int
    tower: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, T]``, logits that a row reaches each label."""
        hidden = self.network("network")(fields, train)
        towers = [TowerLogit(self.tower, self.dropout, name=f"tower_{at}") for at in range(self.labels)]
        return jnp.stack([tower(hidden, train) for tower in towers], -1)
