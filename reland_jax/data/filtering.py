"""Which interactions stay: the rating threshold, exact duplicates and the k-core."""

from __future__ import annotations

import numpy as np


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
        time: ``<float64>[n]``, or None where there are no times (then user and item decide).

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
