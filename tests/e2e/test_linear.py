"""The linear models end to end: the main job, its report, and the grid beside another backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.grid.plan import plan
from experiments.table2 import run as run_grid
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished
from tests.e2e.test_run import flags_of


@pytest.mark.parametrize("backbone", ["ease", pytest.param("ease_recency", marks=pytest.mark.slow)])
def test_the_main_job(finished: Callable[[str], Finished], backbone: str) -> None:
    """`results.json`, the report and the artefacts of three variants; one epoch that is the best."""
    done = finished(backbone)
    results = json.loads((done.workdir / "results.json").read_text())
    for variant in VARIANTS:
        found = results["variants"][variant]
        assert found["objective"] == "closed_form" and found["epochs"] == found["best_epoch"] == 1
        (entry,) = found["history"]
        assert entry["ndcg@10"] == found["valid"]["ndcg@10"] and entry["seconds"] > 0
        assert 0 < found["test"]["ndcg@10"] < 1
        assert (done.workdir / "train" / f"{variant}-seed0" / "summary.json").is_file()
    assert results["significance"]["f_item>id"]["ndcg@10"]
    page = (done.workdir / "report.html").read_text()
    assert f"{results['variants']['reland']['test']['ndcg@10']:.4f}" in page
    # The demo's items are told apart by what is bought together: chance is 0.1.
    assert results["variants"]["id"]["valid"]["ndcg@10"] > 0.1


def test_the_grid(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Two protocols in one grid, and the same cells again without solving anything."""
    changes = [text.removeprefix("--config.") for text in flags_of(settings())]
    configs = plan(["demo"], ["ease", "ease_recency"], ["id", "f_item"], 1, [], changes)
    table = run_grid(configs, tmp_path)
    groups = {group.backbone: group for group in table.groups}
    assert set(groups) == {"ease", "ease_recency"}
    assert groups["ease"].objective == "closed_form"
    values = {name: group.cells["f_item"].test["ndcg@10"] for name, group in groups.items()}
    assert all(np.isfinite(list(values.values())))
    written = (tmp_path / "table2.md").read_text()
    assert "ease" in written and "ease_recency" in written
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("summary.json")}
    again = run_grid(configs, tmp_path)
    assert again.groups == table.groups
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("summary.json")}
