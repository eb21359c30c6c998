"""The grid with `--finished_only`, on artefacts made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.grid.plan import Cell, Progress
from experiments.grid.score_cache import ScoreCache
from experiments.table2 import prepare, train
from reland_jax import flow
from reland_jax.stages import ASSIGN, BUILD_POOL, ITEMS, LOAD, RATIONALES, SAMPLE_SEEDS, SPLIT
from tests.stages.toys import REPEATS, made_of, settings
from tests.toys import inputs_of


def test_a_training_of_other_settings_is_told_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the cell is there, so that it counts as finished until its stamp is compared."""
    inputs, key = inputs_of(REPEATS), ("demo", "sasrec")
    made = made_of(settings(variants=("id",)), tmp_path, {
        LOAD: inputs.interactions, SPLIT: REPEATS, SAMPLE_SEEDS: {"cluster_of_user": np.zeros(4, np.int32)},
        BUILD_POOL: inputs.built, ITEMS: inputs.texts.items, RATIONALES: inputs.texts.rationales,
        ASSIGN: inputs.assignment,
    })  # fmt: skip
    monkeypatch.setattr(flow, "run", lambda *_, **__: made)
    kept, cell = ScoreCache(tmp_path / "cells"), Cell(*key, "id", 0)
    each = prepare({key: made.config}, tmp_path, kept, finished_only=True)[key]
    train(each, cell, Progress([cell], [cell], quiet=True))
    assert "add 'train' to --stages" in each.group.failed["id"][0]
    assert not (tmp_path / "train").exists()
