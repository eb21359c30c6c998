"""How active users are: L1 to L4 by quartiles of what they did in training, and those it has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.events.contract import Events
from reland_jax.types import RelandError

NAMES = ("unseen", "L1", "L2", "L3", "L4")
"""Names of the values of `Levels.level`; L1 is the least active."""
_QUARTERS = (0.25, 0.5, 0.75)


class Levels(NamedTuple):
    """The level of every user.

    Attributes:
        level: ``<int8>[U]``, places in `NAMES`; 0 without an impression in training.
        activity: ``<int64>[U]``, labels that are 1 (clicks and conversions) in training.
        cuts: the largest activity of L1, L2 and L3.
    """

    level: np.ndarray
    activity: np.ndarray
    cuts: tuple[int, int, int]


def activity_levels(events: Events, rows: np.ndarray) -> Levels:
    """Levels by the quartiles over users with an impression in training; ties go down.

    Args:
        events: the log.
        rows: ``<int64>[n]``, training rows.

    Raises:
        RelandError: there are none.
    """
    return levels_of(*activity_of(events, rows))


def activity_of(events: Events, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are 1, and impressions, of every user in some rows, ``<int64>[U]`` each."""
    done = sum(events.labels[each.name][rows].astype(np.int64) for each in events.schema.labels)
    activity = np.bincount(events.user[rows], done, minlength=events.num_users).astype(np.int64)
    return activity, np.bincount(events.user[rows], minlength=events.num_users)


def levels_of(activity: np.ndarray, impressions: np.ndarray) -> Levels:
    """`activity_levels` by what `activity_of` counts.

    Raises:
        RelandError: no user has an impression.
    """
    seen = impressions > 0
    if not seen.any():
        raise RelandError("activity levels need training rows, and there are none")
    low, middle, high = np.quantile(activity[seen], _QUARTERS, method="lower").tolist()
    level = 1 + sum((activity > cut).astype(np.int8) for cut in (low, middle, high))
    return Levels(np.where(seen, level, 0).astype(np.int8), activity, (int(low), int(middle), int(high)))
