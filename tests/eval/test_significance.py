"""Paired comparisons, Holm's correction and the bootstrap interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reland_jax.eval import significance
from reland_jax.eval.significance import holm, paired_comparison, stars
from reland_jax.types import RelandError

PROBABILITIES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6)


def _pair(users: int = 400, gain: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    baseline = rng.random(users)
    return baseline + gain + 0.1 * rng.standard_normal(users), baseline


def _holm_by_closed_testing(p_values: list[float]) -> list[float]:
    """Holm's procedure is the closed test whose intersections are tested by Bonferroni."""
    every = range(len(p_values))
    adjusted = []
    for index in every:
        subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(every, size)]
        worst = max(len(s) * min(p_values[j] for j in s) for s in subsets if index in s)
        adjusted.append(min(worst, 1.0))
    return adjusted


def test_p_value_is_scipys_paired_test() -> None:
    ours, baseline = _pair()
    expected = stats.ttest_rel(ours, baseline).pvalue
    np.testing.assert_allclose(paired_comparison(ours, baseline).p_value, expected, rtol=1e-9)


def test_better_ours_gives_a_positive_difference() -> None:
    ours, baseline = _pair(gain=0.05)
    result = paired_comparison(ours, baseline)
    assert result.difference == pytest.approx(ours.mean() - baseline.mean())
    assert result.difference > 0 and result.relative == pytest.approx(result.difference / baseline.mean())


def test_swapping_turns_the_sign_and_keeps_the_p_value() -> None:
    ours, baseline = _pair()
    there, back = paired_comparison(ours, baseline), paired_comparison(baseline, ours)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


def test_equal_differences_have_no_evidence() -> None:
    values = np.array([0.1, 0.2, 0.7])
    same = paired_comparison(values, values)
    assert (same.p_value, same.difference, same.low, same.high) == (1.0, 0.0, 0.0, 0.0)
    assert paired_comparison(values + 0.1, values).p_value == 1.0


def test_a_baseline_of_zero_has_no_relative_gain() -> None:
    result = paired_comparison(np.array([0.0, 1.0]), np.zeros(2))
    assert result.relative is None


def test_interval_is_close_to_the_normal_one() -> None:
    ours, baseline = _pair(users=5000)
    result = paired_comparison(ours, baseline)
    difference = ours - baseline
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    assert result.low == pytest.approx(difference.mean() - half, abs=0.08 * half)
    assert result.high == pytest.approx(difference.mean() + half, abs=0.08 * half)


def test_interval_covers_a_known_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        difference = rng.normal(0.3, 1.0, size=200)
        result = paired_comparison(difference, np.zeros(200), bootstrap=400, seed=trial)
        covered += result.low <= 0.3 <= result.high
    # 95% of 200 is 190, with a standard deviation of 3.
    assert 178 <= covered <= 199


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, baseline = _pair(users=64)
    whole = paired_comparison(ours, baseline, bootstrap=101)
    monkeypatch.setattr(significance, "_DRAWS_AT_A_TIME", 64 * 10)
    assert paired_comparison(ours, baseline, bootstrap=101) == whole


@pytest.mark.parametrize(
    ("ours", "baseline", "message"),
    [
        ([0.1, np.nan, 0.2], [0.1, 0.1, 0.1], r"ours\[1\] is nan"),
        ([0.1, 0.2, 0.2], [0.1, 0.1, np.inf], r"baseline\[2\] is inf"),
        ([0.1, 0.2], [0.1, 0.1, 0.1], r"\(2,\) and baseline \(3,\)"),
        ([0.1], [0.2], "at least 2 users"),
    ],
)
def test_bad_values_are_named(ours: list[float], baseline: list[float], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        paired_comparison(np.array(ours), np.array(baseline))


def test_no_draws_is_an_error() -> None:
    with pytest.raises(RelandError, match="bootstrap=0"):
        paired_comparison(*_pair(), bootstrap=0)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    np.testing.assert_allclose(holm([0.03, 0.5, 0.01, 0.02]), [0.06, 0.5, 0.04, 0.06])
    np.testing.assert_allclose(holm([0.02, 0.02]), [0.04, 0.04])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).shape == (0,)


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES)
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    np.testing.assert_allclose(holm(p_values), _holm_by_closed_testing(p_values), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.2])
def test_holm_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(RelandError, match="p-value 1 is"):
        holm([0.5, wrong])


def test_stars() -> None:
    assert [stars(0.0499), stars(0.05), stars(1.0)] == ["*", "", ""]
