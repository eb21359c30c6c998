"""What collaborative backbones have in common: arrays of users and items, and a score of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    A backbone that propagates overrides `parts` and `user_layers`, so that users who were not trained are
    propagated too. One with another score overrides the last three methods; see `reland_jax.models.neumf`.
    """

    multiplies = True
    """Whether the score is the dot product."""

    def parts(self, users: jax.Array, items: jax.Array, propagation: Any) -> tuple[jax.Array, jax.Array]:
        """What users are made of: a vector of their own, and what is summed over their items.

        Args:
            users: as in the call.
            items: as in the call.
            propagation: as in the call.

        Returns:
            ``<float32>[U, F]`` and ``<float32>[I + 1, E]``. `user_layers` makes a user of a vector of its own
            and of the sum over its items, each weighed by ``1 / sqrt(n_u n_i)``.
        """
        of_users, of_items = self(users, items, propagation, False)
        return of_users[0], of_items[0]

    def user_layers(self, own: jax.Array, around: jax.Array) -> Layers:
        """The arrays of users by their `parts`, ``<float32>[n, F]`` and ``<float32>[n, E]``.

        Here a user is its own vector alone.
        """
        del around
        return (own,)

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
