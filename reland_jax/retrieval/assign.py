"""Matching every user to its most similar seed users (paper, Eq. 3)."""

from __future__ import annotations

import numpy as np

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval.index import search
from reland_jax.types import Assignment, RelandError


def assign(behaviour: np.ndarray, seed_users: np.ndarray, config: RetrievalConfig) -> Assignment:
    """The ``config.neighbours`` seed users of largest cosine for every user (paper, Eq. 3).

    A seed user comes first for itself, with cosine 1, also where another seed has the same vector
    or its own is zero. Equal cosines otherwise go to the smaller row of the pool.

    Args:
        behaviour: ``<float32>[U, D]``, behaviour representations M.
        seed_users: ``<int32>[S]``, distinct users; their order is that of the pool's rows.
        config: engine, k and tile.

    Raises:
        RelandError: seed users repeated or out of range, k > S, or vectors that are not finite.
    """
    behaviour, seed_users = np.asarray(behaviour, np.float32), np.asarray(seed_users)
    _check(seed_users, len(behaviour))
    seed, cosine = search(behaviour, behaviour[seed_users], config.neighbours, config)
    seed, cosine = seed.copy(), cosine.copy()
    seed[seed_users], cosine[seed_users] = _self_first(seed[seed_users], cosine[seed_users])
    return Assignment(seed, cosine)


def _self_first(seed: np.ndarray, cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours ``[S, k]`` of the seed users themselves, with row ``s`` starting with ``s``.

    The others keep their order; the last drops out where ``s`` was not among them.
    """
    num_seeds, k = seed.shape
    own = np.arange(num_seeds, dtype=np.int32)[:, None]
    repeated = np.concatenate([np.zeros((num_seeds, 1), bool), seed == own], axis=1)
    order = np.argsort(repeated, axis=1, kind="stable")[:, :k]
    seed = np.concatenate([own, seed], axis=1)
    cosine = np.concatenate([np.ones((num_seeds, 1), np.float32), cosine], axis=1)
    return np.take_along_axis(seed, order, axis=1), np.take_along_axis(cosine, order, axis=1)


def _check(seed_users: np.ndarray, num_users: int) -> None:
    if seed_users.ndim != 1 or not len(seed_users):
        raise RelandError(f"assignment: seed users of shape {seed_users.shape}; expected [S], not empty")
    outside = seed_users[(seed_users < 0) | (seed_users >= num_users)]
    if len(outside):
        raise RelandError(f"assignment: seed user {outside[0]} is not among users 0 .. {num_users - 1}")
    users, count = np.unique(seed_users, return_counts=True)
    if len(users) < len(seed_users):
        raise RelandError(f"assignment: seed user {users[count > 1][0]} is listed more than once")
