"""Changes of a pool store: each computes the next version, reports what it affects, and publishes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.pool.contract import Problem
from reland_jax.pool.pool_file import FileRationale, read_pool_file
from reland_jax.pool_store import (
    Content,
    PoolStore,
    Population,
    Purged,
    allowed,
    asking_stopped,
    check_patterns,
    dense_users,
    difference,
    edits,
    is_current_clean,
    lists_as_they_lie,
    not_purged,
    purge,
    read_asked,
    read_patterns,
    read_removals,
    read_version,
    to_purge,
    with_pool,
    without_users,
)
from reland_jax.strings import as_strings, visible
from reland_jax.types import RelandError

PURGE_WAIT_SECONDS = 120.0
"""How long a purge waits for processes that ask in the store, in seconds, after it has asked them to stop."""

_SHOWN = 5


class ChangeRequest(NamedTuple):
    """A requested change: who, why, and to which store.

    Attributes:
        store: the store.
        action: the command.
        who: for the audit log.
        why: for the audit log.
        dry_run: whether to tell only.
        wait: seconds that a purge waits for processes that ask in the store.
    """

    store: PoolStore
    action: str
    who: str
    why: str
    dry_run: bool
    wait: float = PURGE_WAIT_SECONDS


class NextVersion(NamedTuple):
    """The result of a change.

    Attributes:
        after: the next version.
        arguments: of the command, for the audit log.
        hidden: texts among the arguments that the audit log keeps as salted hashes only.
        users: external ids to keep out from now on.
        seeds: external ids that are not to be seed users from now on.
        patterns: what no rationale may have from now on.
        readmitted: external ids that come off the removal list.
        unblocked: patterns that come off the moderation list.
        problems: what could not be done.
        always: publish even if the version is the same as before.
    """

    after: Content
    arguments: Mapping[str, Any]
    hidden: Mapping[str, Sequence[str]] = {}
    users: Sequence[str] = ()
    seeds: Sequence[str] = ()
    patterns: Sequence[str] = ()
    readmitted: Sequence[str] = ()
    unblocked: Sequence[str] = ()
    problems: Sequence[Problem] = ()
    always: bool = False


Before = TypeVar("Before", Content, Content | None)
"""The current version, or where there need not be one yet."""


def apply_change(
    request: ChangeRequest,
    plan: Callable[[Before], NextVersion],
    read: Callable[[PoolStore], Before],
    purging: bool = False,
) -> int:
    """Computes the next version from the current one, reports what it affects, and publishes it.

    Args:
        request: who wants it, where, and whether it is only to be told.
        plan: what to do; it is given the current version.
        read: how that is read: `current`, or `current_if_any`.
        purging: delete what older versions and journals hold of those on the removal list.

    Returns:
        The exit status: 0, or 1 if something could not be purged.
    """
    if request.dry_run:
        before = read(request.store)
        planned = plan(before)
        _tell(request, before, planned)
        if purging:
            _tell_purge(request.store, planned)
        print("dry run: nothing was changed")
        return 0
    with request.store.locked() as store:
        before = read(store)
        if before is not None:
            _finish_purge(request, before)
        planned = plan(before)
        anything = _tell(request, before, planned)
        remembered = planned.users or planned.seeds or planned.patterns
        if not (anything or remembered or planned.always):
            print("no change, so there is no new version")
            return 0
        # The lists come first: if this process ends here, nothing comes back that was to go.
        store.remember(users=planned.users, seeds=planned.seeds, patterns=planned.patterns)
        number = store.publish(planned.after, _record(request, before, planned, purging))
        # And nothing comes off a list before the audit log says so.
        store.forget(users=planned.readmitted, patterns=planned.unblocked)
        print(f"version {number} is current")
        if request.action == "remove" and len(store.numbers()) > 1 and not purging:
            print("older versions and the journal still have the removed data; --purge deletes it there too")
    return _purge(request) if purging else 0


def current(store: PoolStore, ignoring: Sequence[str] = ()) -> Content:
    """The current version.

    Args:
        store: a store.
        ignoring: patterns of the moderation list that are not searched for any more.

    Raises:
        RelandError: there is none, or it or a list of the store is damaged.
    """
    read_removals(store.folder), read_patterns(store.folder)  # damage to the lists is never passed over
    return read_version(store, ignoring=ignoring)


def current_if_any(store: PoolStore) -> Content | None:
    """The current version; None where there is none, or none that can be read.

    Raises:
        RelandError: a list of the store is damaged.
    """
    if store.current() is None:
        return None
    read_removals(store.folder), read_patterns(store.folder)
    try:
        return read_version(store)
    except RelandError as error:
        print(f"the current version cannot be read and is replaced: {error}")
        return None


def add(request: ChangeRequest, file: str, held_out: int) -> int:
    """Adds the rationales of a pool file, in place of those that their seed users have."""
    entries = read_pool_file(file)

    def plan(before: Content) -> NextVersion:
        population = before.population
        ids = as_strings(population.user_ids).tolist()
        dense = {user: row for row, user in enumerate(ids)}
        refused = _refused(request.store, entries, dense, before, held_out)
        pool, problems = edits.add_entries(before.pool, entries, dense, population.behaviour, refused)
        arguments = {"file": Path(file).name, "lines": len(entries), "held_out": held_out}
        return NextVersion(with_pool(before, pool), arguments, problems=problems)

    return apply_change(request, plan, current)


def remove(request: ChangeRequest, users: Sequence[str], match: str | None, purging: bool) -> int:
    """Takes users out altogether, and seed users by what their rationales say."""
    patterns = [match] if match else []
    check_patterns(patterns, "--match")
    _keep_ids_out_of(request.why, users)

    def plan(before: Content) -> NextVersion:
        present, elsewhere = _served_and_asked(request.store, before, users)
        pool = edits.remove_matching(before.pool, patterns, "--match")
        ids = as_strings(before.population.user_ids)
        matched = ids[np.setdiff1d(before.pool.seeds.user, pool.seeds.user)].tolist()
        after = with_pool(before, pool)
        if present:
            after = without_users(after, dense_users(before.population, present))
        hidden = {"user": list(users)} | ({"match": [match]} if match else {})
        seeds = [user for user in matched if user not in present]
        return NextVersion(after, {"purge": purging}, hidden, [*present, *elsewhere], seeds, always=purging)

    return apply_change(request, plan, current, purging)


def expire(request: ChangeRequest, older_than: str) -> int:
    """Takes out the rationales that were written before a bound."""
    before_time = edits.time_bound(older_than, datetime.now(UTC))

    def plan(before: Content) -> NextVersion:
        undated = sum(edits.written_at(each) is None for each in before.pool.rationales)
        if undated:
            print(f"{undated} rationales without a known time are kept")
        pool = edits.expire(before.pool, before_time)
        bound = before_time.isoformat(timespec="seconds")
        return NextVersion(with_pool(before, pool), {"older_than": older_than, "before": bound})

    return apply_change(request, plan, current)


def block(request: ChangeRequest, patterns: Sequence[str]) -> int:
    """Takes out the rationales that have a pattern, and remembers it."""
    check_patterns(patterns)

    def plan(before: Content) -> NextVersion:
        known = read_patterns(request.store.folder)
        pool = edits.remove_matching(before.pool, patterns)
        new = [pattern for pattern in patterns if pattern not in known]
        return NextVersion(with_pool(before, pool), {"pattern": list(patterns)}, patterns=new)

    return apply_change(request, plan, current)


def unblock(request: ChangeRequest, patterns: Sequence[str]) -> int:
    """Takes patterns off the moderation list; rationales that it took out come back by asking only."""

    def plan(before: Content) -> NextVersion:
        known = read_patterns(request.store.folder)
        for pattern in patterns:
            if pattern not in known:
                hint = nearest_name(pattern, known) if known else "the moderation list is empty"
                raise RelandError(f"--pattern={pattern}: not on the moderation list; {hint}")
        return NextVersion(before, {"pattern": list(patterns)}, unblocked=patterns, always=True)

    return apply_change(request, plan, partial(current, ignoring=patterns))


def readmit(request: ChangeRequest, users: Sequence[str]) -> int:
    """Takes users off the removal list; the next build or refresh serves them again."""
    _keep_ids_out_of(request.why, users)

    def plan(before: Content) -> NextVersion:
        listed = read_removals(request.store.folder).barred(users).tolist()
        for user, on_list in zip(users, listed, strict=True):
            if not on_list:
                raise RelandError(f"--user={user}: not on the removal list of this store")
        return NextVersion(before, {}, {"user": list(users)}, readmitted=users, always=True)

    return apply_change(request, plan, current)


def cap(request: ChangeRequest, seeds: int | None, tokens: int | None) -> int:
    """Keeps the seed users with the most assigned users, up to a number of them or of tokens."""

    def plan(before: Content) -> NextVersion:
        pool = before.pool
        users = edits.represented(pool, before.assignment)
        if tokens is not None:
            kept = edits.cap_tokens(pool, users, tokens)
            users, pool = users[np.isin(pool.seeds.user, kept.seeds.user)], kept
        if seeds is not None:
            pool = edits.cap_seeds(pool, users, seeds)
        return NextVersion(with_pool(before, pool), {"seeds": seeds, "tokens": tokens})

    return apply_change(request, plan, current)


def rollback(request: ChangeRequest, number: int) -> int:
    """Publishes an earlier version again; the lists of the store hold for it as for every other."""

    def plan(before: Content) -> NextVersion:
        del before
        return NextVersion(read_version(request.store, number), {"version": number})

    return apply_change(request, plan, current)


def _served_and_asked(store: PoolStore, before: Content, users: Sequence[str]) -> tuple[list[str], list[str]]:
    """Users that the version serves, and others that were asked about; those removed before are neither."""
    served = set(as_strings(before.population.user_ids).tolist())
    asked = {note.user_id for note in read_asked(store.folder)} - served
    gone = read_removals(store.folder).left(users).tolist()
    new = [user for user, left in zip(users, gone, strict=True) if not left or user in served]
    return [user for user in new if user not in asked], [user for user in new if user in asked]


def _refused(
    store: PoolStore,
    entries: Sequence[FileRationale],
    dense: Mapping[str, int],
    before: Content,
    left_out: int,
) -> dict[str, str]:
    """External id -> why a line of a file must not be used."""
    ids = [entry.user_id for entry in entries]
    removals, patterns = read_removals(store.folder), read_patterns(store.folder)
    barred = removals.barred(ids)
    refused = {user: "removed before" for user in np.asarray(ids, object)[barred].tolist()}
    readable = {entry.user_id: entry.rationale for entry in entries if entry.rationale is not None}
    fine = allowed(list(readable.values()), list(readable), removals, patterns)
    for user, good in zip(readable, fine.tolist(), strict=True):
        if not good:
            refused.setdefault(user, "a blocked pattern is in its text")
    origins = dict(zip(before.pool.seeds.user.tolist(), zip(*before.origin, strict=True), strict=True))
    for entry in entries:
        row = dense.get(entry.user_id)
        why = "" if row is None else _leak(entry, before.population, row, origins.get(row), left_out)
        if why:
            refused.setdefault(entry.user_id, why)
    return refused


def _leak(
    entry: FileRationale, population: Population, row: int, origin: tuple[int, int] | None, left_out: int
) -> str:
    """Why a line may show what is held out, or cannot be compared; "" if neither."""
    if not population.seen[row]:
        return "no training items, so users cannot be compared with this one"
    if entry.shown is None:
        hidden = int(population.held_out[row])
        told = f"held-out items were shown to its writer: {hidden} are held out, --held_out={left_out}"
        return told if hidden > left_out else ""
    # An exported line says what it was written from: what the store has now, or had when it was written.
    if tuple(entry.shown) in ((population.seen[row], population.history[row]), origin):
        return ""
    return (
        f"it was written from {entry.shown.items} interactions of this user, which are not the "
        f"{population.seen[row]} training interactions of this store: held-out items may have been shown"
    )


def _tell(request: ChangeRequest, before: Content | None, plan: NextVersion) -> bool:
    """Prints what a change affects, and returns whether it affects anything."""
    for problem in plan.problems[:_SHOWN]:
        print(visible(f"not used: {problem.user_id}: {problem.why}"))
    if len(plan.problems) > _SHOWN:
        print(f"not used: {len(plan.problems) - _SHOWN} more")
    found = difference(before, plan.after)
    counts = f"{len(found.removed)} removed, {len(found.added)} added, {len(found.changed)} changed"
    everybody = len((before or plan.after).population.user_ids)
    print(
        f"{request.action}: seed users: {counts}, {len(plan.after.pool.rationales)} in the pool; "
        f"{found.users} of {everybody} users affected"
    )
    return bool(found.users or found.removed or found.added or found.changed)


def _record(
    request: ChangeRequest, before: Content | None, plan: NextVersion, purging: bool
) -> dict[str, Any]:
    """What the audit log keeps: no external id, and no text that was searched for to remove it."""
    removals = read_removals(request.store.folder)
    hidden = {name: [removals.digest(text) for text in texts] for name, texts in plan.hidden.items() if texts}
    found = difference(before, plan.after)
    return {
        "who": request.who,
        "why": request.why,
        "action": request.action,
        "arguments": {**plan.arguments, **hidden},
        "seeds_removed": len(found.removed),
        "seeds_added": len(found.added),
        "seeds_changed": len(found.changed),
        "users_touched": found.users,
        "purging": purging,
    }


def _keep_ids_out_of(why: str, users: Sequence[str]) -> None:
    for user in users:
        if re.search(rf"(?<!\w){re.escape(user)}(?!\w)", why):
            raise RelandError(f"--why names user {user}: the audit log must not contain removed ids")


def _finish_purge(request: ChangeRequest, before: Content) -> None:
    """Ends a purge that was interrupted, or that could not be done; while locked."""
    store = request.store
    if not store.unfinished_purge():
        return
    try:
        with asking_stopped(store, 0):
            print("finishing an interrupted purge first")
            if not is_current_clean(store):
                purging = request._replace(action="purge")
                store.publish(before, _record(purging, before, NextVersion(before, {}), True))
            _print_purged(purge(store))
    except RelandError as error:
        print(f"an interrupted purge cannot be finished yet: {error}", file=sys.stderr)


def _purge(request: ChangeRequest) -> int:
    """Purges, says what, and returns the exit status: 1 if a journal was not found."""

    def waiting() -> None:
        print("waiting for a process that asks in this store to stop", file=sys.stderr)

    to_purge(request.store)  # what cannot be purged now is told before anybody is stopped
    with asking_stopped(request.store, request.wait, waiting), request.store.locked() as store:
        return _print_purged(purge(store))


def _print_purged(done: Purged) -> int:
    print(
        f"purged: {len(done.versions)} older versions, {sum(done.prompts.values())} prompts of the journal, "
        f"{len(done.files)} files of the batch provider"
    )
    for folder in done.foreign:
        print(f"{folder}: files that this program did not write are kept", file=sys.stderr)
    for path in done.missing:
        print(f"not purged: {not_purged(path)}", file=sys.stderr)
    return 1 if done.missing else 0


def _tell_purge(store: PoolStore, plan: NextVersion) -> None:
    """Says all that a purge would delete once the planned version is current."""
    removals = read_removals(store.folder).plus(users=plan.users, seeds=plan.seeds)
    would = to_purge(store, removals)
    versions = ", ".join(map(str, would.versions))
    print(f"purge: {len(would.versions)} versions would be deleted, all but the new one: {versions}")
    for path, prompts in would.prompts.items():
        print(f"purge: {prompts} prompts with all their answers would be deleted from {path}")
    for path in would.files:
        print(f"purge: {path} would be deleted")
    for path in would.missing:
        print(f"purge: {not_purged(path)}")


def seal(request: ChangeRequest) -> int:
    """Accepts the present audit log and lists of a store, after something was lost for good."""
    if not request.dry_run:
        request.store.seal({"who": request.who, "why": request.why})
    removals, patterns = lists_as_they_lie(request.store.folder)
    print(
        f"accepted: {len(removals.users | removals.seeds)} removed users, {len(patterns)} "
        "blocked patterns; the next build may restore users of a lost list"
    )
    if request.dry_run:
        print("dry run: nothing was changed")
    return 0
