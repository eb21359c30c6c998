"""NGCF: neural graph collaborative filtering (Wang et al., SIGIR 2019)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.models.graph import Propagation, propagate
from reland_jax.models.scores import DotProduct

_xavier = nn.initializers.xavier_uniform()


class NGCF(DotProduct):
    """Embedding propagation with feature transformation and neighbour interaction (Eq. 7).

    With the normalised adjacency A, a layer is E' = LeakyReLU((A E + E) W_1 + (A E * E) W_2): the
    neighbours are summed once, and both transformations are taken of that sum. What is scored is the
    concatenation of all layers (Eq. 9), each but the first of length 1 as in the authors' code.

    Attributes:
        config: width, layers, and dropout of the messages.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Final representations.

        Args:
            users: ``<float32>[U, D]``.
            items: ``<float32>[I + 1, D]``.
            propagation: the training graph.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            Users ``<float32>[U, (layers + 1) D]`` and items ``<float32>[I + 1, (layers + 1) D]``.
        """
        nodes = jnp.concatenate([users, items])
        outputs = [nodes]
        for layer in range(self.config.layers):
            around = propagate(propagation, nodes)
            summed = nn.Dense(self.config.dim, kernel_init=_xavier, name=f"sum_{layer}")(around + nodes)
            product = nn.Dense(self.config.dim, kernel_init=_xavier, name=f"product_{layer}")(around * nodes)
            nodes = nn.leaky_relu(summed + product, 0.2)
            nodes = nn.Dropout(self.config.dropout, deterministic=not train)(nodes)
            # The square is bounded and not the root: at 0, where the root has no derivative.
            square = jnp.sum(jnp.square(nodes), axis=-1, keepdims=True)
            outputs.append(nodes * jax.lax.rsqrt(jnp.maximum(square, 1e-12)))
        final = jnp.concatenate(outputs, axis=1)
        return final[: users.shape[0]], final[users.shape[0] :]
