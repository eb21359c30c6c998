"""DuoRec: contrastive learning for sequential recommendation (Qiu et al., WSDM 2022).

The encoder is SASRec's. What DuoRec adds is a loss: two views of a sequence are pulled together, and views of
different sequences are pushed apart. The *unsupervised* view is the same sequence under other dropout masks,
the *supervised* one another sequence with the same next item.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from reland_jax.models.sasrec import SASRec


class DuoRec(SASRec):
    """SASRec's encoder with the two contrasts."""

    def contrast(
        self, hidden: jax.Array, again: jax.Array, other: jax.Array, target: jax.Array, weight: jax.Array
    ) -> jax.Array:
        """The weighted sum of both contrastive losses, a float32 scalar.

        Args:
            hidden: ``<float32>[N, D]``, encoded sequences.
            again: ``<float32>[N, D]``, the same under other dropout masks.
            other: ``<float32>[N, D]``, other sequences with the same next item.
            target: ``<int32>[N]``, the next item.
            weight: ``<float32>[N]``, 1, or 0 for an unused entry.
        """
        dropped, supervised = (
            info_nce(hidden, view, target, weight, self.config.temperature) for view in (again, other)
        )
        return self.config.contrast * (dropped + supervised)


def info_nce(
    first: jax.Array, second: jax.Array, target: jax.Array, weight: jax.Array, temperature: float
) -> jax.Array:
    """The contrastive loss over all 2 N views (Eqs. 9 and 11), with dot products as in the authors' code.

    For each view, -log of exp(s with its other half) over that plus the sum of exp(s) over the views of
    other sequences; s is the dot product over `temperature`. Sequences that have the same next item are not
    negatives of each other: for the supervised view they are positives.

    Args:
        first: ``<float32>[N, D]``, one view of every sequence.
        second: ``<float32>[N, D]``, the other view.
        target: ``<int32>[N]``, next item of every sequence.
        weight: ``<float32>[N]``, 1, or 0 for an unused entry, which is no negative either.
        temperature: above 0.

    Returns:
        The mean over the views in use, a float32 scalar.
    """
    views = jnp.concatenate([first, second])
    twice_target, twice_weight = jnp.tile(target, 2), jnp.tile(weight, 2)
    similarity = views @ views.T / temperature
    negative = (twice_target[:, None] != twice_target[None]) & (twice_weight[None] > 0)
    positive = jnp.tile(jnp.sum(first * second, -1) / temperature, 2)
    others = jnp.where(negative, similarity, -jnp.inf)
    losses = jnp.logaddexp(positive, jax.nn.logsumexp(others, axis=1)) - positive
    return jnp.sum(twice_weight * losses) / jnp.maximum(jnp.sum(twice_weight), 1.0)
