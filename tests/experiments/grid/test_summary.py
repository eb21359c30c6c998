"""The grid summed up: means, gains, Holm over all of it, levels, and when a gain is not the LLM's."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.grid.pooled import pooled_tests
from experiments.grid.scores import CellSummary, Group, GroupPool, Scores, score
from experiments.grid.summary import GridSummary, summarise_grid, summarise_group
from reland_jax.config import Config
from reland_jax.eval.significance import holm, paired_comparison
from reland_jax.overview import activity_levels
from reland_jax.records import to_plain
from reland_jax.storage import Trained, TrainingSummary
from reland_jax.types import RelandError, TargetRanks
from reland_jax.variants import ABLATIONS, VARIANTS

USERS = 400
MEANS = {
    "id": 0.20, "f_item": 0.24, "reland": 0.30, "permuted": 0.24, "noise": 0.22, "seed_id": 0.23,
    "heuristic": 0.25,
}  # fmt: skip
ENVIRONMENT = {"jax": "0.0.1", "device": "cpu"}


def make_scores(mean: float, seed: int, users: int = USERS) -> Scores:
    """Scores of users whose NDCG@10 has about this mean; users differ in the same way in all variants."""
    common = np.random.default_rng(0).uniform(-0.1, 0.1, users)
    ndcg = mean + common + np.random.default_rng(seed + int(1000 * mean)).normal(0, 0.02, users)
    test = {"ndcg@10": ndcg, "hr@10": 2 * ndcg}
    means = {name: float(values.mean()) for name, values in test.items()}
    valid = {name: value + 0.01 for name, value in means.items()}
    summary = CellSummary(valid, means, 20 + seed, 10 + seed, 1.5 * (seed + 1))
    return Scores(summary, np.arange(users, dtype=np.int32), test)


def make_group(
    backbone: str = "sasrec",
    variants: tuple[str, ...] = VARIANTS,
    seeds: tuple[int, ...] = (0, 1),
    dataset: str = "amazon-beauty",
    **means: float,
) -> Group:
    """A group whose variants have about the given means of NDCG@10, else `MEANS`."""
    values: dict[str, Any] = {"variants": variants, "seeds_of_training": seeds}
    config = Config.from_dict(values | {"data": {"name": dataset}, "model": {"backbone": backbone}})
    runs = {v: {seed: make_scores((MEANS | means)[v], seed) for seed in seeds} for v in variants}
    pool = GroupPool(40, {}, 40, 0, 0, False, {"some-llm-1": 40}, {"provider": "file"}, 0)
    activity = 3 + np.arange(USERS) // 100
    return Group(config, "leave_one_out", activity, pool, runs, {variant: {} for variant in variants})


def summed(*groups: Group) -> GridSummary:
    """The grid of some groups."""
    config = groups[0].config if groups else Config()
    summaries = [summarise_group(group) for group in groups]
    return summarise_grid(summaries, config, ENVIRONMENT, pooled_tests(groups))


def test_a_cell_holds_means_seeds_and_the_papers_figure() -> None:
    group = make_group()
    cell = summarise_group(group).cells["reland"]
    runs = group.runs["reland"]
    for part in ("test", "valid"):
        for name in ("ndcg@10", "hr@10"):
            values = [getattr(runs[seed].summary, part)[name] for seed in (0, 1)]
            assert getattr(cell.per_seed, part)[name] == values
            assert getattr(cell, part)[name] == pytest.approx(sum(values) / 2)
    assert (cell.seeds, cell.per_seed.epochs) == ([0, 1], [20, 21])
    assert cell.per_seed.best_epoch == [10, 11]
    assert cell.seconds_per_epoch == 2.25
    assert cell.paper == {"ndcg@10": 0.0440, "hr@10": 0.0841}
    assert cell.difference["ndcg@10"] == pytest.approx(cell.test["ndcg@10"] - 0.0440)


def test_comparisons_are_paired_over_users_averaged_over_seeds() -> None:
    group = make_group()
    found = summarise_group(group).comparisons
    assert list(found) == ["reland>id", "reland>f_item", "f_item>id"]
    over_seeds = {v: (runs[0].test["hr@10"] + runs[1].test["hr@10"]) / 2 for v, runs in group.runs.items()}
    expected = paired_comparison(over_seeds["reland"], over_seeds["f_item"])
    for field, value in vars(expected).items():
        assert getattr(found["reland>f_item"]["hr@10"], field) == pytest.approx(value)
    # 0.0440 / 0.0410, the paper's SASRec on Beauty
    assert found["reland>id"]["ndcg@10"].paper_relative == pytest.approx(0.0731707)


def test_only_seeds_of_both_are_compared() -> None:
    group = make_group(seeds=(0, 1, 2))
    del group.runs["reland"][1], group.runs["f_item"][0]
    found = summarise_group(group).comparisons
    assert found["reland>id"]["ndcg@10"].seeds == [0, 2]
    assert found["reland>f_item"]["ndcg@10"].seeds == [2]
    assert found["f_item>id"]["ndcg@10"].seeds == [1, 2]
    a, b = (
        np.mean([group.runs[v][s].test["ndcg@10"] for s in (0, 2)], axis=0).mean() for v in ("reland", "id")
    )
    assert found["reland>id"]["ndcg@10"].relative == pytest.approx(a / b - 1)


def test_holm_runs_over_the_whole_table() -> None:
    groups = [make_group("sasrec", reland=0.241), make_group("lightgcn", reland=0.2415, dataset="demo")]
    table = summed(*groups)
    pairs = [metrics for group in table.groups for metrics in group.comparisons.values()]
    found = [one for metrics in pairs for one in metrics.values()]
    assert table.comparisons == len(found) == 12
    expected = holm([one.p_value for one in found])
    np.testing.assert_allclose([one.p_holm for one in found], expected)
    alone = summed(groups[0]).groups[0].comparisons["f_item>id"]["ndcg@10"]
    assert alone.p_holm < table.groups[0].comparisons["f_item>id"]["ndcg@10"].p_holm


def test_a_significant_loss_is_no_gain() -> None:
    comparison = summed(make_group(reland=0.18)).groups[0].comparisons["reland>id"]["ndcg@10"]
    assert comparison.difference < 0 and comparison.p_holm < 0.05 and comparison.stars == "*"
    assert comparison.significant_gain is False


@pytest.mark.parametrize(
    ("variants", "means", "expected"),
    [
        (VARIANTS, {}, "no_control"),
        ((*VARIANTS, *ABLATIONS), {}, "content"),
        ((*VARIANTS, "permuted"), {"permuted": 0.30}, "not_llm"),
        ((*VARIANTS, "permuted"), {"permuted": 0.35}, "not_llm"),
        ((*VARIANTS, *ABLATIONS), {"noise": 0.30}, "not_llm"),
        ((*VARIANTS, "noise"), {"reland": 0.23, "noise": 0.20}, "no_gain"),
    ],
)
def test_attribution(variants: tuple[str, ...], means: dict[str, float], expected: str) -> None:
    group = make_group(variants=variants, **means)
    if means == {"permuted": 0.30} or means == {"noise": 0.30}:
        (name,) = means
        group.runs[name] = dict(group.runs["reland"])
    summary = summed(group).groups[0]
    assert summary.attribution == expected
    for control in set(variants) & set(ABLATIONS):
        ours, base = (summary.cells[name].test["ndcg@10"] for name in (control, "f_item"))
        assert summary.controls_over_f_item[control] == pytest.approx(ours / base - 1)


def test_a_data_set_counts_orders_and_means_gains() -> None:
    table = summed(
        make_group("sasrec"), make_group("lightgcn", reland=0.22), make_group("ngcf", dataset="amazon-sports")
    )
    beauty = table.datasets["amazon-beauty"]
    assert (beauty.compared, beauty.not_below, beauty.significant) == (6, 5, 5)
    assert (beauty.id_with_paper, beauty.id_at_or_above_paper) == (2, 2)
    gains = [g.comparisons["reland>id"]["ndcg@10"].relative for g in table.groups[:2]]
    mean = beauty.mean_gains["reland>id"]["ndcg@10"]
    assert mean.backbones == 2 and mean.ours == pytest.approx(sum(gains) / 2)
    assert mean.paper == pytest.approx((0.0440 / 0.0410 + 0.0230 / 0.0216) / 2 - 1)
    assert table.datasets["amazon-sports"].compared == 3
    assert (table.fewest_seeds, table.enough_seeds) == (2, 5)


def test_levels_on_hand_made_numbers() -> None:
    # quartiles of the twelve: 3, 4 and 7
    activity = np.array([3, 3, 3, 3, 4, 4, 5, 6, 7, 8, 9, 30])
    np.testing.assert_array_equal(activity_levels(activity), [0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(activity_levels(np.full(5, 3)), 0)
    assert len(activity_levels(np.zeros(0, np.int64))) == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_levels_follow_activity(numbers: list[int]) -> None:
    activity = np.array(numbers)
    level = activity_levels(activity)
    by_number = dict(zip(numbers, level.tolist(), strict=True))
    assert [by_number[number] for number in numbers] == level.tolist(), "equal numbers, unequal levels"
    assert sorted(by_number.values()) == [by_number[number] for number in sorted(by_number)]
    for place in range(3):  # at least a quarter more of the users lie at or below each level
        assert (level <= place).mean() >= 0.25 * (place + 1)


def test_levels_of_a_group() -> None:
    group = make_group(seeds=(0,))
    for runs in group.runs.values():  # the users with a target are every second one
        runs[0] = Scores(runs[0].summary, runs[0].users[::2], {k: v[::2] for k, v in runs[0].test.items()})
    levels = summarise_group(group).levels
    assert [(one.level, one.users, one.interactions) for one in levels] == [
        ("L1", 50, (3, 3)), ("L2", 50, (4, 4)), ("L3", 50, (5, 5)), ("L4", 50, (6, 6))
    ]  # fmt: skip
    third = {v: float(runs[0].test["ndcg@10"][100:150].mean()) for v, runs in group.runs.items()}
    assert levels[2].ndcg == pytest.approx(third)
    assert levels[2].gains["reland>f_item"] == pytest.approx(third["reland"] / third["f_item"] - 1)


def test_missing_cells_do_not_stop_the_rest() -> None:
    empty, half = make_group("ngcf", seeds=(0,)), make_group("sasrec")
    for runs in empty.runs.values():
        runs.clear()
    half.runs["reland"].clear()
    half.failed["reland"][0] = "the loss is not finite"
    first, second = summed(empty, half).groups
    assert first.cells["id"].test["ndcg@10"] is None and first.levels == []
    assert first.comparisons == {"reland>id": {}, "reland>f_item": {}, "f_item>id": {}}
    assert second.cells["reland"].failed == {0: "the loss is not finite"}
    assert second.comparisons["f_item>id"]["ndcg@10"].p_holm < 0.05
    assert set(second.levels[0].ndcg) == {"id", "f_item"}
    assert summed().groups == []


def test_what_is_not_finite_becomes_null() -> None:
    group = make_group(seeds=(0,))
    broken = group.runs["reland"][0]
    broken.test["ndcg@10"][3] = broken.summary.test["ndcg@10"] = math.nan
    table = to_plain(summed(group))
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    (summary,) = table["groups"]
    assert summary["cells"]["reland"]["test"]["ndcg@10"] is None
    assert summary["cells"]["reland"]["difference"]["ndcg@10"] is None
    assert summary["cells"]["reland"]["difference"]["hr@10"] is not None
    assert "ndcg@10" not in summary["comparisons"]["reland>id"]
    assert "hr@10" in summary["comparisons"]["reland>id"]


def test_score_keeps_what_is_needed() -> None:
    # user 5 has targets on places 1 and 30, user 2 one on place 3
    order = TargetRanks(np.array([2, 5, 5]), np.array([1, 2, 3]), np.array([2, 0, 29]))
    summary = TrainingSummary({}, {}, 3, 1, "bpr", 1.0, 2.0, 1e3, 0.1, [{"epoch": 1}])
    scores = score(Trained({"w": np.zeros(3)}, summary, {"valid": order, "test": order}))
    np.testing.assert_array_equal(scores.users, [2, 5])
    np.testing.assert_allclose(scores.test["hr@10"], [1, 1])
    np.testing.assert_allclose(scores.test["ndcg@10"], [0.5, 1 / (1 + 1 / math.log2(3))])
    assert scores.summary == CellSummary({}, {}, 3, 1, 1.0)
    broken = order._replace(rank=np.array([2, -1, 29]))
    with pytest.raises(RelandError, match="NaN"):
        score(Trained({}, summary, {"valid": order, "test": broken}))
