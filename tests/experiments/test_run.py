"""The main job: which trainings it makes, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import run as main_job
from reland_jax.flow import Made, Stage
from reland_jax.stages import SPLIT
from tests.stages.toys import REPEATS, made_of, settings


def test_every_variant_is_trained_with_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed by seed, so that a job that is stopped has compared all variants."""
    order: list[str] = []

    def make(made: Made, stage: Stage[Any]) -> str:
        order.append(stage.name)
        return stage.name

    monkeypatch.setattr(Made, "make", make)
    config = settings(variants=("id", "reland"), seeds_of_training=(0, 5))
    runs = main_job._train(made_of(config, tmp_path, {SPLIT: REPEATS}))
    assert runs == {name: {seed: f"train/{name}-seed{seed}" for seed in (0, 5)} for name in ("id", "reland")}
    assert order == [f"train/{name}-seed{seed}" for seed in (0, 5) for name in ("id", "reland")]
