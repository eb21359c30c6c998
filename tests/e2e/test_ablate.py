"""The command that goes from one row of a table to another, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.ablate import run, steps_of, table
from experiments.configs.reland import get_config
from reland_jax.config import Config
from reland_jax.types import RelandError
from tests.e2e.conftest import merged

STEPS = ["train.objective=softmax train.candidates=20", "score.text_kernel=2.0"]


def test_every_step_has_the_settings_of_those_before() -> None:
    config = Config.from_dict(get_config("demo,neumf").to_dict())
    (first, plain), (second, softmax), (third, last) = steps_of(config, STEPS)
    assert (first, second, third) == ("", *STEPS) and plain == config
    train = dataclasses.replace(config.train, objective="softmax", candidates=20)
    assert softmax == dataclasses.replace(config, train=train)
    assert last == dataclasses.replace(softmax, score=dataclasses.replace(config.score, text_kernel=2.0))


@pytest.mark.parametrize(
    ("step", "message"), [(" ", "it has no setting"), ("train.objectiv=bpr", "did you mean 'objective'")]
)
def test_a_step_that_changes_nothing_known_is_refused(step: str, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        steps_of(Config.from_dict(get_config("demo,neumf").to_dict()), [step])


def test_gains_are_over_the_row_before() -> None:
    values = [([0.02, 0.04], ""), ([0.03, 0.06], "a"), ([0.045, 0.045], "b")]
    rows = [{"change": c, "valid": v, "best_epoch": 3.5, "seconds": 1.0} for v, c in values]
    found = table(rows)
    assert "2 training seeds" in found.caption
    assert [row[:4] for row in found.rows] == [
        ("as configured", "0.0300", "", "3.5"), ("a", "0.0450", "+50.0%", "3.5"),
        ("b", "0.0450", "+0.0%", "3.5"),
    ]  # fmt: skip


@pytest.mark.slow
def test_rows_are_trained_and_kept(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Nothing is ranked for the test part, and a second run trains nothing."""
    config = Config.from_dict(merged(get_config("demo,neumf").to_dict(), settings()))
    steps = steps_of(config, STEPS)
    rows = run(steps, "f_item", tmp_path)
    assert [row["change"] for row in rows] == ["", *STEPS] and all(0 < row["valid"][0] < 1 for row in rows)
    kept = sorted(tmp_path.glob("train/step*/f_item-seed0"))
    assert len(kept) == 3 and not list(tmp_path.glob("train/step*/f_item-seed0/*test*"))
    before = [file.stat().st_mtime_ns for file in tmp_path.rglob("summary.json")]
    assert run(steps, "f_item", tmp_path) == rows
    assert before == [file.stat().st_mtime_ns for file in tmp_path.rglob("summary.json")]
