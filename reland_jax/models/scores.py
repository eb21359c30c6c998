"""How a pair of user and item representations becomes a score."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class DotProduct(nn.Module):
    """Base of collaborative backbones whose score is the dot product.

    A backbone with another score overrides all three methods; see `reland_jax.models.neumf`.
    """

    def user_side(self, users: jax.Array) -> jax.Array:
        """What a user's score needs that does not depend on the item; ``<float32>[..., E]``."""
        return users

    def item_side(self, items: jax.Array) -> jax.Array:
        """What an item's score needs that does not depend on the user; ``<float32>[..., E]``."""
        return items

    def score(self, users: jax.Array, items: jax.Array, train: bool = False) -> jax.Array:
        """Scores of both sides.

        Args:
            users: ``<float32>[B, E]``.
            items: ``<float32>[n, E]``, the same for all users, or ``[B, n, E]``.
            train: whether dropout is on.

        Returns:
            ``<float32>[B, n]``.
        """
        del train
        return dot_product(users, items)


def dot_product(users: jax.Array, items: jax.Array) -> jax.Array:
    """``<float32>[B, E]`` and ``[n, E]`` or ``[B, n, E]`` -> ``<float32>[B, n]``."""
    return jnp.einsum("be,ne->bn" if items.ndim == 2 else "be,bne->bn", users, items)
