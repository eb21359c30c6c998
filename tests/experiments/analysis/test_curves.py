"""Figure 7: bands, the number for stability, and the verdicts, from curves made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.curves import (
    Curve,
    as_plain,
    band,
    curves_part,
    ends_of,
    from_plain,
    stability,
    trained_curves,
)
from tests.experiments.grid.test_summary import make_group

STEADY = [0.1, 0.2, 0.25, 0.27, 0.28, 0.29]
ROUGH = [0.1, 0.15, 0.24, 0.2, 0.26, 0.22]


def curve(scores: list[float], seconds: float = 1.0) -> Curve:
    return Curve(list(range(1, len(scores) + 1)), scores, seconds)


def test_a_band_is_of_the_epochs_that_all_seeds_have() -> None:
    found = band({0: curve([0.1, 0.3, 0.2]), 1: Curve([2, 3, 4], [0.5, 0.4, 0.9], 1.0)})
    assert found.epochs == [2, 3]
    np.testing.assert_allclose([found.mean, found.low, found.high], [[0.4, 0.3], [0.3, 0.2], [0.5, 0.4]])


def test_stability_is_of_the_changes_after_the_first_part() -> None:
    """By hand: the best epoch is 6, so scores from epoch 2 on count; even steps have no spread."""
    late = np.array(STEADY[1:])
    assert stability(curve(STEADY)) == pytest.approx(np.std(late[1:] - late[:-1]))
    assert stability(curve([0.0, 0.5, 0.6, 0.7, 0.8])) == pytest.approx(0)  # the first steep step is left out
    assert np.isnan(stability(curve([0.1, 0.2]))) and stability(curve(ROUGH)) > stability(curve(STEADY))


def verdicts(base: Any, ours: Any) -> list[str]:
    plain = json.loads(json.dumps(as_plain("demo", "sasrec", {"id": base, "reland": ours})))
    return [one.verdict.value for one in curves_part([plain], {}).findings]


def test_verdicts_follow_their_rules() -> None:
    two = {0: curve(ROUGH), 1: curve(ROUGH)}
    better = {seed: curve([each + 0.02 for each in STEADY], 1.2) for seed in (0, 1)}
    assert verdicts(two, better) == ["holds"] * 4
    assert verdicts(better, two) == ["does not hold"] * 3 + ["holds"]
    assert verdicts({0: two[0]}, better) == ["not testable here"] * 3 + ["holds"]
    slow = {seed: one._replace(seconds=1.3) for seed, one in better.items()}
    assert verdicts(two, slow)[3] == "does not hold"
    once_rough = {0: better[0], 1: curve([each + 0.02 for each in ROUGH[:-1]] + [0.1])}
    assert verdicts(two, once_rough)[1] == "does not hold"
    barred = curves_part([as_plain("demo", "sasrec", {"id": two, "reland": better}, "no LLM")], {})
    assert [one.verdict.value for one in barred.findings] == ["not testable here"] * 3 + ["holds"]
    part = curves_part([], {"beauty": "none is kept"})
    assert [one.why for one in part.findings] == ["none is kept"] * 4


def test_of_kept_cells_only_the_ends_are_judged() -> None:
    """Also a training without its validations tells where it ended and what an epoch took."""
    group = make_group("sasrec", ("id", "reland"))
    found = ends_of(group.runs)
    one = group.runs["id"][0].summary
    assert found["id"][0] == Curve([one.best_epoch], [one.valid["ndcg@10"]], one.seconds_per_epoch)
    worse = {seed: each._replace(scores=[0.0]) for seed, each in found["id"].items()}
    assert verdicts(worse, found["reland"])[:3] == ["not testable here"] * 2 + ["holds"]
    assert verdicts(found["reland"], worse)[2] == "does not hold"


def test_curves_are_read_of_finished_trainings(tmp_path: Path) -> None:
    """Epochs without a validation are passed over."""
    rows = [{"epoch": epoch, "loss": 1.0} for epoch in range(1, 5)]
    rows[1]["ndcg@10"], rows[3]["ndcg@10"] = 0.2, 0.3
    for name in ("id-seed0", "id-seed2", "reland-seed0", "other-seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"history": rows, "seconds_per_epoch": 2.5}))
    found = trained_curves(tmp_path)
    assert {name: sorted(seeds) for name, seeds in found.items()} == {"id": [0, 2], "reland": [0]}
    assert found["id"][2] == Curve((2, 4), (0.2, 0.3), 2.5)
    plain = json.loads(json.dumps(as_plain("demo", "sasrec", found)))
    assert [list(one) for one in from_plain(plain)["id"][0][:2]] == [[2, 4], [0.2, 0.3]]
    part = curves_part([plain], {})
    assert part.drawings[0][0].startswith("<svg") and part.tables[0].rows[0][:2] == ("id", "2")
