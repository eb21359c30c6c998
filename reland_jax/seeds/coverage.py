"""How many seed users are worth their cost: coverage of the user base against the price of asking.

The paper leaves the number of seed users to "careful tuning" of a trained system (sections 4.3.2 and 6).
Coverage is known before an LLM is asked: the mean over users of the cosine to the nearest seed user, which
is what Eq. 3 maximises. One more seed user raises it in two ways: it gets its own rationale, a gain of one
minus its former cosine, and similar users get a nearer seed user. Only the second is due to retrieval; the
first is what asking about every user would bring as well.

Letters as in `reland_jax.types`; F is the number of sizes of a seed set on one curve, in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

SMALL_SHARE = 0.1
"""Rule "share": the part of its value at the smallest size below which a marginal gain is too small."""

_POINTS = 1000


class Coverage(NamedTuple):
    """What one seed set covers.

    Attributes:
        covered: mean cosine of all users to their nearest seed user, in [-1, 1]; a seed user has 1.
        bought: share of the user mass that the seed users themselves are, in (0, 1].
        others: mean cosine of the users who are not seed users, NaN if there are none.
    """

    covered: float
    bought: float
    others: float


class Curve(NamedTuple):
    """Coverage for growing seed sets.

    Attributes:
        seeds: ``<float64>[F]``, strictly ascending, at least 1.
        cost: ``<float64>[F]``, what asking costs (tokens), strictly ascending, above 0.
        covered: ``<float64>[F]``, see `Coverage`.
        bought: ``<float64>[F]``, see `Coverage`, strictly ascending.
    """

    seeds: np.ndarray
    cost: np.ndarray
    covered: np.ndarray
    bought: np.ndarray


class Recommendation(NamedTuple):
    """A number of seed users.

    Attributes:
        seeds: the median over the curves.
        low: the smallest of them.
        high: the largest.
        cost: at `seeds`, the median over the curves.
        covered: at `seeds`, the median over the curves.
        at_edge: whether the rule ended at the smallest or largest size of a curve, so the true answer may lie
            beyond it.
    """

    seeds: int
    low: int
    high: int
    cost: float
    covered: float
    at_edge: bool


def coverage(cosine: np.ndarray, seed_users: np.ndarray, weight: np.ndarray | None = None) -> Coverage:
    """Coverage of the user mass by one seed set.

    Args:
        cosine: ``<float>[U]``, of every user to its nearest seed user (Eq. 3).
        seed_users: ``<int>[S]``, distinct.
        weight: ``<float>[U]``, what each user counts, 0 or more (such as its activity); None: all the same.

    Raises:
        RelandError: shapes that do not fit, or weights that are negative or all zero.
    """
    weight = np.ones(len(cosine)) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != cosine.shape or weight.min(initial=0.0) < 0 or not weight.sum() > 0:
        raise RelandError(
            f"coverage: weights of shape {weight.shape} for {len(cosine)} users; expected one for each, "
            "none below 0 and not all 0"
        )
    weight = weight / weight.sum()
    other = np.ones(len(cosine), bool)
    other[seed_users] = False
    left = weight[other].sum()
    others = float(weight[other] @ cosine[other] / left) if left > 0 else float("nan")
    return Coverage(float(weight @ cosine), float(weight[seed_users].sum()), others)


def share_above(cosine: np.ndarray, thresholds: Sequence[float]) -> list[float]:
    """Share of the users whose cosine ``<float>[U]`` is at least each of the thresholds."""
    return [float((cosine >= threshold).mean()) for threshold in thresholds]


def marginal_gain(curve: Curve) -> np.ndarray:
    """Coverage gained per unit of cost between neighbouring points, ``<float64>[F - 1]``."""
    return np.diff(curve.covered) / np.diff(curve.cost)


def smooth(curve: Curve) -> Curve:
    """The curve at 1000 sizes, geometrically spaced, through all of its points.

    Interpolates by a monotone cubic (PCHIP) over the logarithm of the size, which has no overshoot.

    Raises:
        RelandError: fewer than three points, or sizes or costs that do not ascend.
    """
    if len(curve.seeds) < 3:
        raise RelandError(f"a coverage curve of {len(curve.seeds)} points has no knee; give at least 3 sizes")
    for name in ("seeds", "cost", "bought"):
        if not (np.diff(getattr(curve, name)) > 0).all():
            raise RelandError(f"coverage curve: {name} {getattr(curve, name).tolist()} must ascend strictly")
    x = np.log(curve.seeds)
    fine = np.linspace(x[0], x[-1], _POINTS)
    return Curve(*(PchipInterpolator(x, np.asarray(values, np.float64))(fine) for values in (
        curve.seeds, curve.cost, curve.covered, curve.bought
    )))  # fmt: skip


def reuse(curve: Curve) -> np.ndarray:
    """What one more seed user brings to others, over what it brings to itself, ``<float64>[F]``.

    With c the mean cosine of users who are not seeds and b the share of the mass that was bought, the
    covered mass is b + (1 - b) c. Its derivative is (1 - c), the seed's own gain, plus (1 - b) dc / db,
    the gain of the others. The own gain assumes that the next seed user has the mean cosine of those left.
    """
    left = np.maximum(1.0 - curve.bought, 1e-12)
    distance = (1.0 - curve.covered) / left  # 1 - c
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.gradient(curve.covered, curve.bought) / np.where(distance > 0, distance, np.nan) - 1.0


def _mean_gain(curve: Curve) -> int:
    """Where the marginal gain per token falls below its mean over the curve: the knee, on a token axis."""
    return int(np.argmax(_unit(curve.covered) - _unit(curve.cost)))


def _log_knee(curve: Curve) -> int:
    """The point farthest above the chord on an axis of log tokens (Kneedle)."""
    return int(np.argmax(_unit(curve.covered) - _unit(np.log(curve.cost))))


def _share(curve: Curve) -> int:
    """Where the marginal gain per token first falls below `SMALL_SHARE` of that at the smallest size."""
    slope = np.gradient(curve.covered, curve.cost)
    below = np.flatnonzero(slope < SMALL_SHARE * slope[0])
    return int(below[0]) if len(below) else len(slope) - 1


def _reuse(curve: Curve) -> int:
    """The first size from which a further seed user brings less to all others than to itself."""
    below = np.flatnonzero(~(reuse(curve)[:-1] >= 1.0))
    return int(below[0]) if len(below) else len(curve.seeds) - 1


RULES: Mapping[str, Callable[[Curve], int]] = {
    "mean_gain": _mean_gain,
    "reuse": _reuse,
    "share": _share,
    "log_knee": _log_knee,
}
"""Rules by name; each gives the index of a point of a smooth curve."""


def recommend(curves: Sequence[Curve], rule: str) -> Recommendation:
    """The number of seed users by one rule.

    Args:
        curves: one for each repetition of the sampling with another seed.
        rule: a name of `RULES`.

    Raises:
        RelandError: an unknown rule, no curve, or see `smooth`.
    """
    if rule not in RULES:
        raise RelandError(f"rule {rule!r} is not known; {nearest_name(rule, list(RULES))}")
    if not curves:
        raise RelandError("a recommendation needs at least one coverage curve")
    fine = [smooth(curve) for curve in curves]
    found = [RULES[rule](curve) for curve in fine]
    seeds = np.array([curve.seeds[index] for curve, index in zip(fine, found, strict=True)])
    middle = float(np.median(seeds))
    cost, covered = (
        float(np.median([np.interp(middle, curve.seeds, getattr(curve, name)) for curve in fine]))
        for name in ("cost", "covered")
    )
    at_edge = any(index in (0, _POINTS - 1) for index in found)
    low, high = round(seeds.min()), round(seeds.max())
    return Recommendation(round(middle), low, high, cost, covered, at_edge)


def _unit(values: np.ndarray) -> np.ndarray:
    """Values brought to 0 at the first and 1 at the last point."""
    return (values - values[0]) / max(values[-1] - values[0], 1e-12)
