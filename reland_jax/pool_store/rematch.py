"""The next version of a stored pool: users without their seed user get the nearest remaining one.

`edits` decides which seed users are kept; this module assigns the users. It imports the assignment inside
functions, so that a mistake in a command is reported without importing jax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from reland_jax.config import RetrievalConfig, nearest_name
from reland_jax.pool_store.edits import Difference, VersionView, diff, keep_rows
from reland_jax.pool_store.lists import Removals, allowed, read_patterns, read_removals
from reland_jax.pool_store.store import PoolStore
from reland_jax.pool_store.version_files import Content, Origin, Population
from reland_jax.strings import as_strings
from reland_jax.types import Assignment, ReasoningPool, RelandError


def new_content(
    population: Population,
    pool: ReasoningPool,
    settings: Mapping[str, Any],
    before: Content | None = None,
    current: Iterable[int] = (),
) -> Content:
    """A version in which every user is assigned again.

    Args:
        population: its users.
        pool: its pool; dense ids are rows of the population.
        settings: see `Content`.
        before: the previous version, if any: an unchanged rationale keeps its origin.
        current: dense ids of seed users whose unchanged rationale was written again from the present training
            items.

    Raises:
        RelandError: see `retrieval.assign_with_cold`.
    """
    from reland_jax.retrieval import assign_with_cold

    assignment = assign_with_cold(
        population.behaviour,
        pool.seeds.user,
        population.seen,
        population.profile,
        _retrieval(settings, pool),
    )
    origin = _origins(population, pool, before, current)
    return Content(population, pool, origin, assignment, dict(settings))


def with_pool(before: Content, pool: ReasoningPool) -> Content:
    """The version with another pool for the same users.

    If the pool only lost seed users, only the users who were assigned to these are assigned again; all others
    keep their seed users and cosines.

    Raises:
        RelandError: see `retrieval.assign`.
    """
    kept = np.isin(pool.seeds.user, before.pool.seeds.user)
    if not kept.all() or before.assignment.seed.shape[1] > len(pool.rationales):
        return new_content(before.population, pool, before.settings, before)
    assignment = _reassigned(before, pool)
    return before._replace(pool=pool, assignment=assignment, origin=_origins(before.population, pool, before))


def without_users(before: Content, users: np.ndarray) -> Content:
    """The version without some users, neither as users nor as seed users.

    Args:
        before: a version.
        users: dense ids.

    Raises:
        RelandError: the pool would be empty.
    """
    stays = np.ones(len(before.population.user_ids), bool)
    stays[users] = False
    pool = keep_rows(before.pool, stays[before.pool.seeds.user], "the removal")
    after = with_pool(before, pool)
    number = (np.cumsum(stays) - 1).astype(np.int32)
    population = Population(*(array[stays] for array in before.population))
    return after._replace(
        population=population,
        pool=pool._replace(seeds=pool.seeds._replace(user=number[pool.seeds.user])),
        assignment=Assignment(*(array[stays] for array in after.assignment)),
    )


def read_version(store: PoolStore, number: int | None = None, ignoring: Iterable[str] = ()) -> Content:
    """Reads a version and applies the removal and moderation lists of the store.

    The lists may be newer than the version, even than the current one if CURRENT was edited. Users without
    their seed user get the nearest remaining one.

    Args:
        store: the store.
        number: number of the version, by default the current one.
        ignoring: patterns of the moderation list that are not applied.

    Raises:
        RelandError: see `PoolStore.read_as_written`; a list is damaged; or the version would be empty.
    """
    content, removals = store.read_as_written(number), read_removals(store.folder)
    without = set(ignoring)
    patterns = [pattern for pattern in read_patterns(store.folder) if pattern not in without]
    ids = as_strings(content.population.user_ids)
    left = np.flatnonzero(removals.left(ids.tolist()))
    if len(left):
        content = without_users(content, left)
        ids = as_strings(content.population.user_ids)
    rows = allowed(content.pool.rationales, ids[content.pool.seeds.user].tolist(), removals, patterns)
    if rows.all():
        return content
    return with_pool(content, keep_rows(content.pool, rows, "the lists of the store"))


def screened(
    pool: ReasoningPool, user_ids: np.ndarray, removals: Removals, patterns: Iterable[str]
) -> ReasoningPool:
    """The pool without seed users and texts that are on the lists of the store.

    Raises:
        RelandError: nothing would be left.
    """
    seeds = as_strings(user_ids)[pool.seeds.user].tolist()
    rows = allowed(pool.rationales, seeds, removals, patterns)
    return keep_rows(pool, rows, "the lists of the store")


def difference(before: Content | None, after: Content) -> Difference:
    """The difference between two versions (see `edits.diff`)."""
    return diff(_view_of(before) if before else None, _view_of(after))


def dense_users(population: Population, user_ids: Iterable[str]) -> np.ndarray:
    """Dense ids of external ids, ``<int64>[n]``.

    Raises:
        RelandError: a user is not in the store; the message names the nearest id.
    """
    known = {user: row for row, user in enumerate(as_strings(population.user_ids).tolist())}
    for user in user_ids:
        if user not in known:
            hint = nearest_name(user, list(known)) if len(known) < 20_000 else ""
            hint = hint if hint.startswith("did you mean") else "see: show --user"
            raise RelandError(f"--user={user}: the store does not have this user; {hint}")
    return np.asarray([known[user] for user in user_ids], np.int64)


def _view_of(content: Content) -> VersionView:
    return VersionView(content.population.user_ids, content.pool, content.assignment)


def _retrieval(settings: Mapping[str, Any], pool: ReasoningPool) -> RetrievalConfig:
    stored = settings["retrieval"]
    neighbours = min(int(stored["neighbours"]), len(pool.rationales))
    return RetrievalConfig(
        engine=stored["engine"],
        neighbours=neighbours,
        cold_mismatch=float(stored["cold_mismatch"]),
        tile=int(stored["tile"]),
    )


def _reassigned(before: Content, pool: ReasoningPool) -> Assignment:
    """The assignment to a pool whose seed users were all in the pool before."""
    from reland_jax.retrieval import assign, most_voted, profile_weights

    row_of_user = {user: row for row, user in enumerate(pool.seeds.user.tolist())}
    new_row = np.asarray([row_of_user.get(user, -1) for user in before.pool.seeds.user.tolist()], np.int32)
    seed, cosine = new_row[before.assignment.seed], before.assignment.cosine.copy()
    population, retrieval = before.population, _retrieval(before.settings, pool)
    lost = (seed < 0).any(axis=1)
    cold = np.flatnonzero(lost & (population.seen == 0))
    lost = np.flatnonzero(lost & (population.seen > 0))
    if len(lost):
        # Seed users come first, so that they are assigned to themselves as in every assignment.
        others = lost[~np.isin(lost, pool.seeds.user)]
        users = np.concatenate([pool.seeds.user.astype(np.int64), others])
        found = assign(
            population.behaviour[users],
            np.arange(len(pool.rationales)),
            dataclasses.replace(retrieval, neighbours=seed.shape[1]),
        )
        place = {user: row for row, user in enumerate(users.tolist())}
        rows = np.asarray([place[user] for user in lost.tolist()])
        seed[lost], cosine[lost] = found.seed[rows], found.cosine[rows]
    if len(cold):
        # By the votes of the warm users, who all have a seed user now.
        weights = profile_weights(population.profile, population.seen, retrieval.cold_mismatch)
        voted = most_voted(weights, seed[weights.warm, 0], len(pool.rationales), seed.shape[1])
        rows = np.searchsorted(weights.cold, cold)
        seed[cold], cosine[cold] = voted.seed[rows], voted.cosine[rows]
    return Assignment(seed, cosine)


def _origins(
    population: Population, pool: ReasoningPool, before: Content | None, current: Iterable[int] = ()
) -> Origin:
    """Origins: new rationales were written from the present training part, the others keep their origin."""
    users = pool.seeds.user
    seen, history = population.seen[users].copy(), population.history[users].copy()
    if before is not None:
        known = set(current)
        old_ids = as_strings(before.population.user_ids)[before.pool.seeds.user].tolist()
        old = {user: row for row, user in enumerate(old_ids)}
        for row, user in enumerate(as_strings(population.user_ids)[users].tolist()):
            place = None if int(users[row]) in known else old.get(user)
            if place is not None and before.pool.rationales[place] == pool.rationales[row]:
                seen[row], history[row] = before.origin.seen[place], before.origin.history[place]
    return Origin(seen, history)
