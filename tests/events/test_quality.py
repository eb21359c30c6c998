"""Tasks, scenarios and activity levels, each against the rows picked by a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reland_jax.events import Predictions, activity_levels, evaluate, metrics, shop
from reland_jax.events.levels import NAMES
from reland_jax.types import RelandError
from tests.events.toys import read_toy

MADE = shop.generate(shop.ShopSettings(users=200, items=40, rows=3000))
TRAIN, TEST = np.arange(2000), np.arange(2000, 3000)
TRUTH = Predictions(MADE.truth.click[TEST], MADE.truth.conversion[TEST])


def test_levels_of_the_toy_log_by_hand(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    levels = activity_levels(events, np.arange(5))
    users = events.ids.users.tolist()
    # a: 2 clicks and 1 purchase; b: one of each; c: nothing; d: not seen.
    assert dict(zip(users, levels.activity.tolist(), strict=True)) == {"a": 3, "b": 2, "c": 0, "d": 0}
    assert levels.cuts == (0, 2, 2)
    assert dict(zip(users, levels.level.tolist(), strict=True)) == {"a": 4, "b": 2, "c": 1, "d": 0}
    with pytest.raises(RelandError, match="need training rows"):
        activity_levels(events, np.arange(0))


def test_levels_are_quartiles_of_the_users_seen() -> None:
    levels = activity_levels(MADE.events, TRAIN)
    seen = np.unique(MADE.events.user[TRAIN])
    assert (levels.level[seen] > 0).all() and (np.delete(levels.level, seen) == 0).all()
    for user in seen[:20]:
        rows = [row for row in TRAIN if MADE.events.user[row] == user]
        done = sum(int(MADE.events.labels[name][rows].sum()) for name in ("click", "conversion"))
        assert levels.activity[user] == done
        assert levels.level[user] == 1 + sum(done > cut for cut in levels.cuts)
    ordered = np.sort(levels.activity[seen])
    assert levels.cuts == tuple(ordered[int((len(seen) - 1) * share)] for share in (0.25, 0.5, 0.75))


def test_every_task_and_segment_is_its_own_rows() -> None:
    events, levels = MADE.events, activity_levels(MADE.events, TRAIN)
    found = {(each.task, each.segment): each for each in evaluate(events, TEST, TRUTH, levels)}
    segments = ["all", "scenario home", "scenario search", "scenario cart", *NAMES]
    assert list(found) == [(task, segment) for task in ("ctr", "cvr", "ctcvr") for segment in segments]
    for segment in ("all", "scenario search", "L2", "unseen"):
        rows = [
            place for place, row in enumerate(TEST)
            if segment == "all"
            or segment == f"scenario {events.scenario.name[events.scenario.code[row]]}"
            or segment == NAMES[levels.level[events.user[row]]]
        ]  # fmt: skip
        click = events.labels["click"][TEST][rows]
        conversion = events.labels["conversion"][TEST][rows]
        hit = click == 1
        p, q = TRUTH.click[rows], MADE.truth.conversion[TEST][rows]
        for task, label, score in (
            ("ctr", click, p),
            ("cvr", conversion[hit], q[hit]),
            ("ctcvr", conversion, p * q),
        ):
            ours = found[task, segment]
            assert (ours.rows, ours.positives) == (len(label), int(label.sum()))
            assert ours.auc == metrics.auc(label, score) and ours.logloss == metrics.logloss(label, score)
            assert ours.calibration == metrics.calibration(label, score)
    assert found["ctr", "all"].rows == sum(found["ctr", name].rows for name in NAMES)
    whole = found["ctr", "all"]
    grouped = metrics.grouped_auc(events.user[TEST], events.labels["click"][TEST], TRUTH.click)
    assert (whole.gauc_weighted, whole.gauc_mean) == (grouped.weighted, grouped.mean)
    assert whole.users == len(np.unique(events.user[TEST])) and 0 < whole.covered_users < 1


def test_conversions_on_all_rows_and_on_clicked_ones_differ() -> None:
    found = {each.task: each for each in evaluate(MADE.events, TEST, TRUTH) if each.segment == "all"}
    clicks = int(MADE.events.labels["click"][TEST].sum())
    assert (found["cvr"].rows, found["ctcvr"].rows, found["ctr"].rows) == (clicks, 1000, 1000)
    assert found["cvr"].auc != found["ctcvr"].auc


def test_one_class_has_no_auc_and_no_error() -> None:
    rows = np.flatnonzero(MADE.events.labels["click"] == 0)[:50]
    (found, *_) = evaluate(MADE.events, rows, Predictions(MADE.truth.click[rows]))
    assert (found.auc, found.normalised_entropy, found.calibration, found.gauc_mean) == (
        None,
        None,
        None,
        None,
    )
    assert found.logloss is not None and found.covered_users == 0


def test_predictions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RelandError, match=r"predictions of click for 1,000 rows"):
        evaluate(MADE.events, TEST, Predictions(TRUTH.click[:5]))
    schema = MADE.events.schema
    alone = MADE.events._replace(schema=schema.__class__(
        schema.user, schema.item, schema.time, schema.labels[:1], schema.features, schema.scenario
    ))  # fmt: skip
    with pytest.raises(RelandError, match="no second label that is given 'click'"):
        evaluate(alone, TEST, TRUTH)
