"""Is one ranker better than another on the same rows? A bootstrap over users, paired between the two.

Rows of one user are not independent, so users are drawn, each with all rows. Both arms see the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.eval.significance import Comparison
from reland_jax.events.metrics import checked, grouped_auc, ordered, ordered_auc, row_losses
from reland_jax.types import RelandError

AUC, LOGLOSS, GAUC_WEIGHTED, GAUC_MEAN = "auc", "logloss", "gauc_weighted", "gauc_mean"
METRICS = (AUC, LOGLOSS, GAUC_WEIGHTED, GAUC_MEAN)

_Statistic = Callable[[np.ndarray], float | None]
"""A metric where each user counts as often as ``<float64>[U]`` says; None where it is not defined."""


def compare(
    metric: str,
    user: np.ndarray,
    label: np.ndarray,
    ours: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares two arms on the same rows: ours minus baseline, each the mean over its training seeds.

    The interval is the 2.5 and 97.5 percentile over draws of users with replacement. The p-value is the
    share of draws whose difference is as far from the measured one as that is from 0.

    Args:
        metric: one of `METRICS`; of a logloss, less is better.
        user: ``<int>[n]``.
        label: ``<int>[n]`` of 0 and 1.
        ours: probabilities ``<float>[n]``, one array for each training seed.
        baseline: the same of the other arm.
        draws: of as many users as there are, at least 1.
        seed: of the draws.

    Returns:
        What `eval.significance.corrected` takes for Holm's correction over a table.

    Raises:
        RelandError: an unknown metric, no predictions, other than one per row, or a metric that is not
            defined, as where all rows are of one class.
    """
    if not ours or not baseline:
        raise RelandError(f"both arms ({len(ours)} and {len(baseline)} training seeds) need predictions")
    given = {"draws": draws, "seed": seed}
    return compared(*(drawn(metric, user, label, arm, **given) for arm in (ours, baseline)))


class Drawn(NamedTuple):
    """A metric of one arm, the mean over its training seeds.

    Attributes:
        whole: on the rows as they are.
        draws: ``<float64>[draws]``, on each draw of users; NaN where it is not defined.
    """

    whole: float
    draws: np.ndarray


def drawn(
    metric: str,
    user: np.ndarray,
    label: np.ndarray,
    arm: Sequence[np.ndarray],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Drawn:
    """The half of `compare` that is of one arm: with equal draws and seed, arms are paired.

    Args:
        metric: see `compare`, as all that follows.
        user: ``<int>[n]``.
        label: ``<int>[n]``.
        arm: probabilities ``<float>[n]``, one array for each training seed.
        draws: at least 1.
        seed: of the draws.

    Raises:
        RelandError: see `compare`.
    """
    if metric not in METRICS or draws < 1:
        known = ", ".join(METRICS)
        raise RelandError(f"metric={metric!r} must be one of {known}, and draws={draws} at least 1")
    group = np.unique(user, return_inverse=True)[1]
    users = int(group.max(initial=-1)) + 1
    of = _mean([_statistic(metric, group, label, each) for each in arm])
    whole = of(np.ones(users))
    if whole is None:
        raise RelandError(f"{metric} of {len(label):,} rows is not defined: they need both classes")
    rng = np.random.default_rng(seed)
    counts = (np.bincount(rng.integers(users, size=users), minlength=users) * 1.0 for _ in range(draws))
    found = [np.nan if (value := of(each)) is None else value for each in counts]
    return Drawn(whole, np.array(found))


def averaged(seeds: Sequence[Drawn]) -> Drawn:
    """The mean over training seeds of what was drawn alike, at least one; NaN in a draw where one is."""
    return Drawn(
        float(np.mean([each.whole for each in seeds])), np.mean([each.draws for each in seeds], axis=0)
    )


def compared(ours: Drawn, baseline: Drawn) -> Comparison:
    """Ours minus baseline, from arms drawn alike; see `compare`.

    Raises:
        RelandError: the metric is not defined in most draws.
    """
    return _comparison(ours.whole, baseline.whole, ours.draws - baseline.draws)


def _comparison(ours: float, baseline: float, drawn: np.ndarray) -> Comparison:
    """The result, from the differences ``<float64>[draws]``, NaN where one is not defined."""
    defined = drawn[~np.isnan(drawn)]
    if 2 * len(defined) < len(drawn):
        raise RelandError(
            f"the metric is not defined in {len(drawn) - len(defined):,} of {len(drawn):,} draws of users: "
            "too few users have a row of each class"
        )
    difference = ours - baseline
    low, high = np.quantile(defined, [0.025, 0.975])
    as_far = np.abs(defined - difference) >= abs(difference) - 1e-15
    return Comparison(
        mean_ours=ours, mean_baseline=baseline, difference=difference,
        relative=difference / baseline if baseline else None,
        p_value=float((1 + as_far.sum()) / (1 + len(defined))), low=float(low), high=float(high),
    )  # fmt: skip


def _mean(statistics: Sequence[_Statistic]) -> _Statistic:
    """The mean of a metric over training seeds."""

    def of(counts: np.ndarray) -> float | None:
        found = [each(counts) for each in statistics]
        said = [each for each in found if each is not None]
        return float(np.mean(said)) if len(said) == len(found) else None

    return of


def _statistic(metric: str, group: np.ndarray, label: np.ndarray, score: np.ndarray) -> _Statistic:
    """A metric of one training seed, as a function of how often each user counts."""
    label, score = checked(label, score)
    if group.shape != label.shape:
        raise RelandError(f"{len(group):,} users for {len(label):,} rows; one each is needed")
    users = int(group.max(initial=-1)) + 1
    if metric == AUC:
        found = ordered(label, score)
        positive, negative = group[found.positive], group[found.negative]
        return lambda counts: ordered_auc(found, counts[positive], counts[negative])
    if metric == LOGLOSS:
        losses = np.bincount(group, row_losses(label, score), minlength=users)
        return _ratio(losses, np.bincount(group, minlength=users))
    grouped = grouped_auc(group, label, score)
    weight = np.zeros(users)
    weight[grouped.user] = grouped.impressions if metric == GAUC_WEIGHTED else 1
    won = np.zeros(users)
    won[grouped.user] = grouped.auc * weight[grouped.user]
    return _ratio(won, weight)


def _ratio(above: np.ndarray, below: np.ndarray) -> _Statistic:
    """A ratio of two sums over users."""

    def of(counts: np.ndarray) -> float | None:
        total = float(counts @ below)
        return float(counts @ above) / total if total else None

    return of
