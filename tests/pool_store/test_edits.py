"""Operations on a pool: what stays, in which order, and that nothing else changes."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.pool_file import FileRationale
from reland_jax.pool_store import edits
from reland_jax.pool_store.edits import VersionView, diff
from reland_jax.types import Assignment, Rationale, ReasoningPool, RelandError
from tests.pool_store.toys import brute_force, content, rationale

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)


def rows_of(pool: ReasoningPool) -> list[tuple[object, ...]]:
    """Everything about each seed user, to compare pools row by row."""
    seeds = zip(*(array.tolist() for array in pool.seeds), strict=True)
    return list(zip(seeds, map(tuple, pool.behaviour.tolist()), pool.rationales, strict=True))


def with_texts(pool: ReasoningPool, texts: list[Rationale]) -> ReasoningPool:
    return edits.replace_rationales(pool, dict(zip(pool.seeds.user.tolist(), texts, strict=True)))


@given(st.sets(st.integers(0, 11)), st.integers(0, 5))
def test_keeping_rows_keeps_them_as_they_are(users: set[int], seed: int) -> None:
    pool = content(seed=seed).pool
    stays = ~np.isin(pool.seeds.user, [*users])
    expected = [row for row in rows_of(pool) if row[0][0] not in users]
    if expected:
        assert rows_of(edits.keep_rows(pool, stays, "a test")) == expected
    else:
        with pytest.raises(RelandError, match="would remove all 4 seed users; a pool needs at least one"):
            edits.keep_rows(pool, stays, "a test")


@given(st.integers(1, 15), st.lists(st.integers(0, 5), min_size=15, max_size=15))
def test_capping_seeds_takes_the_fewest_users_first(seeds: int, users: list[int]) -> None:
    pool = content(20, 15).pool
    kept = edits.cap_seeds(pool, np.asarray(users), seeds)
    chosen = sorted(sorted(range(15), key=lambda row: (-users[row], row))[:seeds])
    assert rows_of(kept) == [rows_of(pool)[row] for row in chosen]


@given(st.integers(1, 2000), st.lists(st.integers(0, 5), min_size=8, max_size=8))
def test_capping_tokens(tokens: int, users: list[int]) -> None:
    """The kept ones fit; with the next in line, who stands for no more users than they, they do not."""
    pool = content(20, 8).pool
    costs = [110 + row for row in range(8)]
    if tokens < costs[int(np.argmax(users))]:
        with pytest.raises(RelandError, match=f"--tokens={tokens} would remove all 8"):
            edits.cap_tokens(pool, np.asarray(users), tokens)
        return
    kept = edits.cap_tokens(pool, np.asarray(users), tokens)
    stays = [row for row in range(8) if rows_of(pool)[row] in rows_of(kept)]
    goes = [row for row in range(8) if row not in stays]
    assert sum(costs[row] for row in stays) <= tokens
    if goes:
        following = min(goes, key=lambda row: (-users[row], row))
        assert all((users[row], -row) > (users[following], -following) for row in stays)
        assert sum(costs[row] for row in stays) + costs[following] > tokens


def test_tokens_of_a_shared_prompt_count_once_and_unknown_ones_are_estimated() -> None:
    pool = content(12, 3).pool
    shared = rationale(0, prompt_tokens=50, response_tokens=10)
    unknown = rationale(9, prompt_hash="", prompt_tokens=0, response_tokens=0, response="x" * 31)
    pool = with_texts(pool, [shared, shared, unknown])
    users = np.asarray([3, 2, 1])
    for tokens, kept in ((60, 2), (70, 2), (71, 3)):
        assert len(edits.cap_tokens(pool, users, tokens).rationales) == kept


def test_matching_looks_at_all_three_texts() -> None:
    pool = content(12, 4).pool
    fields = [{}, {"step1": "Knives"}, {"step2": "a knife"}, {"response": "knife"}]
    pool = with_texts(pool, [rationale(row, **changes) for row, changes in enumerate(fields)])
    kept = edits.remove_matching(pool, ["kni(fe|ves)"])
    assert rows_of(kept) == rows_of(pool)[:1]
    with pytest.raises(RelandError, match="--match would remove all 4 seed users"):
        edits.remove_matching(pool, ["kni|thing"], "--match")


def test_expiry_keeps_what_has_no_time() -> None:
    pool = content(12, 4).pool
    times = ["2026-01-31T23:59:59+00:00", "2026-02-01T00:30:00+01:00", "", "2026-02-01"]
    texts = [rationale(row, created=time) for row, time in enumerate(times)]
    pool = with_texts(pool, texts)
    kept = edits.expire(pool, datetime(2026, 2, 1, tzinfo=UTC))
    assert rows_of(kept) == rows_of(pool)[2:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", datetime(2026, 6, 30, 0, tzinfo=UTC)),
        ("90d", datetime(2026, 4, 1, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 6, 16, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T10:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_bounds_in_time(text: str, expected: datetime) -> None:
    assert edits.time_bound(text, NOW) == expected


@pytest.mark.parametrize("text", ["90", "3 months", "yesterday", "-3d", ""])
def test_bounds_that_are_none(text: str) -> None:
    with pytest.raises(RelandError, match="expected a span such as 12h, 90d or 6w, or a date"):
        edits.time_bound(text, NOW)


def test_adding_from_a_file() -> None:
    """One seed user gets another rationale, one user becomes a seed user, three lines are not used."""
    whole = content(12, 4)
    old = int(whole.pool.seeds.user[1])
    new, refusal, barred = np.setdiff1d(np.arange(12), whole.pool.seeds.user)[:3].tolist()
    dense = {f"user-{row}": row for row in range(12)}
    entries = [
        FileRationale(f"user-{new}", 1, 7, rationale(20), (), 1),
        FileRationale(f"user-{old}", 0, None, rationale(21), (), 2),
        FileRationale("nobody", 0, None, rationale(22), (), 3),
        FileRationale(f"user-{refusal}", 0, None, None, ("a refusal",), 4),
        FileRationale(f"user-{barred}", 0, None, rationale(23), (), 5),
    ]
    refused = {f"user-{barred}": "removed before"}
    pool, problems = edits.add_entries(whole.pool, entries, dense, whole.population.behaviour, refused)
    assert pool.seeds.user.tolist() == [*whole.pool.seeds.user.tolist(), new]
    assert (pool.seeds.cluster[-1], pool.seeds.how[-1]) == (7, 1)
    np.testing.assert_array_equal(pool.behaviour, whole.population.behaviour[pool.seeds.user])
    texts = [rationale(0), rationale(21), rationale(2), rationale(3), rationale(20)]
    assert list(pool.rationales) == texts
    assert [array.dtype for array in pool.seeds] == [array.dtype for array in whole.pool.seeds]
    assert problems == [
        ("nobody", "line 3: the store does not have this user"),
        (f"user-{refusal}", "line 4: a refusal"),
        (f"user-{barred}", "line 5: removed before"),
    ]


def side(seeds: list[int], texts: list[int], behaviour: np.ndarray, ids: list[str]) -> VersionView:
    whole = content(len(ids), len(seeds))
    users = whole.pool.seeds._replace(user=np.asarray(seeds, np.int32))
    pool = whole.pool._replace(seeds=users, rationales=[rationale(text) for text in texts])
    return VersionView(np.asarray(ids), pool, brute_force(behaviour, np.asarray(seeds), 1))


@given(st.data())
def test_difference(data: st.DataObject) -> None:
    """Against a plain loop over users, for versions with different users, seed users and texts."""
    behaviour = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(8, 3))
    sides, given_texts = [], []
    for _ in range(2):
        users = data.draw(st.permutations(range(8)))[: data.draw(st.integers(3, 8))]
        seeds = data.draw(st.permutations(range(len(users))))[: data.draw(st.integers(1, 3))]
        texts = [data.draw(st.integers(0, 1)) for _ in seeds]
        ids = [f"user-{user}" for user in users]
        sides.append(side(seeds, texts, behaviour[users], ids))
        chosen = sides[-1].assignment.seed[:, 0]
        given_texts.append({ids[row]: (ids[seeds[s]], texts[s]) for row, s in enumerate(chosen)})
    before, after = given_texts
    old, new = (
        {str(s.user_ids[u]): text for u, text in zip(s.pool.seeds.user, s.pool.rationales, strict=True)}
        for s in sides
    )
    found = diff(*sides)
    assert found.removed == [user for user in old if user not in new]
    assert found.added == [user for user in new if user not in old]
    assert found.changed == [user for user in new if user in old and old[user] != new[user]]
    assert found.users == sum(before.get(user) != after.get(user) for user in {*before, *after})


def test_difference_from_nothing() -> None:
    whole = content()
    after = VersionView(whole.population.user_ids, whole.pool, whole.assignment)
    found = diff(None, after)
    assert (len(found.added), found.removed, found.changed, found.users) == (4, [], [], 12)
    assert diff(after, after) == ([], [], [], 0)


def test_stats() -> None:
    pool = content(12, 3).pool
    texts = [rationale(0), rationale(1, step2=rationale(0).step2), rationale(2, created="")]
    pool = with_texts(pool, texts)
    seed = np.asarray([0] * 7 + [1] * 4 + [2])[:, None]
    cosine = np.linspace(1, 0.5, 12, dtype=np.float32)[:, None]
    found = edits.stats(pool, Assignment(seed, cosine))
    assert found["users"] == 12 and found["users_per_seed"] == {"min": 1, "median": 4.0, "max": 7}
    assert found["seeds_for_nobody_else"] == 1 and found["same_text"] == 1 and found["without_time"] == 1
    assert found["oldest"] == "2026-01-01T00:00:00+00:00" and found["newest"] == "2026-01-02T00:00:00+00:00"
    assert found["tokens"] == 110 + 111 + 112 and found["cosine"]["50%"] == 0.75
