"""Groups and verdicts from kept scores alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis.findings import Verdict
from experiments.analysis.kept import kept_groups
from experiments.analysis.quality import grid_of, quality
from experiments.grid.plan import Cell
from experiments.grid.score_cache import ScoreCache
from experiments.grid.scores import CellSummary, Group, Scores
from experiments.paper import Asked, run
from reland_jax.config import BACKBONES
from reland_jax.records import to_plain
from reland_jax.types import RelandError
from tests.experiments.grid.test_summary import make_group

NAMES = ("id", "f_item", "reland", "permuted")


def keep(folder: Path, group: Group, provider: str = "file") -> None:
    """Keeps the cells of a group, and beside the folder a summary that names the writer."""
    cache = ScoreCache(folder / "cells")
    dataset, backbone = group.config.data.name, group.config.model.backbone
    for variant, seeds in group.runs.items():
        for seed, scores in seeds.items():
            cache.keep(Cell(dataset, backbone, variant, seed), "of another version", scores)
    pool = to_plain(group.pool) | {"provider": provider}
    summary = {"groups": [{"dataset": dataset, "backbone": backbone, "pool": pool}]}
    (folder / f"table2_{backbone}.json").write_text(json.dumps(summary), encoding="utf-8")


def planted(backbone: str, gain: float) -> Group:
    """A group whose `reland` is above each other variant by about `gain` for every user."""
    group = make_group(backbone, NAMES)
    rng = np.random.default_rng(0)
    level = {"id": 0.2, "f_item": 0.3, "permuted": 0.3, "reland": 0.3 + gain}
    for variant, seeds in group.runs.items():
        for seed, found in seeds.items():
            test = {m: level[variant] + rng.normal(0, 0.01, len(v)) for m, v in found.test.items()}
            means = {m: float(v.mean()) for m, v in test.items()}
            summary = CellSummary(found.summary.valid, means, 9, 5, 1.0)
            seeds[seed] = Scores(summary, found.users, test)
    return group


def test_kept_groups_are_those_that_were_kept(tmp_path: Path) -> None:
    """Cells of any origin, in the order of the grid, with what wrote their rationales."""
    kept = [make_group(name, NAMES, seeds=(0, 2)) for name in ("sasrec", "neumf")]
    del kept[1].runs["permuted"]
    for group in kept:
        keep(tmp_path, group)
    found = kept_groups(tmp_path / "cells", ["amazon-beauty", "demo"])
    assert [one.config.model.backbone for one in found] == ["neumf", "sasrec"]
    assert found[0].runs["permuted"] == {} and found[0].pool.provider == "file"
    for variant in NAMES:
        for seed in (0, 2):
            ours, theirs = found[1].runs[variant][seed], kept[0].runs[variant][seed]
            np.testing.assert_array_equal(ours.users, theirs.users)
            np.testing.assert_array_equal(ours.test["ndcg@10"], theirs.test["ndcg@10"])


def test_cells_of_different_data_are_refused(tmp_path: Path) -> None:
    group = make_group("sasrec", NAMES)
    found = group.runs["id"][0]
    keep(tmp_path, group)
    other = Scores(found.summary, found.users[:9], {m: v[:9] for m, v in found.test.items()})
    ScoreCache(tmp_path / "cells").keep(Cell("amazon-beauty", "sasrec", "id", 0), "", other)
    with pytest.raises(RelandError, match="amazon-beauty_sasrec_.* evaluate different users"):
        kept_groups(tmp_path / "cells", ["amazon-beauty"])


@pytest.mark.parametrize(
    ("gain", "provider", "count", "expected"),
    [
        (0.05, "file", 6, Verdict.HOLDS),
        (-0.05, "file", 6, Verdict.DOES_NOT),
        (0.05, "heuristic", 6, Verdict.NOT_TESTABLE),
        (0.05, "", 6, Verdict.NOT_TESTABLE),
        (0.05, "file", 5, Verdict.NOT_TESTABLE),
    ],
)
def test_verdicts_follow_their_rules(
    tmp_path: Path, gain: float, provider: str, count: int, expected: Verdict
) -> None:
    """A claim about every backbone needs all of them; one about words needs an LLM, and its control."""
    for backbone in BACKBONES[:count]:
        keep(tmp_path, planted(backbone, gain), provider)
    grid = grid_of(kept_groups(tmp_path / "cells", ["amazon-beauty"]), {})
    found = {one.claim: one.verdict for one in quality(grid).findings}
    of_words = [found[claim] for claim in found if "seed users help" in claim]
    assert found["ReLand is above the backbone with item features."] == expected
    assert of_words == [expected if count == 6 else Verdict.HOLDS]
    assert {found[claim] for claim in found if "random vectors" in claim} == {Verdict.NOT_TESTABLE}
    assert found["Item features improve every backbone."] == (
        Verdict.HOLDS if count == 6 else Verdict.NOT_TESTABLE
    )


def test_the_page_is_made_of_kept_cells(tmp_path: Path) -> None:
    """Parts by name, JSON and page; an unknown part and an empty folder are errors."""
    keep(tmp_path, planted("sasrec", 0.05))
    asked = Asked(tmp_path / "out", ["amazon-beauty"], cells=tmp_path / "cells", finished_only=True)
    made = run(asked, ["table2"])
    assert list(made["parts"]) == ["table2"]
    assert made == json.loads((tmp_path / "out/paper.json").read_text(encoding="utf-8"))
    page = (tmp_path / "out/paper.html").read_text(encoding="utf-8")
    assert "not testable here" in page and "<script" not in page and "http" not in page.split("<svg")[0]
    with pytest.raises(RelandError, match=r"--parts: 'tabel2' is not known; did you mean 'table2'\?"):
        run(asked, ["tabel2"])
    with pytest.raises(RelandError, match="there are no scores of demo; name their folder by --cells"):
        run(asked._replace(datasets=["demo"]), ["table2"])
