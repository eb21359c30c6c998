"""Lifts of one group of users over another, with intervals by the delta method.

What is compared is a ratio of sums, such as clicks by impressions. Impressions of one user are not
independent, so users are the units: the variance is that of sums over users (Kish's linearisation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from reland_jax.types import RelandError

Z95 = 1.959963984540054
"""Half the width of a 95% interval of a normal variable, in standard deviations."""

CTR, CVR = "ctr", "cvr"
METRICS = (CTR, CVR)
"""Clicks by impressions, and conversions by clicks."""


class Counts(NamedTuple):
    """What users were shown and did, per user and day; expected numbers need not be whole.

    Attributes:
        impressions: ``<float64>[U, days]``.
        clicks: ``<float64>[U, days]``.
        conversions: ``<float64>[U, days]``.
    """

    impressions: np.ndarray
    clicks: np.ndarray
    conversions: np.ndarray

    def of(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator of one of `METRICS`.

        Raises:
            RelandError: another metric.
        """
        if metric not in METRICS:
            raise RelandError(f"metric={metric!r} must be one of {', '.join(METRICS)}")
        return (self.clicks, self.impressions) if metric == CTR else (self.conversions, self.clicks)


class Ratio(NamedTuple):
    """A ratio of two sums over users.

    Attributes:
        value: the ratio.
        variance: of the ratio, over draws of users.
        users: N.
        below: the sum of the denominators.
    """

    value: float
    variance: float
    users: int
    below: float


class Lift(NamedTuple):
    """How much larger one ratio is than another.

    Attributes:
        metric: one of `METRICS`.
        segment: "all", "day N" or the name of a level.
        treated: the ratio of the treated users.
        control: that of the others.
        lift: treated by control, less 1.
        low: lower end of the 95% interval of the lift.
        high: its upper end.
    """

    metric: str
    segment: str
    treated: Ratio
    control: Ratio
    lift: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.low <= 0.0 <= self.high


def ratio(above: np.ndarray, below: np.ndarray) -> Ratio | None:
    """A ratio of sums over users, ``sum(above) / sum(below)``; None where fewer than two users count.

    Args:
        above: ``<float64>[N]``, numerator of every user, such as clicks.
        below: ``<float64>[N]``, denominator, such as impressions; users with 0 are no units.
    """
    counts = below > 0
    above, below = above[counts].astype(np.float64), below[counts].astype(np.float64)
    if (users := len(below)) < 2:
        return None
    value = above.sum() / below.sum()
    # s_c^2 - 2 R s_cn + R^2 s_n^2 is the variance of c - R n, whose mean is 0.
    spread = ((above - value * below) ** 2).sum() / (users - 1)
    return Ratio(float(value), float(spread / (users * below.mean() ** 2)), users, float(below.sum()))


def lift_of(metric: str, segment: str, treated: Ratio | None, control: Ratio | None) -> Lift | None:
    """The lift of one ratio over another; None where it is not defined.

    Args:
        metric: its name.
        segment: its name.
        treated: of users that are not those of `control`.
        control: the baseline; a ratio of 0 has no lift over it.
    """
    if treated is None or control is None or not control.value:
        return None
    relative = treated.value / control.value
    variance = treated.variance / control.value**2 + relative**2 * control.variance / control.value**2
    half = Z95 * float(np.sqrt(variance))
    return Lift(metric, segment, treated, control, relative - 1, relative - 1 - half, relative - 1 + half)


def lifts(
    treated: Counts,
    control: Counts,
    arms: tuple[np.ndarray, np.ndarray],
    levels: Mapping[str, np.ndarray] | None = None,
) -> list[Lift]:
    """Lifts over all days, of every day, and of every level of users.

    Args:
        treated: what all users did, or would do, under the treatment.
        control: the same under the baseline.
        arms: ``<bool>[U]`` each, the users that are treated and those of the baseline.
        levels: name -> ``<bool>[U]``.

    Returns:
        By metric and segment; those that are not defined are left out.
    """
    days, everyone = treated.clicks.shape[1], np.ones(len(arms[0]), bool)
    cells = [("all", everyone, slice(None))]
    cells += [(f"day {day + 1}", everyone, slice(day, day + 1)) for day in range(days)]
    cells += [(name, users, slice(None)) for name, users in (levels or {}).items()]
    found = []
    for metric in METRICS:
        sides = [side.of(metric) for side in (treated, control)]
        for name, users, span in cells:
            ratios = (
                ratio(*(each[arm & users, span].sum(1) for each in side))
                for side, arm in zip(sides, arms, strict=True)
            )
            found.append(lift_of(metric, name, *ratios))
    return [each for each in found if each is not None]


def total_lift(treated: Counts, control: Counts, metric: str, users: np.ndarray | None = None) -> float:
    """The lift if the same users were treated and not; with expected counts, the true one.

    Args:
        treated: of all users under the treatment.
        control: of all users under the baseline.
        metric: one of `METRICS`.
        users: ``<bool>[U]``, those that count; all where None.
    """
    mask = slice(None) if users is None else users
    values = [
        above[mask].sum() / below[mask].sum() for above, below in (treated.of(metric), control.of(metric))
    ]
    return float(values[0] / values[1] - 1)
