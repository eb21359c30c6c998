"""Is one model better than another? Paired tests over users, and Holm's correction (see docs/method.md).

The unit is the user: a user's metric is first averaged over the training seeds, then ours and the
baseline's are compared user by user. Every difference is *ours minus baseline*, so a positive one
means that ours is better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from reland_jax.types import RelandError

LEVEL = 0.05
"""A difference is called significant when its p-value after Holm is below this."""

_DRAWS_AT_A_TIME = 1 << 22


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours against a baseline, over the same users.

    Attributes:
        mean_ours: mean of our metric over users.
        mean_baseline: mean of the baseline's metric over the same users.
        difference: ``mean_ours - mean_baseline``; positive means that ours is better.
        relative: ``difference / mean_baseline``, None where the baseline's mean is 0.
        p_value: of the two-sided paired t test over users, in [0, 1], before any correction.
        low: lower end of the 95% percentile bootstrap interval of `difference`.
        high: upper end of that interval.
    """

    mean_ours: float
    mean_baseline: float
    difference: float
    relative: float | None
    p_value: float
    low: float
    high: float


def paired_comparison(
    ours: np.ndarray, baseline: np.ndarray, *, bootstrap: int = 2000, seed: int = 0
) -> Comparison:
    """Compares two models over the same users: ours minus baseline.

    The p-value is that of a two-sided paired t test over users. Where the difference is the same for
    every user there is no variance to test against, and the p-value is 1. The interval is the 2.5 and
    97.5 percentile of the mean difference over users drawn with replacement.

    Args:
        ours: ``<float64>[U]``, our metric per user, averaged over training seeds.
        baseline: ``<float64>[U]``, the baseline's, with the users in the same order.
        bootstrap: number of draws of U users, at least 1.
        seed: seed of those draws.

    Returns:
        The means, their difference, its p-value and interval. ``difference > 0`` means ours is better.

    Raises:
        RelandError: the two differ in shape, there are fewer than two users, a value is not finite, or
            `bootstrap` is below 1.
    """
    ours, baseline = _checked_pair(ours, baseline)
    if bootstrap < 1:
        raise RelandError(f"bootstrap={bootstrap} must be at least 1")
    difference = ours - baseline
    means = _bootstrap_means(difference, bootstrap, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    mean_ours, mean_baseline = float(ours.mean()), float(baseline.mean())
    return Comparison(
        mean_ours=mean_ours,
        mean_baseline=mean_baseline,
        difference=mean_ours - mean_baseline,
        relative=(mean_ours - mean_baseline) / mean_baseline if mean_baseline else None,
        p_value=_paired_t_test(difference),
        low=float(low),
        high=float(high),
    )


@dataclasses.dataclass(frozen=True)
class Corrected(Comparison):
    """A comparison among others.

    Attributes:
        p_holm: its p-value after Holm's correction over all of them.
    """

    p_holm: float

    @property
    def is_gain(self) -> bool:
        """Whether ours is better with significance."""
        return is_gain(self.difference, self.p_holm)


def corrected(comparisons: Sequence[Comparison]) -> list[Corrected]:
    """The comparisons, with Holm's correction over all of them."""
    adjusted = holm([one.p_value for one in comparisons]).tolist()
    return [Corrected(**vars(one), p_holm=p) for one, p in zip(comparisons, adjusted, strict=True)]


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction for testing several hypotheses at once.

    The i-th smallest of m p-values (i from 0) is multiplied by ``m - i``; each result is at least as
    large as those of smaller p-values, and at most 1.

    Args:
        p_values: ``<float64>[m]`` in [0, 1], in any order; may be empty.

    Returns:
        Adjusted p-values, ``<float64>[m]``, in the order given.

    Raises:
        RelandError: a value is NaN or outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise RelandError(f"p-value {int(wrong[0])} is {values[wrong[0]]}: it must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted


def is_gain(difference: float, adjusted: float) -> bool:
    """Whether a difference with this p-value after Holm is a gain, and a significant one."""
    return difference > 0 and adjusted < LEVEL


def stars(adjusted: float) -> str:
    """The mark of a p-value after Holm: an asterisk below 0.05, else the empty string."""
    return "*" if adjusted < LEVEL else ""


def _checked_pair(ours: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ours, baseline = np.asarray(ours, np.float64), np.asarray(baseline, np.float64)
    if ours.ndim != 1 or ours.shape != baseline.shape:
        raise RelandError(
            f"ours has shape {ours.shape} and baseline {baseline.shape}: a paired comparison needs one "
            "value per user, for the same users, in both"
        )
    if len(ours) < 2:
        raise RelandError(f"a paired comparison needs at least 2 users, not {len(ours)}")
    for name, values in (("ours", ours), ("baseline", baseline)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise RelandError(
                f"{name}[{int(wrong[0])}] is {values[wrong[0]]} ({len(wrong)} such users): leave out users "
                "without a target, and look for NaN scores"
            )
    return ours, baseline


def _paired_t_test(difference: np.ndarray) -> float:
    # Subtracting leaves rounding noise of this size on differences that are equal on paper.
    if np.ptp(difference) <= 1e-12 * max(1.0, float(np.abs(difference).max())):
        return 1.0
    from scipy import stats

    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def _bootstrap_means(difference: np.ndarray, bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Mean difference of `bootstrap` draws of U users, ``<float64>[bootstrap]``, in bounded memory."""
    users = len(difference)
    rows = max(1, _DRAWS_AT_A_TIME // users)
    chunks = [
        difference[rng.integers(users, size=(min(rows, bootstrap - start), users), dtype=np.int32)].mean(1)
        for start in range(0, bootstrap, rows)
    ]
    return np.concatenate(chunks)
