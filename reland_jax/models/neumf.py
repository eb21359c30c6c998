"""NeuMF: neural collaborative filtering (He et al., WWW 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.device import sizes
from reland_jax.models.dropout import Dropout
from reland_jax.models.graph import Propagation
from reland_jax.models.scores import DotProduct, Layers

UNROLLED = 4096
"""Weights after the tower's first layer up to which `Tower.all_pairs` is compiled product by product."""

USERS_AT_A_TIME = 64
"""Of a block of pairs in training."""


class NeuMF(DotProduct):
    """Generalised matrix factorisation in parallel with a multi-layer perceptron (Eq. 12).

    Representations are 2 D wide: the first half is read by GMF, the second by the MLP, which is the
    paper's pair of separate embeddings. GMF's output weights are 1. The embeddings can absorb any other
    value, and learned output weights grew and undid the L2 penalty on the embeddings.

    Attributes:
        config: width, layers of the tower (`tower`), and dropout within it.
    """

    config: ModelConfig
    multiplies = False

    @property
    def scored_width(self) -> int:
        """Columns of what `score` reads, D + H."""
        return self.config.dim + self.config.tower[0]

    def setup(self) -> None:
        """Declares the tower."""
        self.tower = Tower(self.config)

    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation | None, train: bool
    ) -> tuple[Layers, Layers]:
        """The embeddings as they are, ``<float32>[U, 2 D]`` and ``<float32>[I + 1, 2 D]``."""
        return (users,), (items,)

    def user_side(self, users: jax.Array) -> jax.Array:
        """``<float32>[..., 2 D]`` -> ``<float32>[..., D + H]``: GMF's half, and the tower's of the other."""
        gmf, mlp = jnp.split(users, 2, axis=-1)
        return jnp.concatenate([gmf, self.tower.from_user(mlp)], -1)

    def item_side(self, items: jax.Array) -> jax.Array:
        """The same for items."""
        gmf, mlp = jnp.split(items, 2, axis=-1)
        return jnp.concatenate([gmf, self.tower.from_item(mlp)], -1)

    def score(self, users: jax.Array, items: jax.Array, train: bool = False) -> jax.Array:
        """Scores of both sides.

        Args:
            users: ``<float32>[B, D + H]``.
            items: ``<float32>[n, D + H]``, the same for all users, or ``[B, n, D + H]``.
            train: whether there are gradients; and for items of each user, whether dropout is on (needs the
                rng "dropout").

        Returns:
            ``<float32>[B, n]``.
        """
        (user_gmf, user_mlp), (item_gmf, item_mlp) = (
            jnp.split(side, [self.config.dim], axis=-1) for side in (users, items)
        )
        if items.ndim == 3:
            tower = self.tower(user_mlp[:, None] + item_mlp, train)
        else:
            of_all = self.tower.blocks if train else self.tower.all_pairs
            tower = of_all(user_mlp, item_mlp)
        return super().score(user_gmf, item_gmf) + tower


class Tower(nn.Module):
    """The MLP on [user ; item].

    Its first layer is W_u user + W_i item + b: the products are computed once per user and once per item, and
    a pair costs only an addition.

    Attributes:
        config: layers (`tower`) and dropout.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the layers."""
        xavier = nn.initializers.xavier_uniform()
        first, *rest = self.config.tower
        self.from_user = nn.Dense(first, kernel_init=xavier, use_bias=False)
        self.from_item = nn.Dense(first, kernel_init=xavier)
        widths = zip((first, *rest), (*rest, 1), strict=True)
        # The output has no bias: it would be the same for all items.
        self.kernels = [self.param(f"kernel_{i}", xavier, shape) for i, shape in enumerate(widths)]
        self.biases = [self.param(f"bias_{i}", nn.initializers.zeros, (b,)) for i, b in enumerate(rest)]
        self.dropout = Dropout(self.config.dropout)

    def __call__(self, summed: jax.Array, train: bool = False) -> jax.Array:
        """First hidden layer before its ReLU ``<float32>[..., H]`` -> ``<float32>[...]``."""
        dtype = self.config.activations
        hidden = self.dropout(nn.relu(summed.astype(dtype)), not train)
        for kernel, bias in zip(self.kernels, self.biases, strict=False):
            mixed = nn.relu(hidden @ kernel.astype(dtype) + bias.astype(dtype))
            hidden = self.dropout(mixed, not train)
        return jnp.dot(hidden, self.kernels[-1].astype(dtype), preferred_element_type=jnp.float32)[..., 0]

    def blocks(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """`all_pairs` as products of matrices, whose gradients need no unit of any pair to be kept."""
        one = jax.checkpoint(lambda user: self(user + items))
        return jax.lax.map(one, users, batch_size=min(USERS_AT_A_TIME, len(users)))

    def all_pairs(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """The same for all sums of ``<float32>[B, H]`` and ``[n, H]`` -> ``<float32>[B, n]``.

        Small layers are unrolled unit by unit, each an array ``[B, n]``: XLA fuses them into one pass over
        the pairs that keeps every unit in a register and uses all cores. On a CPU that takes 80 microseconds
        per user with 12,101 items; matrix products take 200 to 440. An accelerator is given the same, since
        matrix products would write all units of all pairs to memory. Larger towers are multiplied for as many
        users at a time as the device takes.
        """
        if sum(kernel.size for kernel in self.kernels) > UNROLLED:
            # A number of users that is not known when this is exported is mapped one by one.
            known = isinstance(users.shape[0], int)
            at_a_time = min(sizes().pair_bytes // items.nbytes, len(users)) or None if known else None
            return jax.lax.map(lambda user: self(user + items), users, batch_size=at_a_time)
        columns = jax.lax.optimization_barrier(items.T)  # else it is read with a stride, a fifth slower
        hidden = [nn.relu(user[:, None] + item) for user, item in zip(users.T, columns, strict=True)]
        for kernel, bias in zip(self.kernels, self.biases, strict=False):
            hidden = [nn.relu(unit + b) for unit, b in zip(_combined(hidden, kernel), bias, strict=True)]
        return _combined(hidden, self.kernels[-1])[0]


def _combined(units: Sequence[jax.Array], kernel: jax.Array) -> list[jax.Array]:
    """``units @ kernel``, one product at a time."""
    return [sum(w * unit for w, unit in zip(column, units, strict=True)) for column in kernel.T]
