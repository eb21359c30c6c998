"""Vectors of users without training items, computed from those of seed users."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.eval.ranks import Vectors


class ColdUserWeights(NamedTuple):
    """Cold users (without training items) and the weights of the seed users that stand in for them.

    Each of W warm users votes for one seed user. The weight of a vote depends only on the profiles of the
    voter (Q distinct) and of the cold user (P distinct).

    Attributes:
        user: ``<int32>[C]``, distinct cold users.
        profile: ``<int32>[C]``, the profile of each cold user, a row of `weight`.
        weight: ``<float32>[P, Q]``, the weight of one vote. The weights of all W votes sum to 1.
        source: ``<int32>[W]``, the seed user that each warm user votes for.
        warm_profile: ``<int32>[W]``, the profile of each warm user, a column of `weight`.
    """

    user: np.ndarray | jax.Array
    profile: np.ndarray | jax.Array
    weight: np.ndarray | jax.Array
    source: np.ndarray | jax.Array
    warm_profile: np.ndarray | jax.Array


def impute_cold_users(vectors: Vectors, cold: ColdUserWeights) -> Vectors:
    """Replaces the vectors of cold users by weighted means of seed users' vectors.

    It works on final vectors, so it fits any backbone and variant. If scores are dot products, an item's
    score is the weighted mean of its scores for the seed users. The vectors of all other users are
    unchanged, bit by bit.

    Args:
        vectors: of all users and items; those of the cold users are not read.
        cold: see `ColdUserWeights`.
    """
    return vectors._replace(users=_imputed(vectors.users, cold))


@jax.jit
def _imputed(users: jax.Array, cold: ColdUserWeights) -> jax.Array:
    # Summed by the voters' profiles first: weights of all pairs of users would take [C, W].
    kinds = cold.weight.shape[1]
    sums = jax.ops.segment_sum(users[cold.source], cold.warm_profile, kinds)
    means = jnp.dot(cold.weight, sums, precision=jax.lax.Precision.HIGHEST)
    return users.at[cold.user].set(means[cold.profile].astype(users.dtype))
