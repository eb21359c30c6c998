"""What is added to the score of a backbone: a text kernel at full width.

The kernel is to a deep model what ``beta F F'`` is to EASE: the likeness of an item's text and the mean text
of what the user had, in all directions of the texts and not through the few numbers of an embedding. It is a
product of a vector of the user and one of the item, which stand beside those of the backbone.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.models.representation import identity


class TextKernel(nn.Module):
    """A learned metric between the mean text of a user's items and the text of an item.

    Attributes:
        scale: the metric starts as this multiple of the identity.
    """

    scale: float

    @nn.compact
    def __call__(self, mean: jax.Array) -> jax.Array:
        """Mean unit texts of users ``<float32>[B, T]`` -> what multiplies the unit text of an item."""
        metric = self.param("text_metric", identity(self.scale), (mean.shape[-1],) * 2)
        return jnp.matmul(mean, metric, precision=jax.lax.Precision.HIGHEST)


def unit_texts(texts: jax.Array) -> jax.Array:
    """Rows ``<float32>[n, T]`` of length 1; those of zeros stay."""
    return texts / jnp.maximum(jnp.linalg.norm(texts, axis=-1, keepdims=True), 1e-9)


def recent_items(
    items: jax.Array, position: jax.Array, place: jax.Array, half_life: float, count: int
) -> tuple[jax.Array, jax.Array]:
    """The newest items of packed sequences at some of their places, and what they weigh.

    Args:
        items: ``<int32>[R, W]``.
        position: ``<int32>[R, W]``, place of each token within its sequence.
        place: ``<int32>[B]``, tokens (of R * W).
        half_life: number of newer items after which an item weighs half as much.
        count: N, items that are read.

    Returns:
        Items ``<int32>[B, N]``, newest first, 0 where a sequence has no more; and weights
        ``<float32>[B, N]``, of which those in use sum to 1.
    """
    age = jnp.arange(count)
    there = age <= position.reshape(-1)[place][:, None]
    found = jnp.where(there, items.reshape(-1)[jnp.maximum(place[:, None] - age, 0)], 0)
    weight = jnp.where(there, 0.5 ** (age / half_life), 0.0)
    return found, weight / weight.sum(1, keepdims=True)
