"""Matching users without training items to seed users, by profile or else by popularity.

Such a *cold* user has no behaviour: what an encoder has for it was never trained, and its cosine (Eq. 3)
means nothing. What may be known is a profile, such as gender, age and occupation. The paper names these
users among its limits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval.assign import assign
from reland_jax.types import Assignment, RelandError

USERS_PER_VALUE = 5
"""A field that has fewer users per distinct value on average (a name, a zip code) is no part of a profile."""

MISSING = -1


def assign_with_cold(
    behaviour: np.ndarray,
    seed_users: np.ndarray,
    activity: np.ndarray,
    user_features: Mapping[str, np.ndarray],
    config: RetrievalConfig,
) -> Assignment:
    """`assign` for users with training items, and `match_profiles` for those without any.

    Where no user is cold this is `assign`, and nothing else is done.

    Args:
        behaviour: ``<float32>[U, D]``; the rows of cold users are not used.
        seed_users: ``<int32>[S]``, each with training items.
        activity: ``<int64>[U]``, training items of every user; who has 0 is cold.
        user_features: field name -> ``<str>[U]``, "" where a value is missing.
        config: engine, tile, `neighbours`, and `cold_neighbours` (all seed users where they are fewer).

    Returns:
        The larger of both numbers of neighbours for every user if any is cold, else ``config.neighbours``.

    Raises:
        RelandError: a seed user is cold, or see `assign`.
    """
    cold = np.flatnonzero(activity == 0)
    if not len(cold):
        return assign(behaviour, seed_users, config)
    if not activity[seed_users].all():
        first = seed_users[activity[seed_users] == 0][0]
        raise RelandError(f"assignment: seed user {first} has no training items, so none can be like it")
    k = max(config.neighbours, min(config.cold_neighbours, len(seed_users)))
    known = np.where((activity > 0)[:, None], behaviour, np.zeros((), np.float32))
    seed, cosine = assign(known, seed_users, dataclasses.replace(config, neighbours=k))
    represented = represented_users(seed, activity, len(seed_users))
    profile = profiles(user_features, len(activity))
    matched = match_profiles(profile[cold], profile[seed_users], represented, k, config.tile)
    seed[cold], cosine[cold] = matched
    return Assignment(seed, cosine)


def represented_users(seed: np.ndarray, activity: np.ndarray, num_seeds: int) -> np.ndarray:
    """How many users with training items have each seed user as their nearest, ``<int64>[S]``.

    Args:
        seed: ``<int32>[U, k]``, see `Assignment`.
        activity: ``<int64>[U]``, training items of every user.
        num_seeds: S.
    """
    return np.bincount(seed[activity > 0, 0], minlength=num_seeds)


def profiles(user_features: Mapping[str, np.ndarray], num_users: int) -> np.ndarray:
    """Profiles as value numbers, ``<int32>[U, F]``, `MISSING` where a value is missing.

    Values are compared as text and are equal or not; none lies nearer to one than to another. A field is
    used if on average at least `USERS_PER_VALUE` users share a value of it. Where no field is, there is
    one of missing values.

    Args:
        user_features: field name -> ``<str>[U]``, "" where a value is missing.
        num_users: U.
    """
    columns = []
    for name in sorted(user_features):
        values = np.asarray(user_features[name]).astype(str)
        distinct, code = np.unique(values, return_inverse=True)
        described = np.count_nonzero(values != "")
        if described and described >= USERS_PER_VALUE * np.count_nonzero(distinct != ""):
            columns.append(np.where(values == "", MISSING, code))
    columns = columns or [np.full(num_users, MISSING)]
    return np.stack(columns, axis=1).astype(np.int32)


def match_profiles(
    queries: np.ndarray, seeds: np.ndarray, represented: np.ndarray, k: int, tile: int = 4096
) -> Assignment:
    """The k seed users with the most similar profile for every query.

    The cosine is that of profiles written one-hot, every field with the same weight and a missing value
    as zeros. There are few distinct profiles and so many ties; they go to the seed users who represent
    the most users, then to the smaller row of the pool. A query without a profile has cosine 0 with
    all, and so is given the seed users who represent the most users.

    Args:
        queries: ``<int32>[C, F]``, see `profiles`.
        seeds: ``<int32>[S, F]``.
        represented: ``<int64>[S]``, users whose nearest seed user (Eq. 3) each is.
        k: seed users per query, in 1 .. S.
        tile: distinct profiles compared with all seed users at a time.

    Returns:
        Rows ``[C, k]`` as `Assignment` has them for users.
    """
    order = np.argsort(-represented, kind="stable")
    distinct, which = np.unique(queries, axis=0, return_inverse=True)
    which = which.reshape(-1)
    index, cosine = _nearest(distinct, seeds[order], k=k, tile=max(1, min(tile, len(distinct))))
    return Assignment(order[np.asarray(index)[which]].astype(np.int32), np.asarray(cosine)[which])


@functools.partial(jax.jit, static_argnames=("k", "tile"))
def _nearest(queries: jax.Array, seeds: jax.Array, *, k: int, tile: int) -> tuple[jax.Array, jax.Array]:
    def known(rows: jax.Array) -> jax.Array:
        return (rows != MISSING).sum(1)

    def one_tile(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Counting equal values, and not a product of unit vectors, so that ties are exact.
        shared = ((rows[:, None] == seeds) & (seeds != MISSING)).sum(2)
        cosine = shared / jnp.sqrt(jnp.maximum(known(rows)[:, None] * known(seeds), 1))
        # `top_k` puts the smaller column first where values are equal.
        best, index = lax.top_k(cosine.astype(jnp.float32), k)
        return index, best

    fields, count = queries.shape[1], len(queries)
    padded = jnp.pad(queries, ((0, -count % tile), (0, 0)))
    index, cosine = lax.map(one_tile, padded.reshape(-1, tile, fields))
    return index.reshape(-1, k)[:count], cosine.reshape(-1, k)[:count]
