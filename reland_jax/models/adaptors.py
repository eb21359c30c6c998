"""Other ways than Eq. 5 by which texts enter a backbone: KAR's hybrid experts, and SLIM's linear fusion.

An *adaptor* makes vectors of the texts of users and of items. Both sides are then joined as a linear layer
of the concatenation, Linear([embedding ; vector]), whose part of the embedding starts as the identity and
whose part of the text starts at zero, so that training starts at the plain backbone.

KAR (arXiv 2306.10933): x is read by shared experts, which read users and items alike, and by experts of its
own side, each Linear, ReLU, Linear, ReLU, and their outputs are mixed by a gate, y = sum_j softmax(G x + c)_j
E_j(x). SLIM (arXiv 2403.04260): y = W x, with a matrix of its own for users and for items. ReLand does not
say how it joined KAR with SASRec; here users join after the backbone, and items before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import FusionConfig
from reland_jax.models.dropout import Dropout
from reland_jax.models.representation import LEAST_COSINE, given_or_learned, identity, once_for_all

HIDDEN, WIDTH = 128, 32
"""Of an expert, as in KAR."""


class Adaptor(Protocol):
    """What makes vectors of texts, ``[..., T] -> [..., A]``."""

    def users(self, text: jax.Array) -> jax.Array:
        """Of texts of users, y_1."""

    def items(self, text: jax.Array) -> jax.Array:
        """Of texts of items, y_2."""


class Experts(nn.Module):
    """Several experts side by side.

    Attributes:
        count: n.
        dropout: after each ReLU.
    """

    count: int
    dropout: float

    @nn.compact
    def __call__(self, text: jax.Array) -> jax.Array:
        """What each makes of texts, ``<float32>[..., T] -> <float32>[..., n, WIDTH]``, never below 0."""
        init, drop = nn.initializers.xavier_normal(batch_axis=0), Dropout(self.dropout)
        still = not self.has_rng("dropout")
        first = self.param("first", init, (self.count, text.shape[-1], HIDDEN))
        second = self.param("second", init, (self.count, HIDDEN, WIDTH))
        biases = [
            self.param(name, nn.initializers.zeros, (self.count, size))
            for name, size in (("first_bias", HIDDEN), ("second_bias", WIDTH))
        ]
        hidden = drop(nn.relu(jnp.einsum("...t,nth->...nh", text, first) + biases[0]), still)
        return drop(nn.relu(jnp.einsum("...nh,nhw->...nw", hidden, second) + biases[1]), still)


class HybridExperts(nn.Module):
    """KAR's adaptor.

    Attributes:
        shared: number of experts that read both sides.
        own: number of experts of each side.
        dropout: of the experts.
    """

    shared: int
    own: int
    dropout: float

    def setup(self) -> None:
        """Declares the experts and the gates."""
        gates = self.shared + self.own
        init = nn.initializers.xavier_normal()
        if self.shared:
            self.shared_experts = Experts(self.shared, self.dropout)
        self.user_experts, self.item_experts = (Experts(self.own, self.dropout) for _ in range(2))
        self.user_gate, self.item_gate = (nn.Dense(gates, kernel_init=init) for _ in range(2))

    def users(self, text: jax.Array) -> jax.Array:
        """Of texts of users: ``<float32>[..., T] -> <float32>[..., WIDTH]``."""
        return self._mixed(text, self.user_experts, self.user_gate)

    def items(self, text: jax.Array) -> jax.Array:
        """Of texts of items: ``<float32>[..., T] -> <float32>[..., WIDTH]``."""
        return self._mixed(text, self.item_experts, self.item_gate)

    def _mixed(self, text: jax.Array, own: Experts, gate: nn.Dense) -> jax.Array:
        found = own(text)
        if self.shared:
            found = jnp.concatenate([self.shared_experts(text), found], -2)
        return jnp.einsum("...n,...nw->...w", jax.nn.softmax(gate(text)), found)


class LinearTexts(nn.Module):
    """SLIM's g_l, one for users and one for items.

    Attributes:
        dim: D.
    """

    dim: int

    def setup(self) -> None:
        """Declares the matrices."""
        self.of_users, self.of_items = (nn.Dense(self.dim, use_bias=False) for _ in range(2))

    def users(self, text: jax.Array) -> jax.Array:
        """Of texts of users: ``<float32>[..., T] -> <float32>[..., D]``."""
        return self.of_users(text)

    def items(self, text: jax.Array) -> jax.Array:
        """Of texts of items: ``<float32>[..., T] -> <float32>[..., D]``."""
        return self.of_items(text)


def create_adaptor(config: FusionConfig, dim: int) -> HybridExperts | LinearTexts | None:
    """The adaptor of the settings; None for Eq. 5, which has none."""
    if config.adaptor == "hea":
        return HybridExperts(config.shared_experts, config.own_experts, config.expert_dropout)
    return LinearTexts(dim) if config.adaptor == "linear" else None


class JoinedFusion(nn.Module):
    """Users joined with what an adaptor makes of their rationales; in the place of `RationaleFusion`.

    Several rationales of a user are a mean, each weighted by its cosine.

    Attributes:
        adaptor: of the texts.
        learned: whether the vectors in the place of rationales are parameters, which start as those given.
    """

    adaptor: Adaptor
    learned: bool = False

    @nn.compact
    def __call__(
        self,
        user: jax.Array,
        rationales: jax.Array,
        seed: jax.Array,
        cosine: jax.Array,
        train: bool,
        project_text: Callable[[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Joined representations; arguments as of `RationaleFusion`."""
        del project_text
        dim = user.shape[-1]
        rationales = given_or_learned(self, rationales, self.learned)
        users, adapt_first = self.adaptor.users, once_for_all(rationales, seed, train)
        adapted = users(rationales)[seed] if adapt_first else users(rationales[seed])
        shares = jnp.maximum(cosine, LEAST_COSINE)
        shares /= shares.sum(-1, keepdims=True)
        joined = nn.Dense(dim, kernel_init=identity(), name="from_user")(user)
        text = jnp.einsum("bk,bkd->bd", shares, adapted)
        return joined + nn.Dense(dim, use_bias=False, kernel_init=nn.initializers.zeros, name="from_text")(
            text
        )
