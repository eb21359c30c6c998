"""HR, NDCG and MRR at K from the ranks of the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reland_jax.types import RelandError, TargetRanks

METRICS = ("hr", "ndcg", "mrr")


def per_user_metrics(ranks: TargetRanks, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Metrics of every user that has a target, in the order of ``np.unique(ranks.user)``.

    ``hr@K`` is 1 if any target is among the first K. ``ndcg@K`` is the discounted gain of the targets
    found, over that of a perfect list; targets that the user has had before do not compete with each
    other, so each of them can be first. ``mrr@K`` is the reciprocal place of the first target found, else 0.

    Args:
        ranks: ranks from 0; a user may have several targets, all distinct.
        cutoffs: values of K, each at least 1.

    Returns:
        "hr@K", "ndcg@K" and "mrr@K" -> ``<float64>[users with a target]`` in [0, 1].

    Raises:
        RelandError: a rank is negative, which only a score that is not a number can cause.
    """
    if len(ranks.rank) and ranks.rank.min() < 0:
        raise RelandError(f"target {int(np.argmin(ranks.rank))} has a negative rank: its score is NaN")
    _, index, count = np.unique(ranks.user, return_inverse=True, return_counts=True)
    place = ranks.rank.astype(np.float64) + 1
    first = np.full(len(count), np.inf)
    np.minimum.at(first, index, place)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(max(max(cutoffs), 1)) + 2))])
    again = 0 if ranks.had_before is None else np.bincount(index, ranks.had_before)
    count = count - np.asarray(again, np.int64)
    metrics = {}
    for k in cutoffs:
        gain = np.where(place <= k, 1 / np.log2(place + 1), 0.0)
        metrics[f"hr@{k}"] = (first <= k).astype(np.float64)
        metrics[f"ndcg@{k}"] = np.bincount(index, gain) / (ideal[np.minimum(count, k)] + again)
        metrics[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0.0)
    return metrics


def mean_metrics(per_user: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over users of every metric, as plain floats."""
    return {name: float(values.mean()) for name, values in per_user.items()}
