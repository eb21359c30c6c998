"""The one mechanism by which every backbone becomes `id`, `f_item` or `reland`."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import FusionConfig


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
    def __call__(self, text: jax.Array | None, train: bool = False) -> jax.Array:
        """Args: text ``<float32>[I + 1, T]``, or None. Returns ``<float32>[I + 1, D]``, row 0 zero."""
        init = nn.initializers.normal(self.init_scale)
        ids = self.param("id_embedding", init, (self.num_items + 1, self.dim))
        if self.with_text:
            import os
            rate=float(os.environ.get("IDDROP","0"))
            if train and rate:
                ids = nn.Dropout(rate, broadcast_dims=(1,), deterministic=False)(ids)
            trate=float(os.environ.get("TDROP","0"))
            if train and trate:
                text = nn.Dropout(trate, deterministic=False)(text)
            # Linear([a ; b]) is Linear(a) + Linear(b): the wide concatenation need not be built.
            ids = nn.Dense(self.dim, name="from_id")(ids)
            ids = ids + nn.Dense(self.dim, use_bias=False, name="from_text")(text)
        return ids.at[0].set(0.0)


class RationaleFusion(nn.Module):
    """Attention between a user's representation and the rationale (paper, Eq. 5)."""

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
        projected = dropout(nn.Dense(user.shape[-1], name="project")(dropout(rationale)))
        attention = self.param("attention", nn.initializers.normal(0.02), (user.shape[-1],))
        weights = jax.nn.softmax(jnp.stack([user @ attention, projected @ attention], -1))
        return weights[..., :1] * user + weights[..., 1:] * projected
