"""Which users a report shows in full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

CASES = 6
"""Users that a report shows in full."""

_MOST_COMPARED = 20_000
"""Of more ids the nearest to a wrong one is not looked for."""


def users_to_show(wanted: Sequence[str], users: np.ndarray) -> np.ndarray:
    """The users that were asked for, in the order in which they were.

    Args:
        wanted: external ids; one that is not a user's may be several with commas between them, as a command
            line writes them.
        users: ``<str>[U]``, external ids of all users.

    Returns:
        ``<int64>[n]``, distinct.

    Raises:
        RelandError: an id that is not a user's.
    """
    found: list[int] = []
    for written in wanted:
        whole = _row(users, written)
        found += [whole] if whole is not None else [_known(users, one.strip()) for one in written.split(",")]
    return np.array(list(dict.fromkeys(found)), np.int64)


def cases_to_show(wanted: Sequence[str], users: np.ndarray, tested: np.ndarray, count: int) -> np.ndarray:
    """Users to show: all that were asked for, then users drawn at random who have a test target.

    They are drawn without looking at any recommendation, so that the page shows no selected successes.

    Args:
        wanted: see `users_to_show`.
        users: ``<str>[U]``, external ids of all users.
        tested: ``<int>[n]``, users with a test target.
        count: how many; more only if more were asked for.

    Returns:
        ``<int64>[n]``, distinct.

    Raises:
        RelandError: an id that is not a user's.
    """
    first = users_to_show(wanted, users)
    drawn = np.random.default_rng(0).permutation(tested)
    drawn = drawn[~np.isin(drawn, first)]
    return np.concatenate([first, drawn[: max(count - len(first), 0)]])


def _known(users: np.ndarray, wanted: str) -> int:
    row = _row(users, wanted)
    if row is None:
        near = nearest_name(wanted, users.tolist()) if len(users) <= _MOST_COMPARED else ""
        hint = f"; {near}" if near.startswith("did you mean") else ""
        raise RelandError(
            f"config.report_users: {wanted!r} is not one of the {len(users):,} users that are left after "
            f"filtering{hint}"
        )
    return row


def _row(users: np.ndarray, wanted: str) -> int | None:
    rows = np.flatnonzero(users == wanted)
    return int(rows[0]) if len(rows) else None
