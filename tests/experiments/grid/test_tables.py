"""The grid's tables and page: every figure from the table, rules told in words, gaps shown as dashes."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.grid import tables
from experiments.grid.summary import GridSummary
from reland_jax.report.tables import MISSING, Table
from reland_jax.variants import ABLATIONS, VARIANTS
from tests.experiments.grid.test_summary import make_group, summed
from tests.looks import SIZES, faults_of
from tests.report.conftest import HOSTILE
from tests.report.test_page import _Page


def _row(table: Table, name: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if row[0] == name)
    return dict(zip(table.header, row, strict=True))


def _tables(table: GridSummary, dataset: str = "amazon-beauty") -> list[Table]:
    return tables.dataset_tables(table, dataset)


@pytest.fixture(scope="module")
def whole() -> GridSummary:
    """Two backbones on Beauty with the ablations, and one that no training was finished of."""
    variants = (*VARIANTS, *ABLATIONS)
    empty = make_group("duorec", variants)
    for runs in empty.runs.values():
        runs.clear()
    empty.failed["id"][1] = f"step 3: {HOSTILE}"
    return summed(make_group("sasrec", variants), make_group("neumf", variants, reland=0.21), empty)


def test_scores_stand_beside_the_papers_with_stars(whole: GridSummary) -> None:
    ndcg, hr = _tables(whole)[:2]
    row, cells = _row(ndcg, "SASRec"), whole.groups[0].cells
    ours = cells["reland"].test["ndcg@10"]
    assert row["id"] == f"{cells['id'].test['ndcg@10']:.4f}"
    assert row["reland"] == f"{ours:.4f}*"
    assert (row["reland paper"], row["reland − paper"]) == ("0.0440", f"{ours - 0.0440:+.4f}")
    assert "permuted" in row and "permuted paper" not in row
    assert _row(hr, "NeuMF")["f_item paper"] == "0.0351"
    assert "ChatGPT-3.5" in ndcg.caption and "some-llm-1" in ndcg.caption


def test_gains_stand_beside_the_papers(whole: GridSummary) -> None:
    table = _tables(whole)[2]
    row = _row(table, "SASRec")
    gain = whole.groups[0].comparisons["reland>id"]["ndcg@10"].relative
    assert (row["reland>id"], row["reland>id paper"]) == (f"{gain:+.1%}*", "+7.3%")
    assert _row(table, "NeuMF")["reland>id paper"] == "+12.3%"
    loss = _row(table, "NeuMF")["reland>f_item"]
    assert loss.startswith("-") and "*" not in loss
    assert {"reland>permuted", "reland>noise"} <= set(row)
    mean = whole.datasets["amazon-beauty"].mean_gains["reland>id"]["ndcg@10"]
    assert _row(table, "mean")["reland>id"] == f"{mean.ours:+.1%}"
    assert _row(table, "mean")["reland>id paper"] == "+9.8%"  # of 7.32% and 12.34%


def test_levels_seeds_epochs_and_tests_are_listed(whole: GridSummary) -> None:
    levels, trainings, per_seed, significance, _ = _tables(whole)[4:]
    first = _row(levels, "SASRec L1")
    assert (first["users"], first["interactions"]) == ("100", "3")
    value = whole.groups[0].levels[0].gains["reland>f_item"]
    assert first["reland>f_item"] == f"{value:+.1%}"
    assert "quartiles" in levels.caption and "Equal numbers" in levels.caption
    row = _row(trainings, "SASRec id")
    assert [row[name] for name in ("seeds", "epochs", "best epochs")] == ["2", "20 21", "10 11"]
    assert row["s/epoch"] == "2.25"
    values = whole.groups[0].cells["id"].per_seed.valid["hr@10"]
    assert _row(per_seed, "SASRec id")["valid HR@10"] == " ".join(f"{value:.4f}" for value in values)
    assert len(significance.rows) == 2 * 7 * 2
    assert _row(significance, "SASRec reland>id NDCG@10")["p after Holm"] == "< 0.0001"


def test_the_test_over_backbones_stands_last(whole: GridSummary) -> None:
    pooled = _tables(whole)[-1]
    one = whole.pooled["amazon-beauty"]["reland>f_item"]["ndcg@10"]
    row = _row(pooled, "reland>f_item NDCG@10")
    assert (row["backbones"], row["seeds"], row["users"]) == ("2", "2 2", "400")
    assert row["difference"] == f"{one.difference:+.4f}" and "mean over backbones" in pooled.caption
    assert "f_item>id NDCG@10" not in [each[0] for each in pooled.rows]


def test_missing_cells_are_dashes(whole: GridSummary) -> None:
    found = _tables(whole)
    row = _row(found[0], "DuoRec")
    assert (row["id"], row["id − paper"], row["id paper"]) == (MISSING, MISSING, "0.0426")
    assert _row(found[2], "DuoRec")["reland>id"] == MISSING
    assert set(list(_row(found[5], "DuoRec id").values())[2:]) == {MISSING}


def test_no_paper_columns_without_the_papers_figures() -> None:
    ndcg = _tables(summed(make_group(dataset="demo")), "demo")[0]
    assert list(ndcg.header) == ["backbone", "id", "f_item", "reland"]


def test_notes_say_seeds_and_failures(whole: GridSummary) -> None:
    told = " ".join(tables.notes(whole))
    assert "fewer than 5 training seeds (the least is 0)" in told and "over all 28 comparisons" in told
    assert "amazon-beauty, DuoRec, id, seed 1 failed: step 3" in told
    enough = " ".join(tables.notes(summed(make_group(seeds=(0, 1, 2, 3, 4)))))
    assert "preliminary" not in enough and "Training seeds 0, 1, 2, 3, 4" in enough


def test_words_tell_orders_and_whose_the_gain_is(whole: GridSummary) -> None:
    told = tables.dataset_words(whole, "amazon-beauty")
    assert "holds in 5 of 6 comparisons" in told[0] and "the paper's is +9.8%" in told[2]
    assert "2 of 2 backbones" in told[1]
    sasrec, neumf, duorec = told[3:6]
    assert sasrec.startswith("SASRec") and "its gain is due to the content" in sasrec
    assert re.search(r"permuted [+-]\d+\.\d%, noise [+-]\d+\.\d%", sasrec)
    assert neumf.endswith("The gain is not due to the LLM.") and "permuted" in neumf
    assert "no ablation was trained" in duorec


def test_the_heuristic_is_never_called_an_llm(whole: GridSummary) -> None:
    pool = replace(whole.groups[0].pool, provenance={"provider": "heuristic"})
    groups = [replace(group, pool=pool) for group in whole.groups]
    told = tables.dataset_words(replace(whole, groups=groups), "amazon-beauty")
    assert sum("No LLM was used" in sentence for sentence in told) == 1


def test_files_are_whole_and_self_contained(whole: GridSummary, tmp_path: Path) -> None:
    tables.write_grid(tmp_path, whole)
    assert sorted(os.listdir(tmp_path)) == ["table2.html", "table2.md"]
    html = (tmp_path / "table2.html").read_text(encoding="utf-8")
    parsed = _Page(html)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(reference.removeprefix("#") in parsed.ids for reference in parsed.references)
    assert "script" not in parsed.tags and parsed.tags.count("table") == 10
    markdown = (tmp_path / "table2.md").read_text(encoding="utf-8")
    for table in _tables(whole):
        for row in table.rows:
            assert all(cell in markdown for cell in row)
            assert all(cell in parsed.texts["td"] for cell in row[1:])


def test_a_best_epoch_that_was_the_last_is_a_warning(whole: GridSummary) -> None:
    assert tables.warnings(whole) == []
    group = whole.groups[0]
    cell = group.cells["reland"]
    cells = {**group.cells, "reland": replace(cell, per_seed=replace(cell.per_seed, best_epoch=[10, 21]))}
    cut = replace(whole, groups=[replace(group, cells=cells), *whole.groups[1:]])
    (said,) = tables.warnings(cut)
    assert "of: amazon-beauty SASRec reland. With more epochs" in said
    assert f"**Warning:** {said}" in tables.grid_markdown(cut)
    assert 'class="warning"' in tables.grid_page(cut)


def test_a_page_draws_the_gains_and_the_scores_of_every_data_set(whole: GridSummary) -> None:
    html = tables.grid_page(whole)
    assert html.count("<svg") == 2 * len(whole.datasets) and html.index("<svg") < html.index("<table")
    for text in ("SASRec reland&gt;id", "NeuMF reland&gt;f_item", "test NDCG@10"):
        assert text in html, text


@pytest.mark.slow
@SIZES
def test_the_page_can_be_read_on_every_screen(
    browser: Any, whole: GridSummary, tmp_path: Path, width: int, scheme: str
) -> None:
    tables.write_grid(tmp_path, whole)
    assert not faults_of(browser, tmp_path / "table2.html", width, scheme)
