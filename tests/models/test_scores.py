"""Scores of pairs and of all items are the same numbers, and those of a loop."""

from __future__ import annotations

import numpy as np

from reland_jax.models.scores import DotProduct, dot_product

RNG = np.random.default_rng(0)
USERS = RNG.normal(size=(3, 4)).astype(np.float32)
ITEMS = RNG.normal(size=(6, 4)).astype(np.float32)


def test_one_list_of_items_for_all_users() -> None:
    expected = [[sum(u * i for u, i in zip(user, item, strict=True)) for item in ITEMS] for user in USERS]
    np.testing.assert_allclose(dot_product(USERS, ITEMS), expected, rtol=1e-5, atol=1e-6)


def test_a_list_of_items_for_every_user() -> None:
    chosen = np.array([[0, 5], [2, 2], [4, 1]])
    everything = USERS @ ITEMS.T
    found = dot_product(USERS, ITEMS[chosen])
    np.testing.assert_allclose(found, np.take_along_axis(everything, chosen, 1), rtol=1e-5, atol=1e-6)


def test_the_base_scores_its_sides_as_they_are() -> None:
    base = DotProduct()
    np.testing.assert_array_equal(base.apply({}, USERS, method="user_side"), USERS)
    np.testing.assert_array_equal(base.apply({}, ITEMS, method="item_side"), ITEMS)
    for train in (False, True):
        found = base.apply({}, USERS, ITEMS, train, method="score")
        np.testing.assert_allclose(found, USERS @ ITEMS.T, rtol=1e-5, atol=1e-6)
