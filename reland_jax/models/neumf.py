"""NeuMF: neural collaborative filtering (He et al., WWW 2017)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.models.graph import Propagation
from reland_jax.models.scores import DotProduct

_xavier = nn.initializers.xavier_uniform()


class NeuMF(DotProduct):
    """Generalised matrix factorisation beside a multi-layer perceptron (Eq. 12).

    Representations are 2 D wide: the first half is read by GMF, the second by the MLP, which is the
    paper's pair of separate embeddings. GMF's output weights are folded into its item half. The MLP's
    first layer on [user ; item] is W_u user + W_i item + b: each half is multiplied once per user and once
    per item, and a pair costs an addition.

    Attributes:
        config: width, layers of the tower (`tower`), and dropout within it.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the tower."""
        first, *rest = self.config.tower
        self.gmf_weight = self.param("gmf_weight", nn.initializers.ones, (self.config.dim,))
        self.from_user = nn.Dense(first, kernel_init=_xavier, use_bias=False)
        self.from_item = nn.Dense(first, kernel_init=_xavier)
        self.deeper = [nn.Dense(width, kernel_init=_xavier) for width in rest]
        self.output = nn.Dense(1, kernel_init=_xavier, use_bias=False)
        self.dropout = nn.Dropout(self.config.dropout)

    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation | None, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The embeddings as they are, ``<float32>[U, 2 D]`` and ``<float32>[I + 1, 2 D]``."""
        return users, items

    def user_side(self, users: jax.Array) -> jax.Array:
        """``<float32>[..., 2 D]`` -> ``<float32>[..., D + H]``: GMF's half, and W_u of the other."""
        gmf, mlp = jnp.split(users, 2, axis=-1)
        return jnp.concatenate([gmf, self.from_user(mlp)], -1)

    def item_side(self, items: jax.Array) -> jax.Array:
        """``<float32>[..., 2 D]`` -> ``<float32>[..., D + H]``: weighted GMF half, W_i of the other + b."""
        gmf, mlp = jnp.split(items, 2, axis=-1)
        return jnp.concatenate([self.gmf_weight * gmf, self.from_item(mlp)], -1)

    def score(self, users: jax.Array, items: jax.Array, train: bool = False) -> jax.Array:
        """Scores of both sides.

        Args:
            users: ``<float32>[B, D + H]``.
            items: ``<float32>[n, D + H]``, the same for all users, or ``[B, n, D + H]``.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``<float32>[B, n]``.
        """
        (user_gmf, user_mlp), (item_gmf, item_mlp) = (
            jnp.split(side, [self.config.dim], axis=-1) for side in (users, items)
        )
        if items.ndim == 3:
            return super().score(user_gmf, item_gmf) + self._tower(user_mlp[:, None] + item_mlp, train)
        # One user at a time against all items: the tower's activations stay in cache.
        tower = jax.lax.map(lambda user: self._tower(user + item_mlp, train), user_mlp)
        return super().score(user_gmf, item_gmf) + tower

    def _tower(self, summed: jax.Array, train: bool) -> jax.Array:
        hidden = self.dropout(nn.relu(summed), deterministic=not train)
        for layer in self.deeper:
            hidden = self.dropout(nn.relu(layer(hidden)), deterministic=not train)
        return self.output(hidden)[..., 0]
