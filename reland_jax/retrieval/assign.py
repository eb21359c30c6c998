"""Matching every user to its most similar seed users (paper, Eq. 3)."""

from __future__ import annotations

import numpy as np

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval.index import search
from reland_jax.types import Assignment, RelandError


def assign(behaviour: np.ndarray, seed_users: np.ndarray, config: RetrievalConfig) -> Assignment:
    """The ``config.neighbours`` seed users of largest cosine for every user, or all of them (paper, Eq. 3).

    A seed user is its own nearest, with cosine 1, even if another seed user has the same vector or its own is
    zero. Equal cosines otherwise go to the smaller row of the pool.

    Args:
        behaviour: ``<float32>[U, D]``, behaviour representations M.
        seed_users: ``<int32>[S]``, distinct users; their order is that of the pool's rows.
        config: engine, k and tile.

    Returns:
        Rows of k seed users, or of S where there are fewer.

    Raises:
        RelandError: seed users repeated or out of range, or vectors that are not finite.
    """
    behaviour, seed_users = np.asarray(behaviour, np.float32), np.asarray(seed_users)
    _check(seed_users, len(behaviour))
    count = min(config.neighbours, len(seed_users))
    seed, cosine = search(behaviour, behaviour[seed_users], count, config)
    seed, cosine = seed.copy(), cosine.copy()
    own = np.full(len(behaviour), -1, np.int32)
    own[seed_users] = np.arange(len(seed_users))
    own_first(seed, cosine, own)
    return Assignment(seed, cosine)


def own_first(seed: np.ndarray, cosine: np.ndarray, own: np.ndarray) -> None:
    """Makes every seed user its own nearest, with cosine 1, in place; the others keep their order, and the
    last is dropped if the user itself was not among them.

    Args:
        seed: ``<int32>[U, k]``, neighbours.
        cosine: ``<float32>[U, k]``, theirs.
        own: ``<int32>[U]``, the row of the user among the seed users, -1 for all others.
    """
    users = np.flatnonzero(own >= 0)
    mine, k = own[users][:, None], seed.shape[1]
    repeated = np.concatenate([np.zeros_like(mine, bool), seed[users] == mine], axis=1)
    order = np.argsort(repeated, axis=1, kind="stable")[:, :k]
    ones = np.ones(mine.shape, np.float32)
    for values, first in ((seed, mine), (cosine, ones)):
        joined = np.concatenate([first, values[users]], axis=1)
        values[users] = np.take_along_axis(joined, order, axis=1)


def _check(seed_users: np.ndarray, num_users: int) -> None:
    if seed_users.ndim != 1 or not len(seed_users):
        raise RelandError(f"assignment: seed users of shape {seed_users.shape}; expected [S], not empty")
    outside = seed_users[(seed_users < 0) | (seed_users >= num_users)]
    if len(outside):
        raise RelandError(f"assignment: seed user {outside[0]} is not among users 0 .. {num_users - 1}")
    users, count = np.unique(seed_users, return_counts=True)
    if len(users) < len(seed_users):
        raise RelandError(f"assignment: seed user {users[count > 1][0]} is listed more than once")
