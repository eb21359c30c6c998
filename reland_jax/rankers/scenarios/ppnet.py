"""PPNet, and PEPNet with it: every layer's input scaled by a gate that reads who and what (KDD 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.models.dropout import Dropout
from reland_jax.rankers.layers import flat
from reland_jax.rankers.scenarios.epnet import EPNet, Gate
from reland_jax.rankers.scenarios.rows import Rows


class PPNet(nn.Module):
    """Hidden layers and an output. Every gate sees the prior and the fields, which get no gradient by it.

    Attributes:
        layers: units of the hidden layers.
        hidden: units of a gate's hidden layer.
        gates_embeddings: whether `EPNet` comes first: PEPNet.
        dropout: share of units dropped in training.
    """

    layers: Sequence[int]
    hidden: int
    gates_embeddings: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, rows: Rows, train: bool = False) -> jax.Array:
        """Rows -> logits ``<float32>[B]``."""
        x = flat(EPNet(self.hidden, name="epnet")(rows) if self.gates_embeddings else rows.fields)
        read = jnp.concatenate([rows.prior, jax.lax.stop_gradient(x)], -1)
        for number, width in enumerate(self.layers):
            scaled = x * Gate(self.hidden, x.shape[-1], name=f"gate_{number}")(read)
            x = Dropout(self.dropout)(nn.relu(nn.Dense(width, name=f"layer_{number}")(scaled)), not train)
        scaled = x * Gate(self.hidden, x.shape[-1], name="gate_output")(read)
        return nn.Dense(1, name="output")(scaled)[:, 0]
