"""Vectors of users without training items, computed from those of seed users."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.eval.ranks import Vectors


class Borrowed(NamedTuple):
    """Cold users (without training items) and the weights of the seed users that stand in for them.

    Each of W warm users votes for one seed user. The weight of a vote depends only on the profiles of the
    voter (Q distinct) and of the cold user (P distinct).

    Attributes:
        user: ``<int32>[C]``, distinct cold users.
        kind: ``<int32>[C]``, the profile of each cold user, a row of `weight`.
        weight: ``<float32>[P, Q]``, the weight of one vote. The weights of all W votes sum to 1.
        source: ``<int32>[W]``, the seed user that each warm user votes for.
        voter_kind: ``<int32>[W]``, the profile of each warm user, a column of `weight`.
    """

    user: np.ndarray | jax.Array
    kind: np.ndarray | jax.Array
    weight: np.ndarray | jax.Array
    source: np.ndarray | jax.Array
    voter_kind: np.ndarray | jax.Array


def lend(vectors: Vectors, borrowed: Borrowed) -> Vectors:
    """Replaces the vectors of cold users by weighted means of seed users' vectors.

    It works on final vectors, so it fits any backbone and variant. If scores are dot products, an item's
    score is the weighted mean of its scores for the seed users. The vectors of all other users are
    unchanged, bit by bit.

    Args:
        vectors: of all users and items; those of the cold users are not read.
        borrowed: see `Borrowed`.
    """
    return vectors._replace(users=_lent(vectors.users, borrowed))


@jax.jit
def _lent(users: jax.Array, borrowed: Borrowed) -> jax.Array:
    # Summed by the voters' profiles first: weights of all pairs of users would take [C, W].
    kinds = borrowed.weight.shape[1]
    sums = jax.ops.segment_sum(users[borrowed.source], borrowed.voter_kind, kinds)
    means = jnp.dot(borrowed.weight, sums, precision=jax.lax.Precision.HIGHEST)
    return users.at[borrowed.user].set(means[borrowed.kind].astype(users.dtype))
