"""Figures beside the results: popularity by hand, levels, coverage and novelty."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reland_jax.config import EvalConfig
from reland_jax.overview import levels_of, list_figures, popularity_metrics
from reland_jax.types import Splits
from tests.toys import ragged


def by_hand(splits: Splits, masked: bool) -> float:
    """HR@2 of the list of the most frequent training items."""
    count = np.bincount(splits.train.items, minlength=splits.num_items + 1)
    hits = []
    for user in range(splits.num_users):
        had = {*splits.train.row(user).tolist(), *splits.valid.row(user).tolist()} if masked else set()
        order = sorted(set(range(1, splits.num_items + 1)) - had, key=lambda item: (-count[item], item))
        hits.append(splits.test.row(user)[0] in order[:2])
    return float(np.mean(hits))


@pytest.mark.parametrize("masked", [False, True])
def test_popularity_is_the_list_of_the_most_frequent_items(masked: bool) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.choice(9, 5, replace=False, p=np.arange(9, 0, -1) / 45) + 1 for _ in range(40)]
    parts = (ragged([row[cut].tolist() for row in rows]) for cut in (slice(3), slice(3, 4), slice(4, 5)))
    splits = Splits(*parts, 9, "leave_one_out")
    config = dataclasses.replace(EvalConfig(), cutoffs=(2, 10), mask_history=masked)
    assert popularity_metrics(splits, config)["hr@2"] == pytest.approx(by_hand(splits, masked))


def test_coverage_and_novelty_by_hand() -> None:
    train = ragged([[1, 2], [1, 3], [1], [1, 2]])
    found = list_figures(np.array([[1, 2], [4, 0]], np.int32), train, 8)
    assert found.users == 2 and found.coverage == 3 / 8
    # All four users had item 1, two had item 2, nobody had item 4.
    assert found.novelty == pytest.approx((0 + 1 + 2) / 3)


def test_levels_are_means_of_their_users() -> None:
    activity = np.array([1, 1, 2, 3, 4, 9])
    found = levels_of(activity, {"id": np.arange(6.0), "reland": 2 * np.arange(6.0)})
    assert [each.users for each in found] == [2, 1, 2, 1]
    assert [each.interactions for each in found] == [(1, 1), (2, 2), (3, 4), (9, 9)]
    assert found[2].ndcg == {"id": 3.5, "reland": 7.0} and found[2].gains == {"reland>id": 1.0}
