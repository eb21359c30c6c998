"""EPNet: embeddings scaled by a gate that reads the scenario (Chang et al., KDD 2023)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.rankers.layers import flat
from reland_jax.rankers.scenarios.rows import Rows


class Gate(nn.Module):
    """``2 sigmoid(W_2 ReLU(W_1 x))``, around 1.

    Attributes:
        hidden: units of the hidden layer.
        width: of the output.
    """

    hidden: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``<float32>[B, m]`` -> ``<float32>[B, width]``."""
        inner = nn.relu(nn.Dense(self.hidden, name="inner")(x))
        return 2 * nn.sigmoid(nn.Dense(self.width, name="outer")(inner))


class EPNet(nn.Module):
    """The gated embeddings. The gate sees the fields, which get no gradient by it.

    Attributes:
        hidden: units of the gate's hidden layer.
    """

    hidden: int

    @nn.compact
    def __call__(self, rows: Rows) -> jax.Array:
        """Rows -> fields ``<float32>[B, f, k]``."""
        embedded = flat(rows.fields)
        read = jnp.concatenate([rows.domain, jax.lax.stop_gradient(embedded)], -1)
        gated = embedded * Gate(self.hidden, embedded.shape[-1], name="gate")(read)
        return gated.reshape(rows.fields.shape)


class Gated(nn.Module):
    """`EPNet`, and a network and an output on what it gives.

    Attributes:
        task: maps fields ``<float32>[B, f, k]`` (and `train`) to ``<float32>[B, 1]``.
        hidden: units of the gate's hidden layer.
    """

    task: nn.Module
    hidden: int

    @nn.compact
    def __call__(self, rows: Rows, train: bool = False) -> jax.Array:
        """Rows -> logits ``<float32>[B]``."""
        return self.task(EPNet(self.hidden, name="epnet")(rows), train)[:, 0]
