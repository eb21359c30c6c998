"""Result tables: every number comes from the results or the paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reland_jax.report import console_report, tables
from reland_jax.report.console import CONSOLE, to_text
from reland_jax.results import RunResults
from tests.report.conftest import SURE


def _row(table: tables.Table, name: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if row[0] == name)
    return dict(zip(table.header, row, strict=True))


def test_comparison_shows_the_numbers_gains_and_stars(results: RunResults) -> None:
    table = tables.comparison(results)
    assert [row[0] for row in table.rows] == ["(popularity)", "id", "f_item", "reland"]
    assert _row(table, "(popularity)")["test HR@10"] == "0.0234"
    assert _row(table, "id")["test NDCG@10"] == "0.0420"
    reland = _row(table, "reland")
    assert reland["test NDCG@10"] == "0.0462* (+10.0%)"  # 0.0462 / 0.0420 = 1.1
    assert reland["test HR@10"] == "0.0882 (+5.0%)"  # 0.0882 / 0.0840 = 1.05, p_holm 0.08
    assert _row(table, "f_item")["test HR@10"] == "0.0835 (-0.6%)"
    reland = _row(tables.trainings(results), "reland")
    assert reland["valid MRR@10"] == "0.0410"
    assert (reland["s/epoch"], reland["best epoch"], reland["epochs"]) == ("8.25", "20", "30")


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
    text = console_report(results)
    assert to_text(table) in text and text.endswith("\n\nNote: one thing.\nNote: another.")


def test_optional_tables_are_left_out(heuristic_results: RunResults) -> None:
    plain = replace(heuristic_results, dataset="demo")
    plain = replace(plain, overview=replace(plain.overview, lists={}))
    made = (tables.comparison, tables.trainings, tables.by_activity, tables.evaluated)
    assert tables.result_tables(plain) == [each(plain) for each in made]


def test_without_id_there_is_no_gain_to_show(results: RunResults) -> None:
    alone = replace(results, variants={"reland": results.variants["reland"]}, significance={})
    assert _row(tables.comparison(alone), "reland")["test NDCG@10"] == "0.0462"


def test_markdown_is_aligned_and_complete(results: RunResults) -> None:
    grids = [
        tables.to_markdown(table).split("\n\n")[1].splitlines() for table in tables.result_tables(results)
    ]
    assert len(grids) == 8
    for grid in grids:
        assert len({len(line) for line in grid}) == 1 and len({line.count("|") for line in grid}) == 1
        assert set(grid[1]) <= set("| -:")


def test_levels_without_users_have_no_figures(results: RunResults) -> None:
    table = tables.by_activity(results)
    assert table.header == ("level", "users", "interactions", "id", "f_item", "reland", "reland>id")
    assert _row(table, "L1")["reland>id"] == "+25.0%" and _row(table, "L1")["interactions"] == "3 to 4"
    assert table.rows[1] == ("L2", "0", *["–"] * 5)


def test_everything_fits_the_console(results: RunResults) -> None:
    """The headline first, and every cell of every table in lines of at most 100 columns."""
    text = console_report(results)
    assert text.startswith("On amazon-beauty with SASRec") and "WARNING" not in text
    assert max(map(len, text.splitlines())) <= CONSOLE
    for table in tables.result_tables(results):
        assert all(cell in text for row in table.rows for cell in row)


def test_columns_that_do_not_fit_follow_below() -> None:
    header = ("name", *(f"a long name of column {place}" for place in range(12)))
    table = tables.Table("caption", header, [(f"row {r}", *(f"{r}.{c:09}" for c in range(12))) for r in "12"])
    text = to_text(table, 60)
    assert max(map(len, text.splitlines())) <= 60 and text.count("row 1") == 3
    assert all(cell in text for row in table.rows for cell in row)
