"""Filters of interactions: rating threshold, repeated rows and k-core, with counts of removed rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources.raw import RawTable
from reland_jax.types import RelandError


class Kept(NamedTuple):
    """The rows that the filters left.

    Attributes:
        rows: ``<int64>[m]``, increasing row numbers.
        dropped: why rows were taken away, in words, and how many, in the order of the filters; filters that
            took none too.
    """

    rows: np.ndarray
    dropped: tuple[tuple[str, int], ...]


def kept_rows(raw: RawTable, config: DataConfig) -> Kept:
    """Applies `min_rating`, `repeats` and `min_interactions`, in this order.

    Raises:
        RelandError: no row is left; what each filter took is said.
    """
    rows = np.arange(len(raw.user.code))
    dropped: list[tuple[str, int]] = []

    def keep(left: np.ndarray, why: str) -> None:
        nonlocal rows
        dropped.append((why, len(rows) - len(left)))
        rows = left

    if config.min_rating is not None and raw.rating is not None:
        keep(rows[~np.isnan(raw.rating[rows])], "without a rating")
        keep(rows[raw.rating[rows] >= config.min_rating], f"rated below {config.min_rating:g}")
    if config.repeats == "drop" or (config.repeats == "auto" and raw.time is not None):
        time = None if raw.time is None else raw.time[rows]
        unique = first_of_duplicates(raw.user.code[rows], raw.item.code[rows], time)
        keep(rows[unique], "repeated rows: same user, item" + (" and time" if raw.time is not None else ""))
    core = k_core(raw.user.code[rows], raw.item.code[rows], config.min_interactions)
    if config.min_interactions > 1:
        keep(rows[core], f"outside of the {config.min_interactions}-core: users or items with fewer rows")
    if not len(rows):
        raise _nothing_left(raw, config, dropped)
    return Kept(rows, tuple(dropped))


def _nothing_left(raw: RawTable, config: DataConfig, dropped: list[tuple[str, int]]) -> RelandError:
    """The error where no row is left: what each filter took, and which of them can be changed."""
    if not len(raw.user.code):
        return RelandError(f"{raw.where}: no interaction is left of 0, it holds no rows")
    took = "; ".join(f"{count:,} {why}" for why, count in dropped if count)
    ways = [f"config.data.min_interactions={config.min_interactions}"] if config.min_interactions > 1 else []
    ways += [f"config.data.min_rating={config.min_rating}"] if config.min_rating is not None else []
    return RelandError(
        f"{raw.where}: no interaction is left of {len(raw.user.code)} after filtering ({took}); "
        f"lower {' or '.join(ways)}"
    )


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Rows of the largest subset in which every user and every item has at least `k` rows.

    Users and items below `k` are removed in turn until nothing changes; the result does not depend
    on the order of removal (paper, section 4.1: k = 5).

    Args:
        user: ``<int>[n]``, codes from 0.
        item: ``<int>[n]``, codes from 0.
        k: rows that every user and item must have; 0 or 1 keeps all.

    Returns:
        ``<int64>[m]``, increasing row numbers; may be empty.
    """
    rows = np.arange(len(user))
    while k > 1 and len(rows):
        users, items = user[rows], item[rows]
        keep = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if keep.all():
            break
        rows = rows[keep]
    return rows


def first_of_duplicates(user: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """Rows left after all but the first of rows with the same user, item and time are dropped.

    The same item at another time is a repeated interaction, which is data, and stays.

    Args:
        user: ``<int>[n]``, codes from 0.
        item: ``<int>[n]``, codes from 0.
        time: ``[n]`` numbers, or None to go by user and item alone.

    Returns:
        ``<int64>[m]``, increasing row numbers.
    """
    if not len(user):
        return np.arange(0)
    pair = user.astype(np.int64) * (int(item.max()) + 1) + item
    order = np.argsort(pair, kind="stable") if time is None else np.lexsort((time, pair))
    same = pair[order][1:] == pair[order][:-1]
    if time is not None:
        same &= time[order][1:] == time[order][:-1]
    return np.sort(order[np.concatenate(([True], ~same))])
