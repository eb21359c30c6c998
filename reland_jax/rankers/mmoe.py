"""MMoE: experts that every label mixes by a gate of its own (Ma et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import NetworkFactory, TowerLogit, flat


class Gate(nn.Module):
    """A mixture of experts, with weights from a linear softmax of an input."""

    @nn.compact
    def __call__(self, by: jax.Array, experts: Sequence[jax.Array]) -> jax.Array:
        """What weighs ``<float32>[B, m]``, and experts ``[B, H]`` each -> ``<float32>[B, H]``."""
        weights = nn.softmax(nn.Dense(len(experts), use_bias=False, name="weights")(by))
        return jnp.einsum("be,beh->bh", weights, jnp.stack(experts, 1))


class MMoE(nn.Module):
    """Expert networks, a gate on the fields and a tower for every label.

    Attributes:
        network: makes the experts.
        labels: T, number of labels.
        experts: number of experts.
        tower: hidden layers of a tower.
        dropout: share of units dropped in training.
    """

    network: NetworkFactory
    labels: int
    experts: int
    tower: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, T]``, logits that a row reaches each label."""
        experts = [self.network(f"expert_{at}")(fields, train) for at in range(self.experts)]
        logits = []
        for at in range(self.labels):
            mixed = Gate(name=f"gate_{at}")(flat(fields), experts)
            logits.append(TowerLogit(self.tower, self.dropout, name=f"tower_{at}")(mixed, train))
        return jnp.stack(logits, -1)
