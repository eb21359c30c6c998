"""Sentences of the report: the numbers in them, and that they do not claim what was not shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reland_jax.report import ReportContent, words
from reland_jax.results import RunResults
from reland_jax.types import Assignment, SeedSet
from tests.report.conftest import SURE


def test_headline_says_the_gains_and_what_is_significant(results: RunResults) -> None:
    line = words.headline(results)
    assert line.startswith("On amazon-beauty with SASRec, reland reaches a test NDCG@10 of 0.0462")
    assert "+10.0% against id (0.0420)" in line and "+7.2% against f_item (0.0431)" in line
    assert "The gain over id is significant" in line


def test_headline_does_not_hide_a_loss(results: RunResults) -> None:
    worse = {"reland": replace(results.variants["reland"], test={"ndcg@10": 0.0399})}
    lost = {"reland>id": {"ndcg@10": replace(SURE, difference=-0.0021)}}
    results = replace(results, variants={**results.variants, **worse}, significance=lost)
    line = words.headline(results)
    assert "-5.0% against id" in line and "No gain of reland in NDCG@10 is significant" in line


def test_headline_without_a_test_or_other_variants(heuristic_results: RunResults) -> None:
    assert "No significance test was run" in words.headline(heuristic_results)
    rest = {name: heuristic_results.variants[name] for name in ("id", "f_item")}
    line = words.headline(replace(heuristic_results, variants=rest))
    assert line.endswith("test NDCG@10 id 0.0420, f_item 0.0431.")


def test_the_heuristic_is_never_called_an_llm(results: RunResults, heuristic_results: RunResults) -> None:
    assert "No LLM was used" in words.writer_warning(heuristic_results.pool.provider)
    assert words.writer_warning(results.pool.provider) == ""


def test_borrowed_leaves_seed_users_out() -> None:
    seeds = SeedSet(np.array([2, 0], np.int32), np.zeros(2, np.int32), np.zeros(2, np.int8))
    cosine = np.array([[1.0], [0.3], [1.0], [0.6]], np.float32)
    assignment = Assignment(np.array([[1], [0], [0], [0]], np.int32), cosine)
    np.testing.assert_array_equal(words.borrowed(assignment, seeds), np.float32([0.3, 0.6]))
    line = words.assignment_words(assignment, seeds)
    assert "2 users borrow" in line and "2 of 2 rationales are in use" in line and "by 3 at most" in line


def test_assignment_words_count_the_quantiles(sample: ReportContent) -> None:
    cosine = words.borrowed(sample.assignment, sample.seeds)
    line = words.assignment_words(sample.assignment, sample.seeds)
    assert f"at least {np.median(cosine):.2f}" in line and f"at least {np.quantile(cosine, 0.1):.2f}" in line


def test_seeds_words(sample: ReportContent) -> None:
    line = words.seeds_words(sample)
    important = sample.activity[sample.seeds.user[sample.seeds.how == 1]].mean()
    assert "200 of 2,000 users (10.0%)" in line and "100 as representative, 100 as important" in line
    assert f"important seeds {important:.1f}" in line


def test_cost_of_asking_for_every_user(results: RunResults) -> None:
    rows = {row[0]: row[1:] for row in words.cost_table(results.pool, 2000).rows}
    assert rows["LLM inferences"] == ("200", "2,000", "10.0 times")
    assert rows["tokens read"] == ("100,000", "1,000,000", "10.0 times")
    assert rows["tokens written"] == ("20,000", "200,000", "10.0 times")


def test_unknown_tokens_are_said_to_be_unknown(results: RunResults) -> None:
    unknown = replace(results.pool, tokens_known=False)
    rows = {row[0]: row[1:] for row in words.cost_table(unknown, 2000).rows}
    assert rows["LLM inferences"][2] == "10.0 times" and rows["tokens read"][0] == "not known"


def test_the_heuristic_costs_no_inference(heuristic_results: RunResults) -> None:
    table = words.cost_table(heuristic_results.pool, 2000)
    assert table.rows[0][1] == "0" and "would be asked for 200 users of 2,000" in table.caption


def test_a_best_epoch_that_was_the_last_is_a_warning(results: RunResults) -> None:
    assert words.warnings(results) == []
    one = results.variants["reland"]
    cut = replace(one, per_seed=replace(one.per_seed, best_epoch=[20, 30, 20]))
    (said,) = words.warnings(replace(results, variants={**results.variants, "reland": cut}))
    assert said.startswith("The best epoch of reland was the last one")
    assert not words.may_improve([1], [1]), "what is solved at once has one epoch"
    assert not words.may_improve([None, 3], [None, 2])
