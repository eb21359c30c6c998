"""Coverage by hand, the rules on curves whose answers are known, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.seeds.coverage import (
    RULES,
    SMALL_SHARE,
    Curve,
    coverage,
    marginal_gain,
    recommend,
    reuse,
    share_above,
    smooth,
)
from reland_jax.types import RelandError

USERS = 10_000


def logarithmic(start: float, slope: float, points: int = 30) -> Curve:
    """Others' cosine is start + slope log(share): coverage has derivatives that are known on paper."""
    share = np.geomspace(0.01, 1.0, points)
    others = start + slope * np.log(share)
    covered = share + (1 - share) * others
    return Curve(USERS * share, 100.0 * USERS * share, covered, share)


def test_coverage_is_the_mean_cosine_and_splits_into_seeds_and_others() -> None:
    cosine = np.array([1.0, 0.2, 1.0, 0.6], np.float32)
    found = coverage(cosine, np.array([2, 0]))
    assert found == pytest.approx((0.7, 0.5, 0.4))
    assert found.covered == pytest.approx(found.bought + (1 - found.bought) * found.others)


def test_weights_count_users_by_their_activity() -> None:
    cosine, weight = np.array([1.0, 0.2, 0.6]), np.array([2, 5, 3])
    assert coverage(cosine, np.array([0]), weight) == pytest.approx((0.48, 0.2, 0.35))


def test_a_set_of_everyone_leaves_no_others() -> None:
    found = coverage(np.ones(3), np.arange(3))
    assert found.covered == 1 and found.bought == 1 and np.isnan(found.others)


@pytest.mark.parametrize("weight", [np.ones(2), np.zeros(3), np.array([1.0, -1.0, 1.0])])
def test_weights_that_cannot_be_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(RelandError, match="one for each, none below 0 and not all 0"):
        coverage(np.ones(3), np.array([0]), weight)


def test_share_above_counts_the_threshold_itself() -> None:
    assert share_above(np.array([0.3, 0.5, 0.7, 1.0]), [0.5, 0.71]) == [0.75, 0.25]


def test_marginal_gain_is_the_slope_between_points() -> None:
    columns = ([1, 2, 4], [10, 20, 60], [0.2, 0.5, 0.9], [0.1, 0.2, 0.4])
    curve = Curve(*(np.array(values, float) for values in columns))
    assert marginal_gain(curve) == pytest.approx([0.03, 0.01])


@given(st.lists(st.floats(0.001, 1.0), min_size=3, max_size=8))
def test_a_smooth_curve_goes_through_the_points_and_never_falls(steps: list[float]) -> None:
    seeds = np.cumsum(np.arange(1.0, len(steps) + 1))
    curve = Curve(seeds, 7 * seeds, np.cumsum(steps), seeds / seeds[-1])
    fine = smooth(curve)
    assert (np.diff(fine.covered) >= -1e-12).all()
    assert fine.covered[[0, -1]] == pytest.approx(curve.covered[[0, -1]])
    assert np.interp(curve.seeds, fine.seeds, fine.covered) == pytest.approx(curve.covered, rel=0.02)


def test_reuse_is_the_others_gain_over_the_own() -> None:
    curve = smooth(logarithmic(0.6, 0.05))
    share = curve.bought
    expected = (1 - share) * 0.05 / share / (1 - (0.6 + 0.05 * np.log(share)))
    inner = slice(20, 900)  # at the last sizes nobody else is left, and both gains go to 0
    assert reuse(curve)[inner] == pytest.approx(expected[inner], rel=0.03)


def test_the_reuse_rule_stops_where_both_gains_are_equal() -> None:
    share = np.linspace(0.01, 0.99, 100_000)
    ratio = (1 - share) * 0.05 / share / (1 - (0.6 + 0.05 * np.log(share)))
    expected = USERS * share[np.argmax(ratio < 1)]
    assert recommend([logarithmic(0.6, 0.05)], "reuse").seeds == pytest.approx(expected, rel=0.03)


def test_no_reuse_at_all_recommends_the_smallest_size() -> None:
    """Users who are all alike far: buying one helps nobody else."""
    share = np.geomspace(0.01, 1.0, 10)
    found = recommend([Curve(USERS * share, USERS * share, share, share)], "reuse")
    assert found.seeds == 100 and found.at_edge


def test_the_mean_gain_rule_finds_where_the_slope_is_that_of_the_chord() -> None:
    cost = np.geomspace(0.01, 1.0, 40)
    found = recommend([Curve(USERS * cost, cost, np.sqrt(cost), cost)], "mean_gain")
    slope_of_chord = (1 - 0.1) / (1 - 0.01)
    assert found.cost == pytest.approx((0.5 / slope_of_chord) ** 2, rel=0.03)


def test_the_share_rule_finds_a_tenth_of_the_first_slope() -> None:
    cost = np.geomspace(0.001, 1.0, 80)
    found = recommend([Curve(USERS * cost, cost, np.log(cost) + 8, cost)], "share")
    assert found.cost == pytest.approx(0.001 / SMALL_SHARE, rel=0.1)


def test_the_log_knee_is_the_bend_of_a_broken_line_over_log_cost() -> None:
    cost = np.geomspace(0.001, 1.0, 61)
    covered = np.minimum(np.log10(cost) + 3, 2.0)
    found = recommend([Curve(USERS * cost, cost, covered + 1e-3 * cost, cost)], "log_knee")
    assert found.cost == pytest.approx(0.1, rel=0.1)


def test_repetitions_give_a_band_around_the_median() -> None:
    curves = [logarithmic(0.6, slope) for slope in (0.02, 0.05, 0.09)]
    alone = [recommend([curve], "reuse").seeds for curve in curves]
    found = recommend(curves, "reuse")
    assert alone == sorted(alone) and alone[0] < alone[-1]
    assert (found.low, found.seeds, found.high) == tuple(alone)


def test_more_spread_costs_do_not_move_the_reuse_rule() -> None:
    """It compares gains with gains: what a token costs does not enter."""
    curve = logarithmic(0.6, 0.05)
    dear = curve._replace(cost=curve.cost**1.3)
    assert recommend([dear], "reuse").seeds == recommend([curve], "reuse").seeds


def test_mistakes_are_reported() -> None:
    curve = logarithmic(0.6, 0.05)
    with pytest.raises(RelandError, match="did you mean 'reuse'"):
        recommend([curve], "reuze")
    with pytest.raises(RelandError, match="at least one coverage curve"):
        recommend([], "reuse")
    with pytest.raises(RelandError, match="at least 3 sizes"):
        recommend([Curve(*(values[:2] for values in curve))], "reuse")
    with pytest.raises(RelandError, match="cost .* must ascend strictly"):
        recommend([curve._replace(cost=np.ones(30))], "reuse")


def test_every_rule_ends_within_the_curve() -> None:
    curve = logarithmic(0.55, 0.035)
    for rule in RULES:
        found = recommend([curve], rule)
        assert 100 <= found.low <= found.seeds <= found.high <= USERS
