"""The generated shop: its labels follow the true probabilities, and its rationales say what they should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reland_jax.events import metrics, shop
from reland_jax.types import RelandError

MADE = shop.generate(shop.ShopSettings(rows=40_000))


def test_it_is_always_the_same() -> None:
    settings = shop.ShopSettings(users=30, items=20, rows=100)
    one, two = shop.generate(settings), shop.generate(settings)
    assert one.events.labels["click"].tolist() == two.events.labels["click"].tolist()
    np.testing.assert_array_equal(one.truth.click, two.truth.click)
    other = shop.generate(shop.ShopSettings(users=30, items=20, rows=100, seed=1))
    assert other.events.user.tolist() != one.events.user.tolist()


def test_the_log_keeps_the_contract() -> None:
    events = MADE.events
    assert (np.diff(events.time) >= 0).all() and events.item.min() >= 1
    assert events.item.max() <= events.num_items and events.user.max() < events.num_users
    assert not (events.labels["conversion"] & ~events.labels["click"] & 1).any()
    assert len(np.unique(events.day())) == 14
    assert all(np.isin(label, (0, 1)).all() for label in events.labels.values())


def test_labels_follow_the_true_probabilities() -> None:
    click, clicked = MADE.events.labels["click"], MADE.events.labels["click"] == 1
    conversion = MADE.events.labels["conversion"][clicked]
    for label, p in ((click, MADE.truth.click), (conversion, MADE.truth.conversion[clicked])):
        for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 1.0)):
            rows = (p >= low) & (p < high)
            error = np.sqrt((p[rows] * (1 - p[rows])).sum()) / rows.sum()
            assert abs(label[rows].mean() - p[rows].mean()) < 4 * error
    assert 0.2 < click.mean() < 0.5 and 0.2 < conversion.mean() < 0.6


def test_true_probabilities_of_one_row_by_hand() -> None:
    world, events = MADE.world, MADE.events
    position = events.features["position"]
    assert isinstance(position, np.ndarray)
    for row in (0, 17, 39_999):
        user, item, scenario = events.user[row], events.item[row], events.scenario.code[row]
        category = world.category[item]
        favourite = float(category in world.favourites[user]) - 2 / 12
        dear = int(world.price[item] > np.exp(2.5))
        click = -0.8 - 0.08 * position[row] + world.appeal[item] + world.by_age[world.age[user], category]
        click += world.by_scenario[scenario, dear] + 1.5 * favourite
        conversion = -0.4 - 0.6 * (np.log(world.price[item]) - 2.5) + 0.7 * 1.5 * favourite
        conversion += world.by_city[world.city[user], world.brand[item]]
        assert MADE.truth.click[row] == pytest.approx(1 / (1 + np.exp(-click)), abs=1e-12)
        assert MADE.truth.conversion[row] == pytest.approx(1 / (1 + np.exp(-conversion)), abs=1e-12)


def test_what_rationales_say_is_worth_what_was_set() -> None:
    """Without the favourites, the best prediction is worse than the truth by what the words are worth."""
    gains = []
    for strength in (0.0, 1.5):
        made = shop.generate(shop.ShopSettings(rows=40_000, strength=strength))
        blind = made.world._replace(strength=0.0)
        position = made.events.features["position"]
        assert isinstance(position, np.ndarray)
        p = shop.true_probabilities(
            blind, made.events.user, made.events.item, made.events.scenario.code, position
        )
        click = made.events.labels["click"]
        told, untold = metrics.auc(click, made.truth.click), metrics.auc(click, p.click)
        assert told is not None and untold is not None
        gains.append(told - untold)
    assert gains[0] == 0 and gains[1] > 0.01


def test_groups_share_their_favourites_and_change_nothing_else() -> None:
    settings = shop.ShopSettings(users=2000, rows=10, tastes=5, alone=0.25)
    world, plain = (shop.generate(each).world for each in (settings, dataclasses.replace(settings, tastes=0)))
    pairs, count = np.unique(np.sort(world.favourites, axis=1), axis=0, return_counts=True)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    largest = np.sort(count)[-5:]
    # A user alone has one of 66 pairs, by chance that of a group.
    assert largest.sum() / 2000 == pytest.approx(0.75 + 0.25 * 5 / 66, abs=0.04)
    assert largest.min() / largest.max() > 0.7
    for name in ("age", "activity", "category", "appeal", "by_age", "by_scenario", "by_city"):
        np.testing.assert_array_equal(getattr(world, name), getattr(plain, name))


@pytest.mark.parametrize("wrong", [{"tastes": 67}, {"tastes": -1}, {"alone": 1.5}])
def test_impossible_groups(wrong: dict[str, float]) -> None:
    with pytest.raises(RelandError, match=next(iter(wrong))):
        shop.ShopSettings(**wrong)  # type: ignore[arg-type]


def test_rationales_name_the_favourites_in_words_and_vectors() -> None:
    world = MADE.world
    texts = shop.rationales(world)
    first, second = (shop.CATEGORIES[each] for each in world.favourites[7])
    assert texts[7] == f"The user likes {first} and {second}."
    vectors = shop.rationale_vectors(world, width=48, noise=0.0)
    assert vectors.shape == (1000, 48) and vectors.dtype == np.float32
    sets = [frozenset(pair) for pair in world.favourites.tolist()]
    same = next(user for user in range(1, 1000) if sets[user] == sets[0])
    other = next(user for user in range(1, 1000) if not sets[user] & sets[0])
    np.testing.assert_allclose(vectors[same], vectors[0], rtol=1e-5)
    assert np.linalg.norm(vectors[other] - vectors[0]) > 1
    noisy = shop.rationale_vectors(world, width=48, noise=0.5)
    assert (noisy - vectors).std() == pytest.approx(0.5, rel=0.02)
    assert vectors.std() == pytest.approx(1.0, rel=0.15)


def test_a_shop_of_nothing_is_refused() -> None:
    with pytest.raises(RelandError, match="rows=0 must be at least 1"):
        shop.ShopSettings(rows=0)


def test_scenarios_of_unequal_size_share_styles() -> None:
    settings = shop.ShopSettings(users=300, rows=8000, shares=(0.5, 0.3, 0.15, 0.04, 0.01), specific=1.0)
    made = shop.generate(settings)
    counts = np.bincount(made.events.scenario.code, minlength=5) / 8000
    assert counts[4] < 0.04 < 0.3 < counts[0] and made.events.scenario.name[4] == "outlet"
    effects = np.corrcoef(made.world.by_style)
    assert effects[0, 4] > 0.8 and abs(effects[0, 1]) < 0.8
    said = np.corrcoef(shop.scenario_vectors(made.world))
    assert said[0, 4] > 0.9 > 0.8 > abs(said[0, 1])


def test_what_scenarios_say_changes_nothing_else() -> None:
    """The default shop is what it was before scenarios had styles."""
    plain, styled = (shop.generate(shop.ShopSettings(users=50, rows=500, specific=x)) for x in (0.0, 1.0))
    np.testing.assert_array_equal(plain.events.user, styled.events.user)
    np.testing.assert_array_equal(plain.world.by_age, styled.world.by_age)
    assert not plain.world.by_style.any() and (plain.truth.click != styled.truth.click).any()
