"""One label alone."""

from __future__ import annotations

import flax.linen as nn
import jax

from reland_jax.rankers.layers import Logit, NetworkFactory


class Single(nn.Module):
    """A network and an output.

    Attributes:
        network: makes the network.
        is_logit: whether the network's output is the logit already.
    """

    network: NetworkFactory
    is_logit: bool = False

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, 1]``, the logit."""
        hidden = self.network("network")(fields, train)
        return hidden if self.is_logit else Logit(name="logit")(hidden)[:, None]
