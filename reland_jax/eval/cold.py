"""Vectors of users without training items, made of those of seed users."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.eval.ranks import Vectors


class Borrowed(NamedTuple):
    """Which users borrow their vector, and from whom.

    Each of W other users votes for one source; a user who borrows is of one of P kinds, a voter of one
    of Q, and the kinds of both say how much the vote counts.

    Attributes:
        user: ``<int32>[C]``, distinct users who borrow.
        kind: ``<int32>[C]``, row of `weight`.
        weight: ``<float32>[P, Q]``, of one vote; over all votes they sum to 1.
        source: ``<int32>[W]``, user with training items for whom each votes.
        voter_kind: ``<int32>[W]``, column of `weight`.
    """

    user: np.ndarray
    kind: np.ndarray
    weight: np.ndarray
    source: np.ndarray
    voter_kind: np.ndarray


def lend(vectors: Vectors, borrowed: Borrowed) -> Vectors:
    """The vectors with those of cold users replaced by weighted means of their sources' vectors.

    It works on final vectors, so it fits any backbone and variant. With a score that is a dot product, an
    item's score is the weighted mean of the scores that the sources give it. The vectors of all other
    users stay what they are, bit by bit.

    Args:
        vectors: of all users and items; those of the cold users are not read.
        borrowed: see `Borrowed`.
    """
    return vectors._replace(users=_lent(vectors.users, borrowed))


@jax.jit
def _lent(users: jax.Array, borrowed: Borrowed) -> jax.Array:
    # Summed by the voters' kinds first: a row for every pair of users would take [C, W].
    kinds = borrowed.weight.shape[1]
    sums = jax.ops.segment_sum(users[borrowed.source], borrowed.voter_kind, kinds)
    means = jnp.dot(borrowed.weight, sums, precision=jax.lax.Precision.HIGHEST)
    return users.at[borrowed.user].set(means[borrowed.kind].astype(users.dtype))
