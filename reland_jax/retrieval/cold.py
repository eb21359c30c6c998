"""Users without training items: seed users that stand in for them, by profile.

Such a *cold* user has no behaviour: its vector was never trained, and its cosine (Eq. 3) means nothing. A
profile may be known, such as gender, age and occupation. The paper names these users among its limits.

Every user with training items votes for its own seed user, with a weight that falls with each field of the
profile in which it differs from the cold user. So the weight of a seed user is about its share among the
users with a similar profile, and does not depend on the profiles of two single users.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reland_jax.config import RetrievalConfig
from reland_jax.plain import plain_column
from reland_jax.retrieval.assign import assign
from reland_jax.strings import distinct
from reland_jax.types import Assignment, RelandError

USERS_PER_VALUE = 5
"""A field with fewer users per distinct value on average (a name, a zip code) is left out of a profile."""

MOST_PROFILES = 10_000
"""More distinct profiles than these are too many to weigh each against each."""

MISSING = -1


class ProfileWeights(NamedTuple):
    """The weight of every warm user (with training items) for every cold user, by the profiles of both.

    Users of one profile have the same weight, so weights are stored by pairs of profiles.

    Attributes:
        cold: ``<int32>[C]``, the cold users.
        cold_profile: ``<int32>[C]``, row of `weight`.
        weight: ``<float32>[P, Q]``, of one user; over all users with training items they sum to 1.
        warm: ``<int32>[W]``, the users with training items.
        warm_profile: ``<int32>[W]``, column of `weight`.
    """

    cold: np.ndarray
    cold_profile: np.ndarray
    weight: np.ndarray
    warm: np.ndarray
    warm_profile: np.ndarray


def assign_with_cold(
    behaviour: np.ndarray,
    seed_users: np.ndarray,
    activity: np.ndarray,
    profile: np.ndarray,
    config: RetrievalConfig,
) -> Assignment:
    """`assign` for users with training items, and `most_voted` for those without any.

    If no user is cold, this is `assign`.

    Args:
        behaviour: ``<float32>[U, D]``; the rows of cold users are not used.
        seed_users: ``<int32>[S]``, each with training items.
        activity: ``<int64>[U]``, training items of every user; who has 0 is cold.
        profile: ``<int32>[U, F]``, see `profiles`.
        config: engine, tile, `neighbours`, and `cold_mismatch`.

    Returns:
        The result of `assign`; a cold user has shares of the votes in place of cosines.

    Raises:
        RelandError: a seed user is cold, or see `assign`.
    """
    if activity.all():
        return assign(behaviour, seed_users, config)
    if not activity[seed_users].all():
        first = seed_users[activity[seed_users] == 0][0]
        raise RelandError(f"assignment: seed user {first} has no training items, so none can be like it")
    known = np.where((activity > 0)[:, None], behaviour, np.zeros((), np.float32))
    seed, cosine = assign(known, seed_users, config)
    weights = profile_weights(profile, activity, config.cold_mismatch)
    voted = most_voted(weights, seed[weights.warm, 0], len(seed_users), seed.shape[1])
    seed[weights.cold], cosine[weights.cold] = voted
    return Assignment(seed, cosine)


def profiles(user_features: Mapping[str, np.ndarray], num_users: int) -> np.ndarray:
    """Profiles as value numbers, ``<int32>[U, F]``, `MISSING` where a value is missing.

    Values are compared as text and are either equal or not. A field is used if on average at least
    `USERS_PER_VALUE` users share a value of it; fields of many values are left out, one after the other,
    until there are at most `MOST_PROFILES` distinct profiles. If no field is used, there is one field of
    missing values.

    Args:
        user_features: field name -> ``<str>[U]``, "" where a value is missing.
        num_users: U.
    """
    columns = []
    for name in sorted(user_features):
        values = plain_column(user_features[name]).texts
        known, code = distinct(values)
        described = np.count_nonzero(values != "")
        if described and described >= USERS_PER_VALUE * np.count_nonzero(known != ""):
            columns.append(np.where(values == "", MISSING, code))
    columns.sort(key=np.max)
    while len(columns) > 1 and len(np.unique(np.stack(columns), axis=1).T) > MOST_PROFILES:
        columns.pop()
    columns = columns or [np.full(num_users, MISSING)]
    return np.stack(columns, axis=1).astype(np.int32)


def profile_weights(profile: np.ndarray, activity: np.ndarray, mismatch: float) -> ProfileWeights:
    """The weights of users with training items for cold users.

    The weight of a user is `mismatch` to the power of the number of fields in which it differs from the cold
    one; a missing value differs from every other. With 0 only users of the nearest profiles count, with 1 all
    users equally.

    Args:
        profile: ``<int32>[U, F]``, see `profiles`.
        activity: ``<int64>[U]``, training items of every user; who has 0 is cold.
        mismatch: in [0, 1].
    """
    cold, warm = np.flatnonzero(activity == 0), np.flatnonzero(activity)
    ours, cold_profile = np.unique(profile[cold], axis=0, return_inverse=True)
    theirs, warm_profile = np.unique(profile[warm], axis=0, return_inverse=True)
    differ = np.zeros((len(ours), len(theirs)), np.int64)
    for ours_of_field, theirs_of_field in zip(ours.T, theirs.T, strict=True):
        differ += (ours_of_field[:, None] != theirs_of_field) | (ours_of_field[:, None] == MISSING)
    # Counted from the nearest profile on, so that many fields cannot make every weight 0.
    weight = np.power(float(mismatch), differ - differ.min(axis=1, keepdims=True))
    users = np.bincount(warm_profile.reshape(-1), minlength=len(theirs))
    weight /= (weight * users).sum(axis=1, keepdims=True)
    whole = (cold.astype(np.int32), cold_profile.reshape(-1).astype(np.int32), weight.astype(np.float32))
    return ProfileWeights(*whole, warm.astype(np.int32), warm_profile.reshape(-1).astype(np.int32))


def most_voted(weights: ProfileWeights, nearest: np.ndarray, num_seeds: int, k: int) -> Assignment:
    """The k seed users with the largest shares of the votes for every cold user.

    Of equal shares the smaller row of the pool comes first.

    Args:
        weights: of C cold and W other users.
        nearest: ``<int32>[W]``, row of the pool for which each of the others votes.
        num_seeds: S.
        k: seed users per cold user, in 1 .. S.

    Returns:
        Rows ``[C, k]`` as `Assignment` has them for users, with shares in [0, 1] in place of cosines.
    """
    pair, count = np.unique(np.stack([weights.warm_profile, nearest]), axis=1, return_counts=True)
    found = _most_voted(weights.weight, pair, count.astype(np.float32), num_seeds=num_seeds, k=k)
    seed, share = (np.asarray(each)[weights.cold_profile] for each in found)
    return Assignment(seed.astype(np.int32), np.minimum(share, 1.0))


@functools.partial(jax.jit, static_argnames=("num_seeds", "k"))
def _most_voted(
    weight: jax.Array, pair: jax.Array, count: jax.Array, *, num_seeds: int, k: int
) -> tuple[jax.Array, jax.Array]:
    def of_profile(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        votes = jnp.zeros(num_seeds, row.dtype).at[pair[1]].add(row[pair[0]] * count)
        # `top_k` puts the smaller row first where values are equal.
        share, seed = lax.top_k(votes, k)
        return seed, share

    # Profile by profile: the shares of all of them at once would take [P, S].
    return lax.map(of_profile, weight)
