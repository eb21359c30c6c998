"""Result tables: every number comes from the results or the paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reland_jax.report import comparison_table, tables
from reland_jax.results import RunResults
from tests.report.conftest import SURE


def _row(table: tables.Table, name: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if row[0] == name)
    return dict(zip(table.header, row, strict=True))


def test_comparison_shows_the_numbers_gains_and_stars(results: RunResults) -> None:
    table = tables.comparison(results)
    assert [row[0] for row in table.rows] == ["id", "f_item", "reland"]
    assert _row(table, "id")["test NDCG@10"] == "0.0420"
    reland = _row(table, "reland")
    assert reland["test NDCG@10"] == "0.0462* (+10.0%)"  # 0.0462 / 0.0420 = 1.1
    assert reland["test HR@10"] == "0.0882 (+5.0%)"  # 0.0882 / 0.0840 = 1.05, p_holm 0.08
    assert reland["valid MRR@10"] == "0.0410"
    assert (reland["s/epoch"], reland["best epoch"], reland["epochs"]) == ("8.25", "20", "30")
    assert _row(table, "f_item")["test HR@10"] == "0.0835 (-0.6%)"


def test_a_significant_loss_gets_no_star(results: RunResults) -> None:
    lost = replace(SURE, difference=-0.0042)
    results = replace(results, significance={"reland>id": {"ndcg@10": lost}})
    assert "*" not in _row(tables.comparison(results), "reland")["test NDCG@10"]


def test_variants_come_in_the_papers_order_then_ablations(results: RunResults) -> None:
    variants = dict.fromkeys(("noise", "reland", "id"), results.variants["id"])
    assert list(tables.in_order(replace(results, variants=variants))) == ["id", "reland", "noise"]


def test_paper_table_shows_ours_theirs_and_the_difference(results: RunResults) -> None:
    table = tables.against_paper(results)
    assert table is not None
    row = _row(table, "reland")
    sides = ("ours", "paper", "ours − paper")
    assert [row[f"NDCG@10 {side}"] for side in sides] == ["0.0462", "0.0440", "+0.0022"]
    assert [row[f"HR@10 {side}"] for side in sides] == ["0.0882", "0.0841", "+0.0041"]
    assert "some-llm-1" in table.caption and "ChatGPT-3.5" in table.caption


def test_paper_table_says_what_differs(heuristic_results: RunResults) -> None:
    table = tables.against_paper(replace(heuristic_results, dataset="ml-1m"))
    assert table is not None and "no LLM" in table.caption and "1,000,209" in table.caption


@pytest.mark.parametrize(("key", "value"), [("dataset", "demo"), ("backbone", "mine")])
def test_no_paper_table_where_the_paper_has_no_cell(results: RunResults, key: str, value: str) -> None:
    assert tables.against_paper(replace(results, **{key: value})) is None


def test_training_seeds_table(results: RunResults) -> None:
    table = tables.over_training_seeds(results)
    assert table is not None
    row = _row(table, "reland")
    deviation = np.std([0.0452, 0.0462, 0.0472], ddof=1)
    assert (row["training seeds"], row["mean"]) == ("3", "0.0462")
    assert row["standard deviation"] == f"{deviation:.4f}"
    assert (row["lowest"], row["highest"]) == ("0.0452", "0.0472")


def test_significance_table(results: RunResults) -> None:
    table = tables.significance(results)
    assert table is not None and len(table.rows) == 3
    row = _row(table, "reland>id NDCG@10")
    assert row["difference"] == "+0.0042" and row["95% bootstrap interval"] == "+0.0021 to +0.0063"
    assert (row["p"], row["p after Holm"]) == ("< 0.0001", "0.0002")


def test_who_is_evaluated_is_a_table_and_notes_follow_the_tables(results: RunResults) -> None:
    results = replace(results, notes=["one thing.", "another."])
    table = tables.evaluated(results)
    assert table.rows == [("valid", "1,200", "34", "1,500", "7"), ("test", "1,200", "34", "1,500", "0")]
    text = comparison_table(results)
    assert tables.to_markdown(table) in text and text.endswith("\n\nNote: one thing.\nNote: another.")


def test_optional_tables_are_left_out(heuristic_results: RunResults) -> None:
    plain = replace(heuristic_results, dataset="demo")
    assert tables.result_tables(plain) == [tables.comparison(plain), tables.evaluated(plain)]


def test_without_id_there_is_no_gain_to_show(results: RunResults) -> None:
    alone = replace(results, variants={"reland": results.variants["reland"]}, significance={})
    assert _row(tables.comparison(alone), "reland")["test NDCG@10"] == "0.0462"


def test_markdown_is_aligned_and_complete(results: RunResults) -> None:
    text = comparison_table(results)
    blocks = [[line for line in block.splitlines() if line] for block in text.split("\n\n")]
    grids = [block for block in blocks if block[0].startswith("|")]
    assert len(grids) == 5
    for grid in grids:
        assert len({len(line) for line in grid}) == 1 and len({line.count("|") for line in grid}) == 1
        assert set(grid[1]) <= set("| -:")
