"""Looking at a pool store: versions, seed users, differences, figures, faults, and a copy as a file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reland_jax.files import write_text
from reland_jax.pool.reading.parser import parse_response
from reland_jax.pool_store import (
    Content,
    PoolStore,
    dense_users,
    difference,
    edits,
    read_log,
    read_record,
    read_version,
    verify,
)
from reland_jax.strings import as_strings, visible
from reland_jax.types import HOW_NAMES, Rationale, RelandError


def show(store: PoolStore, number: int | None, users: Sequence[str], limit: int) -> int:
    """Prints what users get, or the versions and the seed users who stand for the most users."""
    content = read_version(store, number)
    if users:
        for user in users:
            _show_user(content, user)
        return 0
    _show_versions(store)
    _show_seeds(content, limit)
    return 0


def show_stats(store: PoolStore, number: int | None) -> int:
    """Prints the figures of a version as JSON."""
    content = read_version(store, number)
    print(json.dumps(edits.stats(content.pool, content.assignment), indent=1, ensure_ascii=False))
    return 0


def show_difference(store: PoolStore, limit: int, first: str, second: str) -> int:
    """Prints what is different between two versions: how many seed users, and the texts of the first."""
    a, b = (read_version(store, _number(text)) for text in (first, second))
    found, before, after = difference(a, b), _texts(a), _texts(b)
    for name, users in (("removed", found.removed), ("added", found.added), ("changed", found.changed)):
        print(f"seed users {name}: {len(users)}")
        for user in users[:limit]:
            print(visible(f"  {user}"))
            _print_steps("-", before.get(user), after.get(user))
            _print_steps("+", after.get(user), before.get(user))
        if len(users) > limit:
            print(f"  ... {len(users) - limit} more; see --limit")
    print(f"users affected: {found.users}")
    return 0


def export(store: PoolStore, number: int | None, file: str, overwrite: bool) -> int:
    """Writes a version as a pool file, which provider "file" and `add` read; only its owner may read it."""
    content, path = read_version(store, number), Path(file)
    if path.exists() and not overwrite:
        raise RelandError(
            f"--file={file}: it exists already; name another file, or replace it with --overwrite"
        )
    seeds, origin = content.pool.seeds, content.origin
    rows = zip(seeds.how.tolist(), seeds.cluster.tolist(), zip(*origin, strict=True), strict=True)
    lines = [
        json.dumps(_line(user, rationale, *row), ensure_ascii=False)
        for (user, rationale), row in zip(_texts(content).items(), rows, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n", private=True)
    print(f"{len(lines)} rationales: {path}")
    return 0


def show_problems(store: PoolStore) -> int:
    """Prints everything that is wrong with a store; the exit status is 1 if anything is."""
    problems = verify(store)
    if not problems and not read_log(store.folder).chained:
        print("made by an earlier version of this program; the next change upgrades the audit log")
    for problem in problems:
        print(problem)
    if not problems:
        count = len(store.numbers())
        said = f"{count} version{'s' if count > 1 else ''}, version {store.current()} is current"
        print(f"{said}: no faults found")
    return int(bool(problems))


def _texts(content: Content) -> dict[str, Rationale]:
    """External id -> rationale of every seed user, in the order of the pool."""
    ids = as_strings(content.population.user_ids)[content.pool.seeds.user].tolist()
    return dict(zip(ids, content.pool.rationales, strict=True))


def _print_steps(sign: str, rationale: Rationale | None, other: Rationale | None) -> None:
    """Prints the steps of a rationale in which it differs from another one."""
    for name in ("step1", "step2"):
        text = getattr(rationale, name, None)
        if text is not None and text != getattr(other, name, None):
            print(visible(f"    {sign} {name}: {text}"))


def _line(
    user: str, rationale: Rationale, how: int, cluster: int, origin: tuple[int, int]
) -> dict[str, object]:
    line: dict[str, object] = {"user_id": user, "sampled_by": HOW_NAMES[how]}
    if cluster >= 0:
        line["cluster"] = cluster
    seen, code = origin
    line |= {"shown": int(seen), "shown_code": f"{int(code):016x}"}
    # A raw answer is read before the steps, so it is written only where it gives the same ones.
    parsed = parse_response(rationale.response)
    same = (parsed.step1, parsed.step2) == (rationale.step1, rationale.step2)
    return line | {name: value for name, value in rationale._asdict().items() if name != "response" or same}


def _number(text: str) -> int:
    if not text.isdecimal():
        raise RelandError(f"diff: {text!r} is not the number of a version")
    return int(text)


def _show_versions(store: PoolStore) -> None:
    current = store.current()
    on_disk = set(store.numbers())
    for record in store.audit():
        number = record["version"]
        state = "current" if number == current else "" if number in on_disk else "deleted"
        counts = ", ".join(f"{record[f'seeds_{what}']} {what}" for what in ("removed", "added", "changed"))
        touched = f"seed users: {counts}; {record['users_touched']} users affected"
        print(f"{number:06d} {state:8}{record['when']} {record['action']} by {record['who']}: {touched}")
        print(f"                {record['why']}")
    if current is not None and current in on_disk:
        settings = read_record(store.path_of())["settings"]
        print(f"built from {settings['provenance'].get('data')}, protocol {settings['protocol']}")


def _show_seeds(content: Content, limit: int) -> None:
    users = edits.represented(content.pool, content.assignment)
    ids = as_strings(content.population.user_ids)[content.pool.seeds.user].tolist()
    print(f"{len(ids)} seed users for {len(content.population.user_ids)} users; those for the most users:")
    for row in np.argsort(-users, kind="stable")[:limit].tolist():
        how = HOW_NAMES[int(content.pool.seeds.how[row])]
        said = visible(textwrap.shorten(content.pool.rationales[row].step1, 100, placeholder=" ..."))
        print(f"  {visible(ids[row])} ({how}, {users[row]} users): {said}")


def _show_user(content: Content, user: str) -> None:
    (row,) = dense_users(content.population, [user])
    ids = as_strings(content.population.user_ids)[content.pool.seeds.user]
    print(f"user {visible(user)}, {content.population.seen[row]} training interactions")
    for seed, cosine in zip(content.assignment.seed[row], content.assignment.cosine[row], strict=True):
        rationale = content.pool.rationales[seed]
        when = rationale.created or "no time"
        print(visible(f"seed user {ids[seed]}, cosine {cosine:.3f}, {rationale.model}, {when}"))
        print(visible(f"  step 1: {rationale.step1}\n  step 2: {rationale.step2}"))
