"""Lifts and their intervals against loops over users, a bootstrap and the known truth."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.events import lifts, trial
from reland_jax.events.lifts import CTR, CVR, Counts, lift_of, ratio
from reland_jax.events.shop import ShopSettings, World, make_world
from reland_jax.events.trial import TrialSettings
from reland_jax.hashes import uniform
from reland_jax.types import RelandError

RNG = np.random.default_rng(7)
SHOWN = RNG.integers(0, 12, size=300).astype(float)
CLICKS = RNG.binomial(SHOWN.astype(int), RNG.beta(2, 5, 300)).astype(float)


def world(users: int, strength: float = 1.5) -> World:
    settings = ShopSettings(users=users, items=60, strength=strength)
    return make_world(settings, np.random.default_rng(3))


def test_a_ratio_is_that_of_the_formula_over_users() -> None:
    found = ratio(CLICKS, SHOWN)
    assert found is not None
    rows = [(c, n) for c, n in zip(CLICKS.tolist(), SHOWN.tolist(), strict=True) if n]
    count = len(rows)
    mean_c, mean_n = (sum(row[at] for row in rows) / count for at in (0, 1))
    r = mean_c / mean_n
    s_c = sum((c - mean_c) ** 2 for c, _ in rows) / (count - 1)
    s_n = sum((n - mean_n) ** 2 for _, n in rows) / (count - 1)
    s_cn = sum((c - mean_c) * (n - mean_n) for c, n in rows) / (count - 1)
    variance = (s_c - 2 * r * s_cn + r**2 * s_n) / (count * mean_n**2)
    assert found.users == count and found.below == sum(n for _, n in rows)
    np.testing.assert_allclose([found.value, found.variance], [r, variance], rtol=1e-12)


def test_the_interval_of_a_lift_is_that_of_a_bootstrap_of_users() -> None:
    treated, control = (CLICKS[:150], SHOWN[:150]), (CLICKS[150:], SHOWN[150:])
    found = lift_of(CTR, "all", ratio(*treated), ratio(*control))
    assert found is not None
    rng, drawn = np.random.default_rng(0), []
    for _ in range(4000):
        of_t, of_c = rng.integers(150, size=150), rng.integers(150, size=150)
        drawn.append(_rate(treated, of_t) / _rate(control, of_c) - 1)
    np.testing.assert_allclose((found.high - found.low) / 2, lifts.Z95 * np.std(drawn), rtol=0.05)
    relative = found.treated.value / found.control.value
    parts = found.treated.variance / found.treated.value**2 + found.control.variance / found.control.value**2
    np.testing.assert_allclose(
        (found.high - found.low) / 2, lifts.Z95 * relative * np.sqrt(parts), rtol=1e-12
    )


def _rate(arm: tuple[np.ndarray, np.ndarray], users: np.ndarray) -> float:
    return float(arm[0][users].sum() / arm[1][users].sum())


def test_days_and_levels_are_parts_of_the_whole() -> None:
    shape = (40, 2)
    rng = np.random.default_rng(0)
    shown = rng.integers(1, 9, size=shape).astype(float)
    counts = Counts(shown, np.minimum(shown, rng.integers(1, 5, size=shape)), np.ones(shape))
    other = counts._replace(clicks=np.maximum(counts.clicks - 1, 1))
    arms, level = (np.arange(40) < 20, np.arange(40) >= 20), np.arange(40) % 4 == 0
    found = {(each.metric, each.segment): each for each in lifts.lifts(counts, other, arms, {"L1": level})}
    assert list(found) == [(m, s) for m in (CTR, CVR) for s in ("all", "day 1", "day 2", "L1")]
    first = found[CTR, "day 2"]
    by_hand = (
        sum(counts.clicks[:20, 1]) / sum(shown[:20, 1]) / (sum(other.clicks[20:, 1]) / sum(shown[20:, 1]))
    )
    assert first.lift == pytest.approx(by_hand - 1, rel=1e-12) and first.treated.users == 20
    assert found[CVR, "L1"].control.below == sum(other.clicks[20:][level[20:]].ravel())


def test_no_lift_where_there_is_nothing_to_compare() -> None:
    nobody = np.zeros(3)
    assert ratio(nobody, nobody) is None and ratio(np.ones(1), np.ones(1)) is None
    zero = ratio(np.zeros(4), np.ones(4))
    assert lift_of(CTR, "all", zero, zero) is None
    with pytest.raises(RelandError, match="'views' must be one of ctr, cvr"):
        Counts(nobody, nobody, nobody).of("views")


def test_slates_shown_and_outcomes_by_loops() -> None:
    shop, settings = world(30), TrialSettings(days=3, candidates=6, shown=2, visits=1.5)
    slates = trial.draw_slates(shop, settings)
    scores = np.round(np.random.default_rng(1).random(slates.item.shape), 1)  # with ties
    shown = trial.show(slates, scores, settings.shown)
    found = trial.outcomes(shop, shown, settings.days, seed=5)
    clicks = np.zeros((30, 3))
    for visit, (row, items) in enumerate(zip(scores.tolist(), slates.item.tolist(), strict=True)):
        best = sorted(range(6), key=lambda at: (-row[at], at))[:2]
        for position, at in enumerate(best):
            place = 2 * visit + position
            assert (shown.item[place], shown.position[place]) == (items[at], position)
            truth = trial.true_probabilities(
                shop, *(np.array([each]) for each in (slates.user[visit], items[at])),
                np.array([slates.scenario[visit]]), np.array([position]),
            )  # fmt: skip
            drawn = uniform(5, 1, np.array([visit]), np.array([items[at]]))
            clicks[slates.user[visit], slates.day[visit]] += drawn[0] < truth.click[0]
    np.testing.assert_array_equal(found.clicks, clicks)
    assert found.impressions.sum() == 2 * len(slates.user) and (found.conversions <= found.clicks).all()


def test_the_same_item_has_the_same_outcome_in_both_arms() -> None:
    shop, settings = world(200), TrialSettings(candidates=5, shown=5)
    slates = trial.draw_slates(shop, settings)
    scores = np.random.default_rng(1).random(slates.item.shape)
    shown = [
        trial.show(slates, each, 5)._replace(position=np.zeros(5 * len(scores))) for each in (scores, -scores)
    ]
    first, second = (trial.outcomes(shop, each, settings.days, 0) for each in shown)
    for ours, theirs in zip(first, second, strict=True):  # all five are shown, in another order
        np.testing.assert_array_equal(ours, theirs)
    other = trial.outcomes(shop, shown[0], settings.days, 1)
    assert (other.clicks != first.clicks).any()


def test_the_random_numbers_are_uniform_and_independent() -> None:
    visit, item = (each.ravel() for each in np.meshgrid(np.arange(500), np.arange(40)))
    first, second = (uniform(0, purpose, visit, item) for purpose in (1, 2))
    for drawn in (first, second):
        counts = np.bincount((drawn * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # 99.9% point of chi-square with 19 degrees
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03


def test_arms_are_disjoint_tenths_that_change_with_the_salt() -> None:
    first, second = (trial.arms_of(20_000, TrialSettings(salt=salt)) for salt in (0, 1))
    for treated, control in (first, second):
        assert not (treated & control).any()
        assert abs(treated.mean() - 0.1) < 0.01 and abs(control.mean() - 0.1) < 0.01
    both = (first[0] & second[0]).mean()
    assert abs(both - 0.01) < 0.004


def test_an_arm_that_knows_the_truth_beats_every_other() -> None:
    shop, settings = world(400), TrialSettings()
    slates = trial.draw_slates(shop, settings)
    truth = trial.true_scores(shop, slates)
    rng = np.random.default_rng(0)
    others = [rng.random(truth.shape), truth + rng.normal(0, 0.1, truth.shape), -truth]
    best = trial.expected(shop, trial.show(slates, truth, settings.shown), settings.days)
    for scores in others:
        other = trial.expected(shop, trial.show(slates, scores, settings.shown), settings.days)
        assert lifts.total_lift(best, other, CTR) > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shown": 30}, "shown=30 items cannot be chosen of candidates=20"),
        ({"share": 6}, "two arms of share=6 buckets need more than buckets=10"),
        ({"visits": 0.0}, "visits=0.0 must be above 0"),
        ({"days": 0}, "days=0 must be at least 1"),
    ],
)
def test_faults_of_the_settings(given: dict[str, float], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        TrialSettings(**given)


def test_scores_that_do_not_fit() -> None:
    slates = trial.draw_slates(world(20), TrialSettings(candidates=5))
    with pytest.raises(RelandError, match="one finite number each"):
        trial.show(slates, np.full(slates.item.shape, np.nan), 5)


@pytest.mark.slow
def test_equal_arms_differ_in_five_percent_of_runs() -> None:
    shop, settings = world(4000), TrialSettings(candidates=8, visits=0.6, share=3)
    slates = trial.draw_slates(shop, settings)
    shown = trial.show(slates, trial.true_scores(shop, slates), settings.shown)
    rejected = {CTR: 0, CVR: 0}
    for run in range(1000):
        counts = trial.outcomes(shop, shown, settings.days, seed=run)
        arms = trial.arms_of(4000, TrialSettings(share=3, salt=run))
        for each in lifts.lifts(counts, counts, arms):
            rejected[each.metric] += each.segment == "all" and each.is_significant
    for count in rejected.values():
        assert abs(count / 1000 - 0.05) <= 0.014


@pytest.mark.slow
def test_intervals_hold_the_true_lift_in_95_percent_of_runs() -> None:
    shop, settings = world(4000), TrialSettings(candidates=8, visits=0.6, share=3)
    slates = trial.draw_slates(shop, settings)
    truth = trial.true_scores(shop, slates)
    noisy = truth + np.random.default_rng(0).normal(0, 0.3, truth.shape)
    shown = [trial.show(slates, scores, settings.shown) for scores in (truth, noisy)]
    means = [trial.expected(shop, each, settings.days) for each in shown]
    true = {metric: lifts.total_lift(means[0], means[1], metric) for metric in lifts.METRICS}
    held = {CTR: 0, CVR: 0}
    for run in range(600):
        treated, control = (trial.outcomes(shop, each, settings.days, seed=run) for each in shown)
        arms = trial.arms_of(4000, TrialSettings(share=3, salt=run))
        for each in lifts.lifts(treated, control, arms):
            held[each.metric] += each.segment == "all" and each.low <= true[each.metric] <= each.high
    for count in held.values():
        assert abs(count / 600 - 0.95) <= 0.027
