"""NGCF: neural graph collaborative filtering (Wang et al., SIGIR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.models.dropout import Dropout
from reland_jax.models.graph import Propagation, propagate
from reland_jax.models.scores import DotProduct, Layers


class NGCF(DotProduct):
    """Embedding propagation with feature transformation and neighbour interaction (Eq. 7).

    With the normalised adjacency A, a layer is E' = LeakyReLU((A E + E) W_1 + (A E * E) W_2): the
    neighbours are summed once, and both transformations are one product of both inputs side by side.
    What is scored is the concatenation of all layers (Eq. 9), each but the first of length 1 as in the
    authors' code.

    Only the rows of a batch read the last layer, so it is transformed there, in `readout`; a row that is in a
    batch twice gets two dropout masks.

    Attributes:
        config: width, layers, and dropout of the messages.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the transformations."""
        dense = partial(nn.Dense, self.config.dim, dtype=self.config.activations, kernel_init=_init)
        self.layer = [dense() for _ in range(self.config.layers)]
        self.dropout = Dropout(self.config.dropout)

    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation, train: bool
    ) -> tuple[Layers, Layers]:
        """The embeddings, the output of every layer but the last, and that one's neighbour sums.

        Args:
            users: ``<float32>[U, D]``.
            items: ``<float32>[I + 1, D]``.
            propagation: the training graph.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``layers + 1`` arrays of users ``<float32>[U, D]`` and of items ``<float32>[I + 1, D]``.
        """
        sides = of_users, of_items = [users], [items]
        for depth in range(self.config.layers):
            last = depth == self.config.layers - 1
            around = propagate(propagation, *(layers[-1] for layers in sides))
            for layers, sums in zip(sides, around, strict=True):
                layers.append(sums if last else self._transform(depth, sums, layers[-1], train))
        return tuple(of_users), tuple(of_items)

    def parts(
        self, users: jax.Array, items: jax.Array, propagation: Propagation
    ) -> tuple[jax.Array, jax.Array]:
        """The embeddings of users, and all layers of items but the last side by side."""
        (own, *_), of_items = self(users, items, propagation, False)
        return own, jnp.concatenate(of_items[:-1] or of_items, axis=-1)

    def user_layers(self, own: jax.Array, around: jax.Array) -> Layers:
        """As the call has them, of ``<float32>[n, D]`` and neighbour sums ``<float32>[n, layers * D]``."""
        if not self.config.layers:
            return (own,)
        *sums, last = jnp.split(around, self.config.layers, axis=-1)
        layers = [own]
        for depth, each in enumerate(sums):
            layers.append(self._transform(depth, each, layers[-1], train=False))
        return (*layers, last)

    def readout(self, rows: Sequence[jax.Array], train: bool = False) -> jax.Array:
        """The concatenation of all layers, ``<float32>[..., (layers + 1) D]``."""
        first, *others = rows
        if others:
            others[-1] = self._transform(self.config.layers - 1, others[-1], rows[-2], train)
        return jnp.concatenate([first, *map(_unit, others)], axis=-1)

    def _transform(self, depth: int, around: jax.Array, nodes: jax.Array, train: bool) -> jax.Array:
        both = jnp.concatenate([around + nodes, around * nodes], axis=-1)
        mixed = nn.leaky_relu(self.layer[depth](both), 0.2)
        return self.dropout(mixed, not train).astype(jnp.float32)


def _init(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """W_1 above W_2, each as Xavier has it for its own D inputs."""
    halves = (shape[0] // 2, shape[1])
    xavier = nn.initializers.xavier_uniform()
    return jnp.concatenate([xavier(half, halves, dtype) for half in jax.random.split(key)])


def _unit(rows: jax.Array) -> jax.Array:
    # The square is bounded and not the root: at 0, where the root has no derivative.
    square = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
