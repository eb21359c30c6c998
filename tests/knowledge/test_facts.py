"""Facts of a log, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.events import shop
from reland_jax.knowledge import facts_of_scenarios, facts_of_users, item_words
from reland_jax.types import RelandError

MADE = shop.generate(
    shop.ShopSettings(users=60, items=40, rows=6000, shares=(0.6, 0.3, 0.1), specific=2.0, strength=0.0)
)
EVENTS, ROWS = MADE.events, np.arange(5000)
WORDS = item_words(EVENTS, "category")


def test_counts_of_scenarios() -> None:
    for code, facts in enumerate(facts_of_scenarios(EVENTS, ROWS, WORDS)):
        own = ROWS[EVENTS.scenario.code[ROWS] == code]
        users = set(EVENTS.user[own].tolist())
        assert (facts.rows, facts.users) == (len(own), len(users))
        assert facts.items == len(set(EVENTS.item[own].tolist())) and facts.share == len(own) / 5000
        assert facts.rate == pytest.approx(EVENTS.labels["click"][own].mean())
        for other, share in facts.shared.items():
            there = EVENTS.scenario.name[EVENTS.scenario.code[ROWS]] == other
            assert share == pytest.approx(len(users & set(EVENTS.user[ROWS[there]].tolist())) / len(users))


def test_words_that_stand_out_are_those_of_the_planted_effects() -> None:
    for code, facts in enumerate(facts_of_scenarios(EVENTS, ROWS, WORDS)[:2]):
        own = MADE.world.by_style[code] - MADE.world.by_style[:2].mean(0)
        truth = dict(zip(WORDS.name.tolist(), own.tolist(), strict=True))
        assert np.mean([truth[word] for word in facts.liked]) > 0.2
        assert np.mean([truth[word] for word in facts.disliked]) < -0.2


def test_what_users_clicked_last_in_each_scenario() -> None:
    users = np.array([7, 3])
    for facts, user in zip(facts_of_users(EVENTS, ROWS, users, WORDS, 2), users, strict=True):
        assert facts.user == user
        for code, name in enumerate(EVENTS.scenario.name.tolist()):
            own = ROWS[(EVENTS.user[ROWS] == user) & (EVENTS.scenario.code[ROWS] == code)]
            hits = own[EVENTS.labels["click"][own] == 1]
            if len(own):
                assert facts.seen[name] == (len(own), len(hits))
            said = [WORDS.name[MADE.world.category[item]] for item in EVENTS.item[hits[-2:]]]
            assert list(facts.clicked.get(name, [])) == said


def test_nothing_but_training_rows_is_told() -> None:
    """Rows after them may say what they like."""
    changed = EVENTS._replace(
        labels={**EVENTS.labels, "click": np.where(np.arange(6000) < 5000, EVENTS.labels["click"], 1)},
        user=np.where(np.arange(6000) < 5000, EVENTS.user, 3).astype(np.int32),
    )
    assert facts_of_scenarios(changed, ROWS, WORDS) == facts_of_scenarios(EVENTS, ROWS, WORDS)
    users = np.array([3])
    assert facts_of_users(changed, ROWS, users, WORDS, 5) == facts_of_users(EVENTS, ROWS, users, WORDS, 5)


def test_words_must_be_a_feature_of_items() -> None:
    with pytest.raises(RelandError, match="did you mean 'category'"):
        item_words(EVENTS, "categori")
