"""The one mechanism by which every backbone becomes `id`, `f_item` or `reland`."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import FusionConfig


def _identity(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


class ItemRepresentation(nn.Module):
    """Items as the backbone sees them: the id embedding, or Linear([id embedding ; text]) (+f_item).

    Attributes:
        num_items: I.
        dim: D.
        with_text: whether the frozen text embedding takes part.
        init_scale: standard deviation of the id embeddings at the start.
    """

    num_items: int
    dim: int
    with_text: bool
    init_scale: float

    @nn.compact
    def __call__(self, text: jax.Array | None) -> jax.Array:
        """Args: text ``<float32>[I + 1, T]``, or None. Returns ``<float32>[I + 1, D]``, row 0 zero."""
        init = nn.initializers.normal(self.init_scale)
        ids = self.param("id_embedding", init, (self.num_items + 1, self.dim))
        if self.with_text:
            # Linear([a ; b]) is Linear(a) + Linear(b): the wide concatenation need not be built. The
            # id embedding starts as it is in the plain backbone.
            ids = nn.Dense(self.dim, kernel_init=_identity, name="from_id")(ids)
            ids = ids + nn.Dense(self.dim, use_bias=False, name="from_text")(text)
        return ids.at[0].set(0.0)


class RationaleFusion(nn.Module):
    """Attention between a user's representation and the rationale (paper, Eq. 5).

    Two choices make it start as the plain backbone and learn what the rationale adds: the projection
    starts at zero, and the result is scaled by two, the number of its parts, so that equal attention
    leaves the user's representation as it was. A common scale does not change any ranking.
    """

    config: FusionConfig

    @nn.compact
    def __call__(self, user: jax.Array, rationale: jax.Array, train: bool) -> jax.Array:
        """Fused representations e'_u.

        Args:
            user: ``<float32>[B, D]``, e_u.
            rationale: ``<float32>[B, T]``, the encoded rationale of each user's seed user.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``<float32>[B, D]``.
        """
        dropout = nn.Dropout(self.config.dropout, deterministic=not train)
        project = nn.Dense(user.shape[-1], kernel_init=nn.initializers.zeros, name="project")
        projected = dropout(project(dropout(rationale)))
        attention = self.param("attention", nn.initializers.normal(0.02), (user.shape[-1],))
        weights = jax.nn.softmax(jnp.stack([user @ attention, projected @ attention], -1))
        return 2.0 * (weights[..., :1] * user + weights[..., 1:] * projected)
