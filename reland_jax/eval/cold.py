"""Vectors of users without training items, made of those of the seed users they were matched to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.eval.ranks import Vectors


class Borrowed(NamedTuple):
    """Which users borrow their vector, and from whom.

    Attributes:
        user: ``<int32>[C]``, distinct cold users.
        source: ``<int32>[C, k]``, users with training items.
        weight: ``<float32>[C, k]`` in [0, 1], of sum 1 in every row.
    """

    user: np.ndarray
    source: np.ndarray
    weight: np.ndarray


def borrow(
    user: np.ndarray, source: np.ndarray, cosine: np.ndarray, represented: np.ndarray
) -> Borrowed:
    """Weights in proportion to the cosine times the users whom a source represents.

    So the mean is near that of all users who are like the cold one, and not of the seed users alone,
    among whom some kinds of users are more frequent than among all. Where no cosine is above 0, all
    count as equal.

    Args:
        user: ``<int32>[C]``.
        source: ``<int32>[C, k]``.
        cosine: ``<float32>[C, k]`` in [-1, 1]; a negative one counts as 0.
        represented: ``<int64>[C, k]``, at least 1.
    """
    likeness = np.maximum(cosine, 0.0)
    weight = represented * np.where(likeness.any(axis=1, keepdims=True), likeness, 1.0)
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return Borrowed(user.astype(np.int32), source.astype(np.int32), weight)


def lend(vectors: Vectors, borrowed: Borrowed) -> Vectors:
    """The vectors with those of cold users replaced by the weighted means of their sources' vectors.

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
    def add(sums: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        source, weight = column
        return sums + weight[:, None] * users[source], None

    # Neighbour by neighbour: all of them at once would take [C, k, E].
    zeros = jnp.zeros((len(borrowed.user), users.shape[1]), users.dtype)
    means, _ = jax.lax.scan(add, zeros, (borrowed.source.T, borrowed.weight.T))
    return users.at[borrowed.user].set(means)
