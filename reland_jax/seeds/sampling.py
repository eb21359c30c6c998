"""Adaptive seed user sampling (paper, section 3.1.1; docs/method.md).

Representativeness-aware and importance-aware rounds alternate, the former first, until exactly S
distinct seed users are found. Both draw from all users, and the seed set is the union of what they
draw: a user drawn again does not count again and keeps the round that found it first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.types import IMPORTANT, REPRESENTATIVE, RelandError, SeedSet

# Pairs of rounds, as a multiple of `rounds`, before the rest is drawn uniformly. Without overlap one
# multiple is enough; choosing nearly every user takes about log(U) of them.
_PATIENCE = 20


class _Users(NamedTuple):
    """What every round draws from.

    Attributes:
        cluster: ``<int>[U]``.
        distance: ``<float>[U]``, to the own centre.
        quota: ``<int64>[K]``, N_k.
        probability: ``<float64>[U]``, of Eq. 2.
        reachable: ``<bool>[U]``, whether chance can still bring in a user the first round left out.
    """

    cluster: np.ndarray
    distance: np.ndarray
    quota: np.ndarray
    probability: np.ndarray
    reachable: np.ndarray


def sample_seeds(
    cluster: np.ndarray,
    distance: np.ndarray,
    activity: np.ndarray,
    num_seeds: int,
    *,
    rounds: int,
    seed: int,
) -> SeedSet:
    """Chooses exactly ``num_seeds`` distinct seed users by alternating the two samplings.

    A round has the size n = round(S / (2 rounds)), at least 1. The last round is cut: of the users
    that it newly found, as many as are missing are kept, uniformly at random. A representativeness
    round brings at least one user per non-empty cluster, so with fewer seed users than clusters
    the first round is already the last. Within a round users are in ascending order.

    The alternation always ends: when no round can find a new user any more, or after 20 times
    ``rounds`` pairs of rounds, the missing users are drawn uniformly from those not yet chosen and
    recorded as representative, since a uniform draw follows the user base.

    Args:
        cluster: ``<int>[U]``, cluster of every user, 0 or more.
        distance: ``<float>[U]``, distance of every user to the centre of its cluster.
        activity: ``<int>[U]``, |D_u|: training interactions of every user, 0 or more.
        num_seeds: S, in 1 .. U.
        rounds: in how many rounds each sampling would find half of the seed users, 1 or more.
        seed: seed of the random draws.

    Raises:
        RelandError: an argument out of range, or arrays of different lengths.
    """
    cluster, distance, activity = (np.asarray(values) for values in (cluster, distance, activity))
    _check(cluster, distance, activity, num_seeds, rounds)
    size = round_size(num_seeds, rounds)
    quota, probability = cluster_quota(cluster, size), importance_probability(activity, size)
    users = _Users(cluster, distance, quota, probability, (probability > 0) | (quota[cluster] > 1))
    rng = np.random.default_rng(seed)
    how_chosen = np.full(len(cluster), -1, np.int8)
    found_by_round: list[np.ndarray] = []
    missing, turn = num_seeds, 0
    while missing:
        how, drawn = _draw(users, how_chosen < 0, turn, 2 * _PATIENCE * rounds, rng)
        found = np.flatnonzero(drawn & (how_chosen < 0))
        if len(found) > missing:
            found = np.sort(rng.choice(found, missing, replace=False))
        how_chosen[found] = how
        found_by_round.append(found)
        missing, turn = missing - len(found), turn + 1
    user = np.concatenate(found_by_round).astype(np.int32)
    return SeedSet(user, cluster[user].astype(np.int32), how_chosen[user])


def uniform_seeds(cluster: np.ndarray, num_seeds: int, seed: int) -> SeedSet:
    """Distinct seed users drawn uniformly, the paper's ablation "w/o a.s.".

    They count as representative, since a uniform draw follows the user base.

    Args:
        cluster: ``<int>[U]``, cluster of every user.
        num_seeds: S, in 1 .. U.
        seed: of the draw.

    Raises:
        RelandError: `num_seeds` is out of range.
    """
    _check_count(num_seeds, len(cluster))
    drawn = np.sort(np.random.default_rng(seed).choice(len(cluster), num_seeds, replace=False))
    user = drawn.astype(np.int32)
    how = np.full(num_seeds, REPRESENTATIVE, np.int8)
    return SeedSet(user, np.asarray(cluster)[user].astype(np.int32), how)


def round_size(num_seeds: int, rounds: int) -> int:
    """n = max(1, round(S / (2 rounds))), the number of seed users a round aims at."""
    return max(1, round(num_seeds / (2 * rounds)))


def cluster_quota(cluster: np.ndarray, size: int) -> np.ndarray:
    """N_k = max(1, round(n |C_k| / |U|)) for every non-empty cluster, 0 for an empty one.

    A half is rounded to the even neighbour, as by Python's `round`.

    Args:
        cluster: ``<int>[U]``, cluster of every user.
        size: n, at most U.

    Returns:
        ``<int64>[K]``, K being the largest cluster number plus one.
    """
    members = np.bincount(cluster)
    quota = np.maximum(1, np.rint(size * members / len(cluster))).astype(np.int64)
    return np.where(members > 0, quota, 0)


def representative_round(
    cluster: np.ndarray, distance: np.ndarray, quota: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One representativeness-aware draw: N_k members of every cluster, uniformly without
    replacement; where N_k is 1, the member closest to the centre (the smaller user id if tied).

    Args:
        cluster: ``<int>[U]``.
        distance: ``<float>[U]``, distance to the own centre.
        quota: ``<int>[K]``, N_k.
        rng: where the draws come from.

    Returns:
        ``<bool>[U]``, True for the users drawn.
    """
    priority = np.where(quota[cluster] == 1, distance, rng.random(len(cluster)))
    order = np.lexsort((priority, cluster))
    members = np.bincount(cluster, minlength=len(quota))
    first = np.cumsum(members) - members
    place = np.arange(len(cluster)) - first[cluster[order]]
    drawn = np.zeros(len(cluster), bool)
    drawn[order] = place < quota[cluster[order]]
    return drawn


def importance_probability(activity: np.ndarray, size: int) -> np.ndarray:
    """p_u = min(1, n |D_u| / sum |D|), the chance of a user in a round of n (paper, Eq. 2).

    Args:
        activity: ``<int>[U]``, |D_u|.
        size: n.

    Returns:
        ``<float64>[U]``; all 0 where nobody has an interaction.
    """
    return np.minimum(1.0, size * activity.astype(np.float64) / max(activity.sum(dtype=np.float64), 1.0))


def _draw(
    users: _Users, unchosen: np.ndarray, turn: int, last_turn: int, rng: np.random.Generator
) -> tuple[int, np.ndarray]:
    """Which sampling has its turn, and whom it draws ``<bool>[U]``; everybody once chance has stalled."""
    stalled = turn > 0 and not (users.reachable & unchosen).any()
    if stalled or turn >= last_turn:
        return REPRESENTATIVE, np.ones(len(unchosen), bool)
    if turn % 2 == 0:
        return REPRESENTATIVE, representative_round(users.cluster, users.distance, users.quota, rng)
    return IMPORTANT, rng.random(len(unchosen)) < users.probability


def _check(
    cluster: np.ndarray, distance: np.ndarray, activity: np.ndarray, num_seeds: int, rounds: int
) -> None:
    num_users = len(cluster)
    if not cluster.shape == distance.shape == activity.shape == (num_users,):
        raise RelandError(
            f"seed sampling: cluster {cluster.shape}, distance {distance.shape} and activity "
            f"{activity.shape} must all be of shape [users]"
        )
    _check_count(num_seeds, num_users)
    if rounds < 1:
        raise RelandError(f"seed sampling: config.seeds.rounds={rounds} must be at least 1")
    for name, values in (("cluster", cluster), ("activity", activity)):
        if values.min() < 0:
            user = int(values.argmin())
            raise RelandError(f"seed sampling: {name} of user {user} is {values[user]}, below 0")
    if not np.isfinite(distance).all():
        user = int(np.flatnonzero(~np.isfinite(distance))[0])
        raise RelandError(f"seed sampling: distance of user {user} to its centre is {distance[user]}")


def _check_count(num_seeds: int, num_users: int) -> None:
    if not 1 <= num_seeds <= num_users:
        raise RelandError(
            f"seed sampling: {num_seeds} seed users of {num_users} users; "
            "their number (config.seeds.fraction) must be between 1 and the number of users"
        )
