"""The paired bootstrap over users: against one by hand, with no difference, and with clusters of rows."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.eval.significance import corrected
from reland_jax.events import metrics
from reland_jax.events.bootstrap import METRICS, compare
from reland_jax.types import RelandError


def _world(
    seed: int, users: int = 60, rows: int = 600
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Users, labels, the better and the worse prediction."""
    rng = np.random.default_rng(seed)
    user = rng.integers(users, size=rows)
    p = rng.random(rows)
    label = (rng.random(rows) < p).astype(np.int8)
    return user, label, np.clip(p, 0.01, 0.99), np.clip(0.5 * p + 0.5 * rng.random(rows), 0.01, 0.99)


def _metric(name: str, user: np.ndarray, label: np.ndarray, score: np.ndarray) -> float:
    grouped = metrics.grouped_auc(user, label, score)
    values = {
        "auc": metrics.auc(label, score), "logloss": metrics.logloss(label, score),
        "gauc_weighted": grouped.weighted, "gauc_mean": grouped.mean,
    }  # fmt: skip
    found = values[name]
    assert found is not None
    return found


@pytest.mark.parametrize("name", METRICS)
def test_it_is_the_bootstrap_done_by_hand(name: str) -> None:
    user, label, ours, baseline = _world(0)
    found = compare(name, user, label, [ours], [baseline], draws=40, seed=5)
    assert found.mean_ours == pytest.approx(_metric(name, user, label, ours), abs=1e-12)
    assert found.mean_baseline == pytest.approx(_metric(name, user, label, baseline), abs=1e-12)
    rng = np.random.default_rng(5)
    names = np.unique(user)
    drawn = []
    for _ in range(40):
        chosen = names[rng.integers(len(names), size=len(names))]
        rows = [np.flatnonzero(user == one) for one in chosen]
        # A user who is drawn twice is two users.
        again = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        place = np.concatenate(rows)
        drawn.append(
            _metric(name, again, label[place], ours[place])
            - _metric(name, again, label[place], baseline[place])
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    far = np.sum(np.abs(np.array(drawn) - found.difference) >= abs(found.difference) - 1e-15)
    assert found.p_value == pytest.approx((1 + far) / 41)


def test_a_clear_gain_is_found_and_swapping_turns_it() -> None:
    user, label, ours, baseline = _world(1)
    there = compare("auc", user, label, [ours], [baseline], draws=200)
    back = compare("auc", user, label, [baseline], [ours], draws=200)
    assert there.low > 0 and there.p_value < 0.02
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
    assert corrected([there, back])[0].p_holm == pytest.approx(2 * there.p_value)


def test_equal_arms_show_nothing() -> None:
    user, label, ours, _ = _world(2)
    found = compare("gauc_mean", user, label, [ours], [ours], draws=50)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_training_seeds_are_averaged() -> None:
    user, label, ours, baseline = _world(3)
    found = compare("auc", user, label, [ours, baseline], [baseline], draws=10)
    both = [_metric("auc", user, label, each) for each in (ours, baseline)]
    assert found.mean_ours == pytest.approx(np.mean(both), abs=1e-12)


def _drawn_users(trial: int, users: int, rows: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Users, and the taste of the user of each row: rows of a user depend on each other."""
    rng = np.random.default_rng(trial)
    user = rng.integers(users, size=rows)
    return rng, user, rng.normal(0, 1, users)[user]


def _clicked(rng: np.random.Generator, taste: np.ndarray) -> np.ndarray:
    return (rng.random(len(taste)) < 1 / (1 + np.exp(-taste))).astype(np.int8)


@pytest.mark.slow
def test_two_equal_rankers_differ_in_five_of_a_hundred() -> None:
    rejected, trials, rows = 0, 1000, 600
    for trial in range(trials):
        rng, user, taste = _drawn_users(trial, 120, rows)
        label = _clicked(rng, taste)
        ours, baseline = (taste + rng.normal(0, 1, rows) for _ in range(2))
        rejected += compare("auc", user, label, [ours], [baseline], draws=200, seed=trial).p_value < 0.05
    # 1.4 points are two standard deviations of a share of 5% in 1,000 runs.
    assert abs(rejected / trials - 0.05) <= 0.014, rejected


@pytest.mark.slow
def test_intervals_hold_the_true_difference_in_ninety_five_of_a_hundred() -> None:
    def difference(rng: np.random.Generator, taste: np.ndarray) -> tuple[np.ndarray, ...]:
        return (_clicked(rng, taste), *(taste + rng.normal(0, spread, len(taste)) for spread in (0.5, 1)))

    rng, _, taste = _drawn_users(10**6, 10**6, 10**6)
    label, ours, baseline = difference(rng, taste)
    true = float(metrics.auc(label, ours) or 0) - float(metrics.auc(label, baseline) or 0)
    held, trials = 0, 600
    for trial in range(trials):
        rng, user, taste = _drawn_users(trial, 200, 800)
        label, ours, baseline = difference(rng, taste)
        found = compare("auc", user, label, [ours], [baseline], draws=200, seed=trial)
        held += found.low <= true <= found.high
    # A share of 95% in 600 runs has a standard deviation of 0.9 points; 200 draws blur the ends a little.
    assert abs(held / trials - 0.95) <= 0.025, held


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "mrr"}, "metric='mrr' must be one of auc"),
        ({"draws": 0}, "draws=0 at least 1"),
        ({"ours": []}, r"\(0 and 1 training seeds\)"),
        ({"label": np.zeros(600)}, "auc of 600 rows is not defined"),
        ({"user": np.zeros(5, int)}, "5 users for 600 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, object], message: str) -> None:
    user, label, ours, baseline = _world(0)
    given = {"metric": "auc", "user": user, "label": label, "ours": [ours], "baseline": [baseline]} | changes
    with pytest.raises(RelandError, match=message):
        compare(**given)  # type: ignore[arg-type]
