"""LightGCN: simplified graph convolution for recommendation (He et al., SIGIR 2020)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.models.graph import Propagation, propagate
from reland_jax.models.scores import DotProduct, Layers


class LightGCN(DotProduct):
    """Averages the embeddings of 0 to `config.layers` hops (Eq. 4), without weights in between."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation, train: bool
    ) -> tuple[Layers, Layers]:
        """Final representations.

        Args:
            users: ``<float32>[U, D]``.
            items: ``<float32>[I + 1, D]``.
            propagation: the training graph.
            train: unused; LightGCN has no dropout.

        Returns:
            The mean over the hops, of users ``<float32>[U, D]`` and of items ``<float32>[I + 1, D]``.
        """
        hop = total = (users, items)
        for _ in range(self.config.layers):
            hop = propagate(propagation, *hop)
            total = tuple(map(jnp.add, total, hop))
        users, items = (side / (self.config.layers + 1) for side in total)
        return (users,), (items,)
