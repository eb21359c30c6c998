"""The next version of a pool: everybody is assigned, and only those who lost their seed user move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool_store import edits
from reland_jax.pool_store.lists import read_removals
from reland_jax.pool_store.rematch import (
    dense_users,
    difference,
    new_content,
    screened,
    with_pool,
    without_users,
)
from reland_jax.pool_store.version_files import Content
from reland_jax.types import ReasoningPool, RelandError
from tests.pool_store.toys import brute_force, check_valid, content, rationale


def nearest(found: Content) -> np.ndarray:
    """Assignment by NumPy in float64, as external ids of seed users."""
    k = found.assignment.seed.shape[1]
    seeds = found.pool.seeds.user
    order = brute_force(found.population.behaviour, seeds, k).seed
    return found.population.user_ids[seeds][order]


def given_seeds(found: Content) -> np.ndarray:
    return found.population.user_ids[found.pool.seeds.user][found.assignment.seed]


@given(st.data(), st.integers(1, 3))
def test_every_operation_leaves_a_valid_version(data: st.DataObject, k: int) -> None:
    """Some operations after each other: parts fit, everybody has the nearest seed users, texts are kept."""
    found = content(14, 8, k, seed=data.draw(st.integers(0, 9)))
    for name in data.draw(st.lists(st.sampled_from(["users", "match", "cap", "add", "change"]), max_size=4)):
        before = found
        users, seeds = len(found.population.user_ids), len(found.pool.rationales)
        if name == "users":
            gone = data.draw(st.permutations(range(users)))[: data.draw(st.integers(0, 4))]
            if set(found.pool.seeds.user.tolist()) <= set(gone):
                continue
            found = without_users(found, np.asarray(gone, np.int64))
            assert set(found.population.user_ids) == set(np.delete(before.population.user_ids, gone))
        elif name == "match" and seeds > 1:
            number = found.pool.rationales[data.draw(st.integers(0, seeds - 1))].step1.rpartition("thing")[2]
            found = with_pool(found, edits.remove_matching(found.pool, [rf"thing{number}\b"]))
        elif name == "cap":
            count = data.draw(st.integers(1, seeds))
            represented = edits.represented(found.pool, found.assignment)
            found = with_pool(found, edits.cap_seeds(found.pool, represented, count))
        elif name == "add":
            free = np.setdiff1d(np.arange(users), found.pool.seeds.user)[:1]
            more = content(users, 1)
            new = more.pool.seeds._replace(user=free.astype(np.int32))
            if not len(free):
                continue
            pool = found.pool._replace(
                seeds=type(new)(*(np.concatenate(pair) for pair in zip(found.pool.seeds, new, strict=True))),
                behaviour=np.concatenate([found.pool.behaviour, found.population.behaviour[free]]),
                rationales=[*found.pool.rationales, rationale(90)],
            )
            found = with_pool(found, pool)
        elif name == "change":
            first = int(found.pool.seeds.user[0])
            found = with_pool(found, edits.replace_rationales(found.pool, {first: rationale(91)}))
        check_valid(found)
        np.testing.assert_array_equal(given_seeds(found), nearest(found))


def without(pool: ReasoningPool, user: int) -> ReasoningPool:
    """The pool without one seed user."""
    return edits.keep_rows(pool, pool.seeds.user != user, "a test")


@pytest.mark.parametrize("k", [1, 2])
def test_only_those_who_lost_a_seed_user_are_matched_anew(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(60, 12, k)
    sizes = []
    from reland_jax import retrieval as module

    def watched(behaviour: np.ndarray, *rest: object) -> object:
        sizes.append(len(behaviour))
        return assign(behaviour, *rest)

    assign = module.assign
    monkeypatch.setattr(module, "assign", watched)
    gone = int(before.pool.seeds.user[3])
    after = with_pool(before, without(before.pool, gone))
    lost = (before.assignment.seed == 3).any(axis=1)
    others = lost.copy()
    others[after.pool.seeds.user] = False
    assert sizes == [11 + int(others.sum())] and sizes[0] < 60
    np.testing.assert_array_equal(after.assignment.cosine[~lost], before.assignment.cosine[~lost])
    np.testing.assert_array_equal(given_seeds(after), nearest(after))
    found = difference(before, after)
    assert (found.removed, found.users) == ([f"user-{gone}"], int(lost.sum()))


def with_cold_users(found: Content) -> Content:
    """The version with some users who have no training items; none of them is a seed user."""
    users = np.setdiff1d(np.arange(len(found.population.user_ids)), found.pool.seeds.user)[::2]
    seen = found.population.seen.copy()
    seen[users] = 0
    return found._replace(population=found.population._replace(seen=seen))


def by_votes(found: Content) -> np.ndarray:
    """The seed user with most votes for every user without training items, with votes 10 : 1 per field."""
    population, best = found.population, []
    warm = np.flatnonzero(population.seen)
    for user in np.flatnonzero(population.seen == 0).tolist():
        differ = (population.profile[warm] != population.profile[user]).sum(1)
        votes = np.bincount(found.assignment.seed[warm, 0], 0.1**differ, len(found.pool.rationales))
        best.append(int(np.argmax(votes)))
    return np.asarray(best)


def test_users_without_training_items_are_matched_by_profile() -> None:
    """Their vectors, which nobody trained, play no part: not at first, and not when they lose a seed user."""
    before = with_cold_users(content(40, 8))
    cold = before.population.seen == 0
    before.population.behaviour[cold] = np.nan
    whole = new_content(before.population, before.pool, before.settings)
    check_valid(whole)
    np.testing.assert_array_equal(whole.assignment.seed[cold, 0], by_votes(whole))
    gone = int(np.bincount(whole.assignment.seed[cold, 0]).argmax())
    after = with_pool(whole, without(whole.pool, int(whole.pool.seeds.user[gone])))
    check_valid(after)
    lost = whole.assignment.seed[cold, 0] == gone
    assert 0 < lost.sum()
    np.testing.assert_array_equal(after.assignment.seed[cold, 0][lost], by_votes(after)[lost])
    np.testing.assert_array_equal(
        given_seeds(after)[cold][~lost], given_seeds(whole)[cold][~lost], "nobody else moves"
    )


def test_removing_a_user_leaves_no_trace_in_the_version() -> None:
    before = content(12, 4)
    gone = int(before.pool.seeds.user[1])
    after = without_users(before, np.asarray([gone]))
    check_valid(after)
    assert f"user-{gone}" not in repr(after) and len(after.population.user_ids) == 11
    assert difference(before, after).users == 1 + int((before.assignment.seed[:, 0] == 1).sum()) - 1


def test_origins_stay_with_their_rationales() -> None:
    before = content(12, 4)
    today = before.population._replace(
        seen=before.population.seen + 100, history=before.population.history + np.uint64(1)
    )
    before = before._replace(population=today)
    user = int(before.pool.seeds.user[2])
    after = with_pool(before, edits.replace_rationales(before.pool, {user: rationale(50)}))
    again = new_content(today, before.pool, before.settings, before, current=[user])
    for found in (after, again):
        for name in ("seen", "history"):
            expected = getattr(before.origin, name).copy()
            expected[2] = getattr(today, name)[user]
            np.testing.assert_array_equal(getattr(found.origin, name), expected, name)


def test_more_neighbours_than_seed_users() -> None:
    before = content(12, 4, k=3)
    after = with_pool(before, edits.keep_rows(before.pool, [0, 2], "a test"))
    assert after.assignment.seed.shape == (12, 2)
    check_valid(after)
    more = with_pool(after, before.pool)
    assert more.assignment.seed.shape == (12, 3), "what was asked for comes back with the seed users"


def test_what_was_removed_and_blocked_does_not_come_back(tmp_path: Path) -> None:
    whole = content(12, 4)
    ids = whole.population.user_ids
    removals = read_removals(tmp_path).plus(seeds=[str(ids[whole.pool.seeds.user[0]])])
    kept = screened(whole.pool, ids, removals, ["thing2"])
    assert [each.step1 for each in kept.rationales] == ["likes thing1", "likes thing3"]
    with pytest.raises(RelandError, match="the lists of the store would remove all 4"):
        screened(whole.pool, ids, removals, ["thing"])


def test_an_unknown_user_is_reported_with_the_nearest() -> None:
    population = content().population
    np.testing.assert_array_equal(dense_users(population, ["user-3", "user-0"]), [3, 0])
    with pytest.raises(RelandError, match="--user=user3: the store does not have .* did you mean 'user-"):
        dense_users(population, ["user3"])
