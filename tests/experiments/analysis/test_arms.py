"""Arms against the whole method: what is paired with what, and the verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.analysis.arms import FIGURE_5, OWN, TABLE_3, Arm, arms_part
from experiments.grid.scores import Group, Scores
from experiments.paper import Asked, _idle
from tests.experiments.grid.test_summary import make_group


def group(levels: dict[str, float], seeds: tuple[int, ...] = (0, 1)) -> Group:
    """A group whose variants have these means in every metric."""
    made, rng = make_group("sasrec", tuple(levels), seeds, **levels), np.random.default_rng(0)
    for variant, runs in made.runs.items():
        for seed, one in runs.items():
            test = {m: levels[variant] + rng.normal(0, 0.01, len(v)) for m, v in one.test.items()}
            runs[seed] = Scores(one.summary, one.users, test)
    return made


def verdicts(arms: tuple[Arm, ...], grids: Any, idle: Any = {}) -> dict[str, str]:  # noqa: B006
    part = arms_part("figure5", "", arms, grids, idle)
    return {one.claim: one.verdict.value for one in part.findings}


def test_the_method_is_compared_with_itself_without_a_part() -> None:
    """Over the training seeds that both have; a loss and an arm that is missing are told apart."""
    whole = group({"id": 0.1, "f_item": 0.2, "permuted": 0.2, "reland_only": 0.2, "reland": 0.3})
    random = group({"reland": 0.4}, (1, 2))
    found = verdicts(FIGURE_5, {"shared": [whole], "shared-seeds.sampling_random": [random]})
    assert list(found.values()) == ["holds", "does not hold", "not testable here"]
    assert set(verdicts(FIGURE_5, {}).values()) == {"not testable here"}
    told = arms_part("figure5", "", FIGURE_5, {"shared": [whole]}, {})
    assert [row[0] for row in told.tables[0].rows] == ["backbone", "f_item", "permuted", "w/o i.f.", "reland"]
    ours = np.mean([whole.runs["reland"][s].test["ndcg@10"] for s in (0, 1)])
    theirs = np.mean([whole.runs["id"][s].test["ndcg@10"] for s in (0, 1)])
    assert told.tables[0].rows[0][4].startswith(f"{ours - theirs:+.4f}")


@pytest.mark.parametrize(("level", "expected"), [(0.3, "holds"), (0.31, "holds"), (0.33, "does not hold")])
def test_comparable_is_at_most_a_twentieth_lower(level: float, expected: str) -> None:
    kar = next(arm for arm in TABLE_3 if "KAR" in arm.claim)
    assert kar.source == OWN and "fusion.adaptor=hea" in kar.changes
    found = verdicts(TABLE_3, {"shared": [group({"reland": 0.3})], kar.grid: [group({"reland": level})]})
    assert found[kar.claim] == expected
    weak = {"shared": [group({"reland": 0.3, "id": 0.35})], kar.grid: [group({"reland": level})]}
    assert verdicts(TABLE_3, weak)[kar.claim] == "not testable here"  # it does not reach the plain backbone
    assert [v for claim, v in found.items() if "SLIM" in claim] == ["not testable here"]


def test_the_grid_of_table_3_has_every_text_with_every_adaptor() -> None:
    assert len(TABLE_3) == 2 + 3 * 5 and len({(arm.variant, arm.grid) for arm in TABLE_3}) == len(TABLE_3)


def test_arms_that_pools_do_not_allow_are_told(tmp_path: Any) -> None:
    file = ["demo=pool.jsonl"]
    assert set(_idle(Asked(tmp_path, pools=file), FIGURE_5)) == {
        "shared-seeds.sampling_random", "shared-pool.prompt_direct",
    }  # fmt: skip
    assert _idle(Asked(tmp_path), FIGURE_5) == {}
    assert {arm.source for arm in TABLE_3 if arm.grid in _idle(Asked(tmp_path), TABLE_3)} == {OWN}
    assert _idle(Asked(tmp_path, own_pools=file), TABLE_3) == {}
    # Seed users can be drawn anew among texts of all users, whose prompt is what it was.
    assert set(_idle(Asked(tmp_path, own_pools=file), FIGURE_5)) == {"shared-pool.prompt_direct"}
