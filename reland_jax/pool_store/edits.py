"""Edits of a reasoning pool, as functions from pool to pool.

They are pure functions, without files, clock or assignment. Each keeps the order of the remaining seed users
and refuses to empty the pool. Dense ids of users never change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from reland_jax.pool.contract import Problem
from reland_jax.pool.folder import pool_summary
from reland_jax.pool.pool_file import UNKNOWN_CLUSTER, FileRationale
from reland_jax.pool_store.patterns import found_in
from reland_jax.records import to_plain
from reland_jax.strings import as_strings
from reland_jax.types import Assignment, Rationale, ReasoningPool, RelandError, SeedSet

_SPAN = re.compile(r"(\d+)\s*([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 24 * 7}
_CHARACTERS_PER_TOKEN = 3


def keep_rows(pool: ReasoningPool, rows: Sequence[int] | np.ndarray, why: str) -> ReasoningPool:
    """The pool with some of its rows.

    Args:
        pool: a pool.
        rows: ``<bool>[S]``, or the rows to keep in increasing order.
        why: reason for the removal, for the error.

    Raises:
        RelandError: the pool would be empty.
    """
    index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, np.int64)
    if not len(index):
        raise RelandError(
            f"{why} would remove all {len(pool.rationales)} seed users; a pool needs at least one"
        )
    rationales = [pool.rationales[row] for row in index.tolist()]
    return ReasoningPool(pool.seeds.rows(index), pool.behaviour[index], rationales)


def remove_matching(pool: ReasoningPool, patterns: Sequence[str], flag: str = "--pattern") -> ReasoningPool:
    """The pool without rationales that match a pattern in step 1, step 2 or the raw answer.

    Args:
        pool: a pool.
        patterns: regular expressions; upper and lower case are the same.
        flag: name of the command-line flag, for messages.

    Raises:
        RelandError: the pool would be empty, or see `patterns.found_in`.
    """
    return keep_rows(pool, ~found_in(pool.rationales, patterns, flag), flag)


def expire(pool: ReasoningPool, before: datetime) -> ReasoningPool:
    """The pool without rationales written before a time; those without a known time are kept.

    Raises:
        RelandError: the pool would be empty.
    """
    return keep_rows(pool, np.asarray([not is_older(each, before) for each in pool.rationales]), "the bound")


def is_older(rationale: Rationale, before: datetime) -> bool:
    """Whether a rationale has a known time before the given one."""
    written = written_at(rationale)
    return written is not None and written < before


def written_at(rationale: Rationale) -> datetime | None:
    """When a rationale was written; None if unknown. A time without zone is UTC."""
    try:
        written = datetime.fromisoformat(rationale.created)
    except ValueError:
        return None
    return written if written.tzinfo else written.replace(tzinfo=UTC)


def time_bound(text: str, now: datetime) -> datetime:
    """The time of "90d", "12h", "6w" (before now) or an ISO date.

    Raises:
        RelandError: neither.
    """
    span = _SPAN.fullmatch(text.strip())
    if span:
        try:
            return now - timedelta(hours=int(span[1]) * _HOURS[span[2]])
        except (OverflowError, ValueError) as error:
            raise RelandError(
                f"--older_than={text}: before the first date that can be represented; use a shorter span"
            ) from error
    try:
        bound = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise RelandError(
            f"--older_than={text}: expected a span such as 12h, 90d or 6w, or a date such as 2026-01-31"
        ) from error
    return bound if bound.tzinfo else bound.replace(tzinfo=UTC)


def represented(pool: ReasoningPool, assignment: Assignment) -> np.ndarray:
    """The number of users assigned to each seed user as nearest, itself included: ``<int64>[S]``."""
    return np.bincount(assignment.seed[:, 0], minlength=len(pool.rationales))


def cap_seeds(pool: ReasoningPool, users: np.ndarray, seeds: int) -> ReasoningPool:
    """The pool with at most `seeds` seed users: those with the most assigned users are kept.

    Args:
        pool: a pool.
        users: ``<int>[S]``, number of users of each seed user (`represented`), not recounted after a removal.
            Of equals, the later one in the pool is removed first.
        seeds: at least 1.

    Raises:
        RelandError: fewer than one.
    """
    if seeds < 1:
        raise RelandError(f"--seeds={seeds}: a pool needs at least one seed user")
    return keep_rows(pool, np.sort(_most_first(users)[:seeds]), "--seeds")


def cap_tokens(pool: ReasoningPool, users: np.ndarray, tokens: int) -> ReasoningPool:
    """The pool without the seed users with the fewest assigned users, until its tokens are within the limit.

    Tokens are those of prompt and answer, the cost of asking again; seed users with the same prompt share
    them. If they are unknown, as for heuristic texts, an answer counts a third of its characters, rounded up.

    Args:
        pool: a pool.
        users: see `cap_seeds`, also for the order of removal.
        tokens: at least 1.

    Raises:
        RelandError: not even the seed user with the most users fits.
    """
    kept: list[int] = []
    seen: set[str] = set()
    total = 0
    for row in _most_first(users).tolist():
        rationale = pool.rationales[row]
        total += 0 if rationale.prompt_hash in seen else tokens_of(rationale)
        if total > tokens:
            break
        seen |= {rationale.prompt_hash} - {""}
        kept.append(row)
    return keep_rows(pool, sorted(kept), f"--tokens={tokens}")


def tokens_of(rationale: Rationale) -> int:
    """Tokens of prompt and answer, or an estimate of the answer's."""
    known = rationale.prompt_tokens + rationale.response_tokens
    return known or -(-len(rationale.response) // _CHARACTERS_PER_TOKEN)


def _most_first(users: np.ndarray) -> np.ndarray:
    return np.argsort(-np.asarray(users), kind="stable")


def add_entries(
    pool: ReasoningPool,
    entries: Sequence[FileRationale],
    dense: Mapping[str, int],
    behaviour: np.ndarray,
    refused: Mapping[str, str],
) -> tuple[ReasoningPool, list[Problem]]:
    """The pool with the rationales of a pool file, which replace those of their seed users or are appended.

    Args:
        pool: a pool.
        entries: the lines of the file.
        dense: dense ids of possible seed users by external id.
        behaviour: ``<float32>[U, D]``, M of all users.
        refused: reasons against lines, by external id.

    Returns:
        The pool, and the unused lines with reasons.
    """
    problems: list[Problem] = []
    fresh: dict[int, FileRationale] = {}
    for entry in entries:
        why = refused.get(entry.user_id) or _unusable(entry, dense)
        if why:
            problems.append(Problem(entry.user_id, f"line {entry.line}: {why}"))
        else:
            fresh[dense[entry.user_id]] = entry
    rationales = {user: entry.rationale for user, entry in fresh.items() if entry.rationale}
    pool = replace_rationales(pool, rationales)
    known = set(pool.seeds.user.tolist())
    new = [user for user in fresh if user not in known]
    own = [fresh[user].cluster for user in new]
    clusters = [UNKNOWN_CLUSTER if cluster is None else cluster for cluster in own]
    seeds = SeedSet(
        np.concatenate([pool.seeds.user, np.asarray(new, np.int32)]),
        np.concatenate([pool.seeds.cluster, np.asarray(clusters, np.int32)]),
        np.concatenate([pool.seeds.how, np.asarray([fresh[user].how for user in new], np.int8)]),
    )
    m = np.concatenate([pool.behaviour, behaviour[np.asarray(new, np.int64)]])
    return ReasoningPool(seeds, m, [*pool.rationales, *(rationales[user] for user in new)]), problems


def _unusable(entry: FileRationale, dense: Mapping[str, int]) -> str:
    if entry.rationale is None:
        return "; ".join(entry.problems)
    return "" if entry.user_id in dense else "the store does not have this user"


def replace_rationales(pool: ReasoningPool, rationales: Mapping[int, Rationale]) -> ReasoningPool:
    """The pool with other rationales for some seed users, by dense id; users without a row are ignored."""
    users = pool.seeds.user.tolist()
    texts = [rationales.get(user, old) for user, old in zip(users, pool.rationales, strict=True)]
    return pool._replace(rationales=texts)


# --- looking at pools -----------------------------------------------------------------------------


class Difference(NamedTuple):
    """The differences between two versions, by external id.

    Attributes:
        removed: seed users of only the first, in its order.
        added: seed users of only the second, in its order.
        changed: seed users with another rationale.
        users: number of users that get other rationales, or in another order, or are in only one version.
    """

    removed: list[str]
    added: list[str]
    changed: list[str]
    users: int


class VersionView(NamedTuple):
    """One of the two versions of a `Difference`.

    Attributes:
        user_ids: ``<str>[U]``.
        pool: its pool.
        assignment: its assignment.
    """

    user_ids: np.ndarray
    pool: ReasoningPool
    assignment: Assignment


def diff(before: VersionView | None, after: VersionView) -> Difference:
    """Compares two versions; None is an empty version."""
    if before is None:
        return Difference([], [*_texts(after)], [], len(after.user_ids))
    old, new = _texts(before), _texts(after)
    return Difference(
        [user for user in old if user not in new],
        [user for user in new if user not in old],
        [user for user in new if user in old and old[user] != new[user]],
        _touched(before, after, old, new),
    )


def _texts(side: VersionView) -> dict[str, Rationale]:
    seeds = as_strings(side.user_ids)[side.pool.seeds.user].tolist()
    return dict(zip(seeds, side.pool.rationales, strict=True))


def _touched(
    before: VersionView, after: VersionView, old: Mapping[str, Rationale], new: Mapping[str, Rationale]
) -> int:
    """Number of users whose rationales differ, or who are in one version only."""
    codes: dict[tuple[str, Rationale], int] = {}

    def given(side: VersionView, texts: Mapping[str, Rationale]) -> np.ndarray:
        of_seed = np.asarray([codes.setdefault(pair, len(codes)) for pair in texts.items()])
        return of_seed[side.assignment.seed]

    first, second = given(before, old), given(after, new)
    row = {user: number for number, user in enumerate(as_strings(before.user_ids).tolist())}
    both = [(row[user], b) for b, user in enumerate(as_strings(after.user_ids).tolist()) if user in row]
    a, b = np.asarray(both, np.int64).reshape(-1, 2).T
    alone = len(before.user_ids) + len(after.user_ids) - 2 * len(a)
    if first.shape[1] != second.shape[1]:
        return alone + len(a)
    return alone + int((first[a] != second[b]).any(axis=1).sum())


def stats(pool: ReasoningPool, assignment: Assignment) -> dict[str, Any]:
    """Statistics of a pool and its assignment, as JSON values.

    Returns:
        Besides `pool_summary`: users, users_per_seed (min, median, max), seeds_for_nobody_else (seed users to
        whom no other user is assigned), cosine (percentiles 5, 50 and 95 of all users to
        their nearest seed user), oldest, newest (ISO times, "" if unknown), without_time, tokens (as
        `cap_tokens` counts them), and same_text (rationales that repeat another's step 2).
    """
    users = represented(pool, assignment)
    times = sorted(time for each in pool.rationales if (time := written_at(each)))
    texts = Counter(each.step2 for each in pool.rationales)
    tokens = {each.prompt_hash or str(row): tokens_of(each) for row, each in enumerate(pool.rationales)}
    cosine = np.percentile(assignment.cosine[:, 0], [5, 50, 95])
    return to_plain(pool_summary(pool)) | {
        "users": len(assignment.seed),
        "users_per_seed": {
            "min": int(users.min()),
            "median": float(np.median(users)),
            "max": int(users.max()),
        },
        "seeds_for_nobody_else": int((users <= 1).sum()),
        "cosine": dict(zip(("5%", "50%", "95%"), (round(float(each), 4) for each in cosine), strict=True)),
        "oldest": times[0].isoformat(timespec="seconds") if times else "",
        "newest": times[-1].isoformat(timespec="seconds") if times else "",
        "without_time": len(pool.rationales) - len(times),
        "tokens": sum(tokens.values()),
        "same_text": len(pool.rationales) - len(texts),
    }
