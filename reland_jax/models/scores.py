"""What collaborative backbones have in common: arrays of users and items, and a score of their rows."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Layers = tuple[jax.Array, ...]
"""Arrays over all users, or over all items."""


class DotProduct(nn.Module):
    """Base of collaborative backbones whose score is the dot product.

    Called with ``(users, items, propagation, train)`` a backbone turns the embeddings
    ``<float32>[U, D]`` and ``<float32>[I + 1, D]`` into a tuple of arrays for users and one for items. A
    batch reads rows of these and asks `readout` to make one representation of them, so that nothing
    wide is built for all users and items.

    A backbone with another score overrides the last three methods; see `reland_jax.models.neumf`.
    """

    multiplies = True
    """Whether the score is the dot product."""

    def readout(self, rows: Sequence[jax.Array], train: bool = False) -> jax.Array:
        """The representations ``<float32>[..., E]`` of users or items, from rows of all their arrays."""
        del train
        return rows[0]

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
    """``<float32>[B, E]`` and ``[n, E]`` or ``[B, n, E]`` -> ``<float32>[B, n]``.

    In full float32 on every device: an accelerator's default multiplies fewer bits, and items change places.
    """
    spec = "be,ne->bn" if items.ndim == 2 else "be,bne->bn"
    return jnp.einsum(spec, users, items, precision=jax.lax.Precision.HIGHEST)
