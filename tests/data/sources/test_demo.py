"""The generated data: always the same, readable, long-tailed, and with tastes that the titles show."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.data import data_fingerprint, item_texts, load_interactions
from reland_jax.data.sources.demo import _TRAITS
from reland_jax.types import Interactions

CONFIG = DataConfig(name="demo", demo_users=800, demo_items=300)


@pytest.fixture(scope="module")
def shop() -> Interactions:
    return load_interactions(CONFIG)


def test_is_the_same_every_time(shop: Interactions) -> None:
    assert data_fingerprint(load_interactions(CONFIG)) == data_fingerprint(shop)


def test_is_a_5_core_of_the_size_asked_for(shop: Interactions) -> None:
    per_user, per_item = np.bincount(shop.user), np.bincount(shop.item)[1:]
    assert per_user.min() >= 5 and per_item.min() >= 5
    assert 0.9 * 800 < shop.num_users <= 800 and 0.8 * 300 < shop.num_items <= 300
    assert 7.5 < per_user.mean() < 9.5
    pairs = shop.user.astype(np.int64) * 1000 + shop.item
    assert len(np.unique(pairs)) == len(pairs)


def test_popularity_has_a_long_tail(shop: Interactions) -> None:
    counts = np.sort(np.bincount(shop.item)[1:])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.2 * counts.sum()
    assert np.median(counts) < 0.9 * counts.mean()


def _shared(words: np.ndarray, shop: Interactions, rows: np.ndarray) -> float:
    """Share of pairs (row, next row) of one user in which both items have the same word."""
    same_user = shop.user[rows] == shop.user[rows + 1]
    return float((words[shop.item[rows]] == words[shop.item[rows + 1]])[same_user].mean())


def test_titles_tell_what_a_user_will_buy(shop: Interactions) -> None:
    texts = item_texts(shop, ("title", "brand", "categories"))
    traits = np.array([next((trait for trait in _TRAITS if trait in text), "") for text in texts])
    categories = shop.item_features["categories"]
    assert (traits[1:] != "").all() and (categories[1:] != "").all()
    rows = np.arange(len(shop.user) - 1)
    shuffled = shop._replace(item=np.random.default_rng(0).permutation(shop.item))
    for words in (traits, categories):
        assert _shared(words, shop, rows) > 3 * _shared(words, shuffled, rows)


def test_order_matters(shop: Interactions) -> None:
    # Of the same users, the next item shares the category more often than the item six places on.
    rows = np.flatnonzero(shop.user[:-6] == shop.user[6:])
    categories = shop.item_features["categories"][shop.item]
    near, far = (float((categories[rows] == categories[rows + step]).mean()) for step in (1, 6))
    assert near > 3 * far
