"""AITM: every step of a funnel is told what the step before it knows (Xi et al., KDD 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import MLP, Logit, NetworkFactory


class Transfer(nn.Module):
    """Self-attention between what a step has of its own and what the step before it hands on."""

    @nn.compact
    def __call__(self, handed: jax.Array, own: jax.Array) -> jax.Array:
        """``<float32>[B, H]`` twice -> ``<float32>[B, H]``."""
        both, width = jnp.stack([handed, own], 1), own.shape[-1]
        value, key, query = (nn.Dense(width, name=name)(both) for name in ("value", "key", "query"))
        weights = nn.softmax(jnp.sum(key * query, -1) / jnp.sqrt(width), -1)
        return jnp.einsum("bu,buh->bh", weights, value)


class AITM(nn.Module):
    """A network and a tower for every label, and what is handed from each to the next.

    The logits are those of reaching a label; the loss punishes a later one that is more probable than the one
    before it (`RankerConfig.calibration`).

    Attributes:
        network: makes the networks.
        labels: T, number of labels.
        tower: hidden layers of a tower; what is handed on is as wide as the last.
        dropout: share of units dropped in training.
    """

    network: NetworkFactory
    labels: int
    tower: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, T]``, logits that a row reaches each label."""
        hidden, logits = self._own(0, fields, train), []
        for at in range(self.labels):
            if at:
                handed = MLP(self.tower[-1:], self.dropout, name=f"handed_{at}")(hidden, train)
                hidden = Transfer(name=f"transfer_{at}")(handed, self._own(at, fields, train))
            logits.append(Logit(name=f"logit_{at}")(hidden))
        return jnp.stack(logits, -1)

    def _own(self, at: int, fields: jax.Array, train: bool) -> jax.Array:
        """What a label makes of the fields itself, ``<float32>[B, H]``."""
        hidden = self.network(f"network_{at}")(fields, train)
        return MLP(self.tower, self.dropout, name=f"tower_{at}")(hidden, train)
