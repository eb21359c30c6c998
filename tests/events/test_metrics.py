"""Metrics against loops over pairs, users and bins in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reland_jax.events import metrics
from reland_jax.types import RelandError


def auc_by_pairs(label: np.ndarray, score: np.ndarray) -> float | None:
    """The share of pairs in the right order, counted one by one."""
    won, pairs = 0.0, 0
    for hit in score[label == 1]:
        for miss in score[label == 0]:
            won += 1.0 if hit > miss else 0.5 if hit == miss else 0.0
            pairs += 1
    return won / pairs if pairs else None


def _rows(seed: int, rows: int = 300, users: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, labels and scores with many ties."""
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(np.int8)
    score = np.round(np.clip(0.3 * label + 0.7 * rng.random(rows), 0, 1), 1)
    return rng.integers(users, size=rows) * 7 + 3, label, score


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_that_of_all_pairs(seed: int) -> None:
    _, label, score = _rows(seed)
    assert metrics.auc(label, score) == pytest.approx(auc_by_pairs(label, score), abs=1e-12)


def test_auc_by_hand() -> None:
    label = np.array([1, 0, 1, 0])
    assert metrics.auc(label, np.array([0.9, 0.1, 0.8, 0.2])) == 1.0
    assert metrics.auc(label, np.array([0.1, 0.9, 0.2, 0.8])) == 0.0
    assert metrics.auc(label, np.full(4, 0.3)) == 0.5
    # 0.5 beats 0.1 and ties with 0.5; 0.2 beats 0.1 alone.
    assert metrics.auc(label, np.array([0.5, 0.1, 0.2, 0.5])) == pytest.approx(2.5 / 4)
    assert metrics.auc(np.ones(3), np.arange(3)) is None
    assert metrics.auc(np.zeros(0), np.zeros(0)) is None


def test_weights_are_repetitions() -> None:
    _, label, score = _rows(9, rows=80)
    weight = np.random.default_rng(1).integers(4, size=80)
    repeated = metrics.auc(np.repeat(label, weight), np.repeat(score, weight))
    ranked = metrics.ordered(label, score)
    found = metrics.ordered_auc(ranked, *(weight[each].astype(float) for each in ranked[:2]))
    assert found == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gauc_both_ways_and_what_it_covers(seed: int) -> None:
    user, label, score = _rows(seed)
    label[user < 60] = 0  # these users have one class
    found = metrics.grouped_auc(user, label, score)
    by_user = {one: auc_by_pairs(label[user == one], score[user == one]) for one in np.unique(user)}
    both = {one: value for one, value in by_user.items() if value is not None}
    counts = np.array([(user == one).sum() for one in both])
    assert 0 < len(both) < len(by_user)
    assert found.user.tolist() == list(both)
    np.testing.assert_allclose(found.auc, list(both.values()), atol=1e-12)
    assert found.mean == pytest.approx(np.mean(list(both.values())), abs=1e-12)
    assert found.weighted == pytest.approx((counts * list(both.values())).sum() / counts.sum(), abs=1e-12)
    assert found.covered_users == len(both) / len(by_user)
    assert found.covered_impressions == counts.sum() / len(user)


def test_gauc_without_a_user_of_both_classes() -> None:
    found = metrics.grouped_auc(np.array([1, 2]), np.array([1, 0]), np.array([0.5, 0.2]))
    assert (found.mean, found.weighted, found.covered_users, found.covered_impressions) == (None, None, 0, 0)
    empty = metrics.grouped_auc(np.zeros(0, int), np.zeros(0), np.zeros(0))
    assert (empty.mean, empty.covered_users, empty.covered_impressions) == (None, 0, 0)


def test_logloss_and_entropy_by_the_definition() -> None:
    label, p = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.2, 0.0, 1.0, 0.5])
    losses = [-np.log(0.9), -np.log(0.8), -np.log(1e-7), -np.log(1e-7), -np.log(0.5)]
    assert metrics.logloss(label, p) == pytest.approx(np.mean(losses), rel=1e-9)
    entropy = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    assert metrics.normalised_entropy(label, p) == pytest.approx(np.mean(losses) / entropy, rel=1e-9)
    # Always saying the share of positives is 1 by definition.
    assert metrics.normalised_entropy(label, np.full(5, 0.4)) == pytest.approx(1, abs=1e-12)
    assert metrics.normalised_entropy(np.ones(3), np.full(3, 0.5)) is None


def test_calibration_and_its_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(1003)
    label = (rng.random(1003) < p).astype(np.int8)
    assert metrics.calibration(label, p) == pytest.approx(p.sum() / label.sum(), abs=1e-12)
    order = np.argsort(p, kind="stable")
    expected = 0.0
    for bin_ in range(10):
        rows = [row for place, row in enumerate(order) if place * 10 // 1003 == bin_]
        expected += len(rows) / 1003 * abs(p[rows].mean() - label[rows].mean())
    assert metrics.calibration_error(label, p) == pytest.approx(expected, abs=1e-12)
    assert metrics.calibration_error(label, np.clip(p + 0.2, 0, 1)) > 3 * expected
    assert metrics.calibration(np.zeros(3), np.full(3, 0.5)) is None


def test_relative_improvement() -> None:
    assert metrics.relative_improvement(0.75, 0.70) == pytest.approx(0.25)
    assert metrics.relative_improvement(0.75, 0.5) is None


@pytest.mark.parametrize(
    "metric", [metrics.auc, metrics.logloss, metrics.normalised_entropy, metrics.calibration]
)
@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1], [0.5], r"shape \(2,\) and scores \(1,\)"),
        ([0, 2], [0.5, 0.5], "label of row 1 is 2.0 .*0 or 1 is needed"),
        ([0, 1], [0.5, np.nan], "score of row 1 is nan .*a finite number"),
    ],
)
def test_bad_rows_are_named(
    metric: Callable[[np.ndarray, np.ndarray], object], label: list[int], score: list[float], message: str
) -> None:
    with pytest.raises(RelandError, match=message):
        metric(np.array(label), np.array(score))
