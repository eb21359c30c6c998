"""Hidden layers that the networks and the tasks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from reland_jax.models.dropout import Dropout

EPSILON = 1e-5
"""Added to variances that are divided by."""


class MLP(nn.Module):
    """Hidden layers with ReLU and dropout.

    Attributes:
        widths: units of every layer; none at all leaves the input as it is.
        dropout: share of units dropped in training.
    """

    widths: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[..., H]`` -> ``<float32>[..., H']``; `train` needs the rng "dropout"."""
        for number, width in enumerate(self.widths):
            x = nn.relu(nn.Dense(width, name=f"layer_{number}")(x))
            x = Dropout(self.dropout)(x, not train)
        return x


class Logit(nn.Module):
    """A linear output of one number."""

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """``<float32>[B, H]`` -> ``<float32>[B]``."""
        return nn.Dense(1, name="output")(hidden)[..., 0]


class TowerLogit(nn.Module):
    """A label's own hidden layers and output, on what labels share.

    Attributes:
        widths: units of the hidden layers.
        dropout: share of units dropped in training.
    """

    widths: Sequence[int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, hidden: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, H]`` -> ``<float32>[B]``."""
        return Logit(name="logit")(MLP(self.widths, self.dropout, name="layers")(hidden, train))


NetworkFactory = Callable[[str], nn.Module]
"""The module of a name that maps embedded fields ``<float32>[B, f, k]`` (and `train`) to ``[B, H]``.

Tasks make one or several of them: one for all labels, one for each, or one for each expert.
"""


def flat(fields: jax.Array) -> jax.Array:
    """The fields one after the other: ``<float32>[B, f, k]`` -> ``<float32>[B, f k]``."""
    return fields.reshape(len(fields), -1)
