"""Which stages run again when a setting changes, and what running a stage alone needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.run import run
from reland_jax import pipeline as pipeline_module
from reland_jax.config import Config
from reland_jax.pipeline import Pipeline
from reland_jax.storage import Trained
from reland_jax.types import VARIANTS, RelandError, TargetRanks
from tests.e2e.conftest import Finished, merged

Finish = Callable[[str], Finished]
TRAIN = {f"train/{variant}-seed0" for variant in VARIANTS}
FROM_SEEDS = {"sample_seeds", "build_pool", "encode_text", "assign", "train/reland-seed0"}


@pytest.fixture
def copied(finished: Finish, tmp_path: Path) -> Finished:
    """A finished LightGCN run in a folder of its own."""
    run = finished("lightgcn")
    shutil.copytree(run.workdir, tmp_path / "work")
    return run._replace(workdir=tmp_path / "work")


class Counted:
    """Stands in for the stages that cost time, and writes down the names of those that were computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, inputs: Any) -> None:
        """Replaces them; cheap stages run as they are."""
        self.ran: set[str] = set()
        count = inputs.splits.num_users
        stand_ins = {"_encode_users": np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)}
        for name, stage in {"load_interactions": "load", "split": "split", "_sample_seeds": "sample_seeds",
                            "_build_pool": "build_pool", "_assign": "assign"}.items():  # fmt: skip
            self._watch(monkeypatch, pipeline_module, name, stage, getattr(pipeline_module, name))
        self._watch(monkeypatch, pipeline_module, "_encode_text", "encode_text", lambda *_: inputs.texts)
        vectors = stand_ins["_encode_users"]
        self._watch(monkeypatch, Pipeline, "_encode_users", "encode_users", lambda *_: vectors)
        monkeypatch.setattr(Pipeline, "_fit", self._fit)

    def _watch(
        self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, stage: str, function: Callable[..., Any]
    ) -> None:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.ran.add(stage)
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    def _fit(self, task: Any, splits: Any, config: Any, name: str, stamp: str) -> Trained:
        self.ran.add(name)
        none = TargetRanks(*(np.zeros(0, np.int32),) * 3)
        return Trained({"params": np.zeros(1)}, {}, {"valid": none, "test": none})
