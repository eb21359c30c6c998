"""DIN: the history of a user as the candidate sees it (Zhou et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class CandidateAttention(nn.Module):
    """A weighted sum of the history, each weight from a small network on the item and the candidate.

    As in the paper, the weights do not sum to one, so that their sum says how much of the history concerns
    the candidate. The hidden layers have sigmoids, as in the authors' code; the paper's Dice depends on the
    other rows of the batch.

    The network `din` is this with a DNN on all fields; any other network may read the same field.

    Attributes:
        widths: units of the hidden layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, history: jax.Array, there: jax.Array, candidate: jax.Array) -> jax.Array:
        """The history as one field.

        Args:
            history: ``<float32>[B, L, k]``.
            there: ``<bool>[B, L]``, which of them are items.
            candidate: ``<float32>[B, k]``.

        Returns:
            ``<float32>[B, k]``, zero for an empty history.
        """
        candidates = jnp.broadcast_to(candidate[:, None], history.shape)
        pairs = [history, candidates, history - candidates, history * candidates]
        hidden = jnp.concatenate(pairs, -1)
        for number, width in enumerate(self.widths):
            hidden = nn.sigmoid(nn.Dense(width, name=f"layer_{number}")(hidden))
        weight = nn.Dense(1, name="weight")(hidden)[..., 0]
        return jnp.einsum("bl,blk->bk", jnp.where(there, weight, 0.0), history)
