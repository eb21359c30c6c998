"""results.json and the content of the report, from trainings and artefacts made by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import Config, EvalConfig, RetrievalConfig
from reland_jax.eval import Vectors, best_items, mean_metrics, per_user_metrics
from reland_jax.eval.significance import paired_comparison
from reland_jax.records import to_plain
from reland_jax.report import LIST_LENGTH, Case, ReportContent, cases_to_show, report_content
from reland_jax.report.page import render_report
from reland_jax.results import SPEEDS, environment, summarise
from reland_jax.storage import Inputs, Trained, TrainingSummary
from reland_jax.types import COMPARED, PARTS, RelandError, Splits, TargetRanks
from reland_jax.variants import BY_NAME
from tests.toys import inputs_of, ragged

USERS = 30


def leave_one_out(users: int = USERS, num_items: int = 60) -> Splits:
    """Users with two training items, one validation item and one test item, none of them twice."""
    rows = [[(4 * user + step) % num_items + 1 for step in range(4)] for user in range(users)]
    parts = (ragged([row[cut] for row in rows]) for cut in (slice(2), slice(2, 3), slice(3, 4)))
    return Splits(*parts, num_items, "leave_one_out")


def trained(rank: Sequence[int], splits: Splits) -> Trained:
    """A training whose test targets have these ranks; on validation it is half as good."""
    user = np.repeat(np.arange(splits.num_users, dtype=np.int32), splits.test.lengths())
    ranks = TargetRanks(user, splits.test.items, np.asarray(rank, np.int32))
    means = mean_metrics(per_user_metrics(ranks, (5, 10, 20)))
    valid = {name: value / 2 for name, value in means.items()}
    summary = TrainingSummary(valid, means, 2, 1, "bpr", **dict.fromkeys(SPEEDS, 1.0), history=[])
    return Trained(None, summary, dict.fromkeys(PARTS, ranks))


def drawn(splits: Splits, most: int, seed: int) -> Trained:
    """Ranks drawn below `most`: the lower, the better the model."""
    return trained(np.random.default_rng(seed).integers(most, size=len(splits.test.items)), splits)


def settings(variants: Sequence[str], seeds: Sequence[int] = (0,), **sections: Any) -> Config:
    config = Config(variants=tuple(variants), seeds_of_training=tuple(seeds))
    return dataclasses.replace(config, **sections)


def summed(runs: Mapping[str, Mapping[int, Trained]], inputs: Inputs, **sections: Any) -> dict[str, Any]:
    """The content of results.json, as it is read back."""
    config = settings(list(runs), list(next(iter(runs.values()))), **sections)
    return json.loads(json.dumps(to_plain(summarise(config, inputs, runs, {"load": 1.0})), allow_nan=False))


def per_user(one: Trained, name: str) -> np.ndarray:
    return per_user_metrics(one.ranks["test"], (10,))[name]


# --- significance ---------------------------------------------------------------------------------


def test_p_values_are_corrected_over_all_comparisons() -> None:
    """Holm by hand: the i-th smallest of m times m - i, never below one before it."""
    splits = leave_one_out()
    most = {"id": 60, "f_item": 30, "reland": 9}
    runs = {name: {0: drawn(splits, below, below)} for name, below in most.items()}
    found = summed(runs, inputs_of(splits))["significance"]
    pairs = [("reland", "id"), ("reland", "f_item"), ("f_item", "id")]
    assert list(found) == [f"{ours}>{base}" for ours, base in pairs]
    plain = {
        (f"{ours}>{base}", name): paired_comparison(
            per_user(runs[ours][0], name), per_user(runs[base][0], name)
        ).p_value
        for ours, base in pairs
        for name in COMPARED
    }
    assert len(plain) == 6
    least = 0.0
    for place, (cell, p_value) in enumerate(sorted(plain.items(), key=lambda each: each[1])):
        least = max(least, p_value * (6 - place))
        one = found[cell[0]][cell[1]]
        assert one["p_value"] == pytest.approx(p_value, rel=1e-12)
        assert one["p_holm"] == pytest.approx(min(least, 1.0), rel=1e-12)
    smallest = min(plain, key=plain.__getitem__)
    assert found[smallest[0]][smallest[1]]["p_holm"] == pytest.approx(6 * plain[smallest])


def test_users_are_compared_by_their_means_over_all_training_seeds() -> None:
    """With the first seed alone the left one would win, with the second alone it would lose."""
    splits = leave_one_out()
    runs = {
        "f_item": {0: drawn(splits, 5, 1), 1: drawn(splits, 60, 2), 2: drawn(splits, 60, 3)},
        "id": {0: drawn(splits, 60, 4), 1: drawn(splits, 8, 5), 2: drawn(splits, 8, 6)},
    }
    found = summed(runs, inputs_of(splits))["significance"]["f_item>id"]["ndcg@10"]
    means = {name: np.mean([per_user(one, "ndcg@10") for one in by_seed.values()], axis=0)
             for name, by_seed in runs.items()}  # fmt: skip
    expected = paired_comparison(means["f_item"], means["id"])
    assert found["difference"] == pytest.approx(expected.difference) and expected.difference < 0
    assert found["p_value"] == pytest.approx(expected.p_value)
    assert found["mean_ours"] == pytest.approx(means["f_item"].mean())


def test_metrics_are_means_over_seeds_and_speeds_medians() -> None:
    splits = leave_one_out()
    runs = {}
    for seed, (most, seconds) in {0: (5, 1.0), 3: (30, 2.0), 7: (60, 9.0)}.items():
        one = drawn(splits, most, seed)
        slower = dataclasses.replace(one.summary, seconds_per_epoch=seconds, epochs=seed + 1)
        runs[seed] = one._replace(summary=slower)
    found = summed({"id": runs}, inputs_of(splits))["variants"]["id"]
    values = np.array([per_user(one, "hr@10").mean() for one in runs.values()])
    for part, expected in (("test", values), ("valid", values / 2)):
        assert found[part]["hr@10"] == pytest.approx(expected.mean())
        assert found["per_seed"][part]["hr@10"] == pytest.approx(expected)
    assert found["seconds_per_epoch"] == 2.0 and found["per_seed"]["seconds_per_epoch"] == [1.0, 2.0, 9.0]
    assert found["epochs"] == 1 and found["per_seed"]["epochs"] == [1, 4, 8]


def test_only_the_method_itself_pays_for_rationales() -> None:
    splits = leave_one_out()
    inputs = inputs_of(splits)
    written = [each._replace(model="llm", prompt_tokens=7) for each in inputs.built.pool.rationales]
    pool = inputs.built.pool._replace(rationales=written)
    inputs = inputs._replace(built=inputs.built._replace(pool=pool))
    found = summed({name: {0: drawn(splits, 9, 0)} for name in BY_NAME}, inputs)
    cost = {name: (one["llm_inferences"], one["prompt_tokens"]) for name, one in found["variants"].items()}
    assert cost == dict.fromkeys(BY_NAME, (0, 0)) | {"reland": (2, 14), "reland_only": (2, 14)}
    assert (found["pool"]["llm_inferences"], found["pool"]["models"]) == (2, {"llm": 2})


def test_a_single_test_user_gives_results_without_a_test_of_significance() -> None:
    splits = leave_one_out()
    splits = splits._replace(test=ragged([[9], *[[]] * (USERS - 1)]))
    runs = {"id": {0: trained([3], splits)}, "reland": {0: trained([0], splits)}}
    found = summed(runs, inputs_of(splits))
    assert found["significance"] == {}
    assert found["variants"]["reland"]["test"]["ndcg@10"] == 1
    notes = " ".join(found["notes"])
    assert "A single user is tested" in notes and "29 of 30 users have no test item" in notes
    alone = summed({"id": runs["id"]}, inputs_of(splits))
    assert "A single user" not in " ".join(alone["notes"]), "nothing is compared"


# --- what must be known about the numbers ---------------------------------------------------------


def test_who_is_evaluated_and_what_was_had_before_is_counted() -> None:
    splits = leave_one_out()
    again = [[splits.valid.row(0)[0]], [splits.train.row(1)[0]], *[[]] * 3]
    again += [splits.test.row(user).tolist() for user in range(5, USERS)]
    splits = splits._replace(test=ragged(again))
    runs = {"id": {0: drawn(splits, 9, 0)}}
    found = summed(runs, inputs_of(splits), eval=EvalConfig(mask_history=True))
    assert found["held_out"]["test"] == {
        "users": 27, "users_without": 3, "targets": 27, "repeated": 0, "had_before": 2, "short_lists": {},
    }  # fmt: skip
    assert found["held_out"]["valid"]["had_before"] == 0
    notes = " ".join(found["notes"])
    assert "2 of 27 test items are items that the user has had before" in notes
    assert "3 of 30 users have no test item" in notes and "validation" not in notes


def test_nothing_is_noted_of_plain_data() -> None:
    splits = leave_one_out()
    found = summed({"id": {0: drawn(splits, 9, 0)}}, inputs_of(splits))
    assert found["notes"] == [] and found["pool"]["rationales_each"] == 1


def test_fewer_rationales_than_asked_for_are_noted() -> None:
    splits = leave_one_out()
    found = summed(
        {"id": {0: drawn(splits, 9, 0)}}, inputs_of(splits), retrieval=RetrievalConfig(neighbours=3)
    )
    assert found["pool"]["rationales_each"] == found["pool"]["rationales_in_use"] == 2
    assert any("retrieval.neighbours=3" in note and "there are 2" in note for note in found["notes"])


# --- the cases of the report ----------------------------------------------------------------------

SMALL = Splits(
    ragged([[1, 2, 3, 4, 5, 6], [1, 2, 2], [7, 6, 5, 4], [3, 4]]),
    ragged([[7], [2], [3], [1]]),
    ragged([[3], [5], [6, 6, 1], []]),
    7,
    "ratio",
)
"""User 0 has had every item, user 1 has four left; user 2 takes an item again, user 3 is not tested."""


def content_of(
    mask: bool, wanted: Sequence[str] = (), splits: Splits = SMALL, count: int = 6
) -> ReportContent:
    """A report in which items score by their number."""
    inputs = inputs_of(splits)
    config = dataclasses.replace(Config(), eval=EvalConfig(mask_history=mask), report_users=tuple(wanted))
    items = np.arange(splits.num_items + 1, dtype=np.float32)[:, None]
    items[0] = 1000
    product = jax.tree_util.Partial(lambda users, items: users @ items.T)
    vectors = Vectors(jnp.ones((splits.num_users, 1)), jnp.asarray(items), product)
    results = summarise(config, inputs, {"id": {0: drawn(splits, 5, 0)}}, {})
    users = cases_to_show(wanted, inputs.interactions.ids.users, np.flatnonzero(splits.test.lengths()), count)
    lists = {"id": best_items(vectors, splits, users, LIST_LENGTH, mask)}
    return report_content(config, inputs, results, users, lists)


def cases(mask: bool, wanted: Sequence[str] = ()) -> dict[str, Case]:
    """Its cases by user."""
    return {case.user_id: case for case in content_of(mask, wanted).cases}


def listed(case: Case) -> list[str]:
    return [label.item_id for label in case.recommendations["id"]]


def test_lists_end_where_nothing_is_left_and_hold_nothing_that_a_user_has_had() -> None:
    found = cases(mask=True)
    assert {user: listed(case) for user, case in found.items()} == {
        "u0": [], "u1": ["i7", "i6", "i5", "i4", "i3"], "u2": ["i2", "i1"],
    }  # fmt: skip
    assert found["u0"].had_before == ["i3"] and found["u1"].had_before == []
    assert [label.item_id for label in found["u2"].targets] == ["i6", "i1"]
    assert found["u2"].had_before == ["i6"]
    page = render_report(content_of(mask=True))
    assert "nothing is left that the user has not had" in page and "2 of 4 test items" in page


def test_a_target_of_the_validation_part_was_had_before() -> None:
    again = SMALL._replace(test=ragged([[7], [5, 2], [3, 1], []]))
    found = {case.user_id: case.had_before for case in content_of(True, splits=again).cases}
    assert found == {"u0": ["i7"], "u1": ["i2"], "u2": ["i3"]}


def test_without_a_mask_a_list_holds_all_items_there_are_and_no_padding() -> None:
    for case in cases(mask=False).values():
        assert listed(case) == [f"i{item}" for item in range(7, 0, -1)]


def test_all_users_that_were_asked_for_are_shown_and_others_drawn_once() -> None:
    def shown(*wanted: str, count: int = 6) -> list[str]:
        return [case.user_id for case in content_of(True, wanted, count=count).cases]

    assert sorted(shown()) == ["u0", "u1", "u2"]
    assert shown("u3", "u1") == ["u3", "u1", *[user for user in shown() if user != "u1"]]
    assert shown("u3,u0", "u2", count=2) == ["u3", "u0", "u2"]
    assert shown("u2", count=1) == ["u2"] and shown(count=0) == []


def test_a_user_who_is_not_known_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(RelandError, match=r"config.report_users: 'u33' is not one of the 4 users.*'u3'"):
        cases(True, ["u33"])
    with pytest.raises(RelandError, match="'nobody' is not one of the 4 users that are left"):
        cases(True, ["u1,nobody"])


def test_the_environment_says_how_matrices_are_multiplied() -> None:
    assert environment()["matmul_precision"] == "default"
    with jax.default_matmul_precision("highest"):
        assert environment()["matmul_precision"] == "highest"
