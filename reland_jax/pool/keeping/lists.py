"""What a pool store remembers against: removed users, and blocked patterns.

Both outlive every version, so that no later build, refresh or addition brings back what was taken out.
The removal list holds no external id: only a hash of each with a salt of the store. Who has the store
can test whether an id is on the list, which is what the list is for, but cannot read ids from it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.pool.keeping.durable import write_durably
from reland_jax.types import Rationale, RelandError

REMOVALS_FILE = "removed.json"
PATTERNS_FILE = "blocked.json"
LIST_VERSION = 1


class Removals(NamedTuple):
    """Who must not come back.

    Attributes:
        salt: hexadecimal, drawn when the list is first written.
        users: hashes of users who left: they are in no pool, no assignment and no population.
        seeds: hashes of users who are served but are not to be seed users again.
    """

    salt: str
    users: frozenset[str]
    seeds: frozenset[str]

    def digest(self, user_id: str) -> str:
        """Salted hash of an external id, hexadecimal."""
        return hmac.new(bytes.fromhex(self.salt), user_id.encode("utf-8"), hashlib.sha256).hexdigest()

    def left(self, user_ids: Iterable[str]) -> np.ndarray:
        """Which of the users left, ``<bool>[n]``."""
        return np.asarray([bool(self.users) and self.digest(str(u)) in self.users for u in user_ids], bool)

    def barred(self, user_ids: Iterable[str]) -> np.ndarray:
        """Which of the users may not be seed users, ``<bool>[n]``; those who left are among them."""
        both = self.users | self.seeds
        return np.asarray([bool(both) and self.digest(str(u)) in both for u in user_ids], bool)

    def plus(self, *, users: Iterable[str] = (), seeds: Iterable[str] = ()) -> Removals:
        """The list with more external ids on it."""
        more_users = {self.digest(str(user)) for user in users}
        more_seeds = {self.digest(str(user)) for user in seeds}
        return Removals(self.salt, self.users | more_users, self.seeds | more_seeds)

    def minus(self, users: Iterable[str]) -> Removals:
        """The list without some external ids, in whichever way they were on it."""
        gone = {self.digest(str(user)) for user in users}
        return Removals(self.salt, self.users - gone, self.seeds - gone)


def read_removals(folder: Path) -> Removals:
    """The removal list of a store, empty with a new salt where there is none yet.

    Raises:
        RelandError: the file is damaged or of a newer format.
    """
    values = _read(folder / REMOVALS_FILE)
    if values is None:
        return Removals(secrets.token_hex(16), frozenset(), frozenset())
    try:
        return Removals(str(values["salt"]), frozenset(values["users"]), frozenset(values["seeds"]))
    except (KeyError, TypeError) as error:
        raise RelandError(f"{folder / REMOVALS_FILE}: lacks {error}; restore it from a copy") from error


def write_removals(folder: Path, removals: Removals) -> None:
    """Replaces the removal list on disk."""
    values = {"salt": removals.salt, "users": sorted(removals.users), "seeds": sorted(removals.seeds)}
    _write(folder / REMOVALS_FILE, values)


def read_patterns(folder: Path) -> tuple[str, ...]:
    """The blocked patterns of a store, in the order in which they were blocked.

    Raises:
        RelandError: the file is damaged or of a newer format.
    """
    values = _read(folder / PATTERNS_FILE)
    if values is None:
        return ()
    patterns = values.get("patterns")
    if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
        raise RelandError(f"{folder / PATTERNS_FILE}: lacks its patterns; restore it from a copy")
    return tuple(patterns)


def write_patterns(folder: Path, patterns: Sequence[str]) -> None:
    """Replaces the moderation list on disk."""
    _write(folder / PATTERNS_FILE, {"patterns": list(patterns)})


def compiled(pattern: str, flag: str = "--pattern") -> re.Pattern[str]:
    """A pattern as it is searched for: upper and lower case are the same.

    Raises:
        RelandError: not a regular expression, or one that finds the empty text and so everything.
    """
    try:
        expression = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise RelandError(f"{flag}={pattern!r} is not a regular expression: {error}") from error
    if expression.search(""):
        raise RelandError(f"{flag}={pattern!r} finds the empty text, and so would every rationale")
    return expression


def matches(rationale: Rationale, expressions: Iterable[re.Pattern[str]]) -> bool:
    """Whether any expression is found in step 1, step 2 or the raw answer."""
    texts = (rationale.step1, rationale.step2, rationale.response)
    return any(expression.search(text) for expression in expressions for text in texts)


def allowed(
    rationales: Sequence[Rationale], user_ids: Sequence[str], removals: Removals, patterns: Iterable[str]
) -> np.ndarray:
    """Which seed users are on no list, and their texts neither: ``<bool>[S]``.

    Args:
        rationales: ``S`` rationales.
        user_ids: external id of the seed user of each.
        removals: the removal list.
        patterns: the moderation list.
    """
    expressions = [compiled(pattern) for pattern in patterns]
    blocked = np.asarray([matches(each, expressions) for each in rationales], bool)
    return ~(removals.barred(user_ids) | blocked)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        # Going on without the list would bring back what it keeps out.
        raise RelandError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != LIST_VERSION:
        raise RelandError(
            f"{path}: format version {version!r}, this program reads {LIST_VERSION}; "
            "update the program, or restore the file from a copy"
        )
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps({"format_version": LIST_VERSION, **values}, indent=1, ensure_ascii=False)
    write_durably(path, text.encode("utf-8"))
