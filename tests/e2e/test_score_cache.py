"""Kept scores of finished cells: those in the repository are found, whatever settings were added since."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.grid.plan import Cell
from experiments.grid.score_cache import ScoreCache
from experiments.grid.scores import CellSummary, Scores
from experiments.harness.settings import with_settings
from reland_jax.config import Config
from reland_jax.data import data_fingerprint, load_interactions
from reland_jax.stages import LOAD, SPLIT, encoding, pool, training
from reland_jax.types import RelandError
from tests.stages.toys import made_of
from tests.toys import planted_splits

DATA = {
    "amazon-beauty": "0fdd92a61d91c5c96d482e83b6b2e345c064edc323ffd9cff1fc5408c9704334",
    "ml-1m": "a2e8e6d61c7192d33be7562a6c059274be172d0828819504479a60a026fff7af",
}
"""Fingerprints of the data that the cells were trained on, as they were when the cells were kept."""

CHECKSUM = {"file": "75038ace9d000de4c842d888dd3ecb0fd25ef8ad1f9e1bd57699fcca9f83c59d", "heuristic": ""}
"""Of the file of the pool, by provider."""

ENCODER = "5ae39f8a2fe532443865579ed98801a7eb96ae9c7fa5ec74316244f8480c3c37"
"""Of the weights of the text encoder."""


@pytest.fixture(scope="module")
def cells(repository: Path) -> Path:
    """The folder of the kept cells."""
    return repository / "experiments/results/cells"


def parsed(path: Path) -> Cell:
    """The cell of a file name."""
    found = re.fullmatch(r"(.+?)_(ease_recency|[a-z0-9+]+)_(.+)_seed(\d+)", path.stem)
    assert found
    return Cell(*found.groups()[:3], int(found[4]))


def settings_of(cell: Cell, **changes: Any) -> Config:
    """The settings that a cell was trained with."""
    config = Config.from_dict(get_config(f"{cell.dataset},{cell.backbone}").to_dict())
    provider = {"pool.provider": "file", "pool.path": "x"} if cell.dataset == "amazon-beauty" else {}
    return with_settings(config, provider | changes)


def origin_of(cell: Cell, config: Config, data: str) -> str:
    """The origin of a cell's scores, as the grid computes it; of the data only the fingerprint is needed."""
    values = {LOAD: None, SPLIT: planted_splits()}  # every user has training items
    made = made_of(config, Path(), values)
    made.artefacts[LOAD.name] = made.artefacts[LOAD.name]._replace(fingerprint=data)
    return made.origin(training(made, cell.variant, cell.seed))


def stored_origin(path: Path) -> str:
    """The origin in a file."""
    with np.load(path, allow_pickle=False) as arrays:
        return json.loads(str(arrays["about"]))["origin"]


def test_every_kept_cell_is_found(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each backbone, variant and seed; but not of Sports, whose items had other texts then."""
    paths = [path for path in sorted(cells.iterdir()) if parsed(path).dataset in DATA]
    kept = ScoreCache(cells)
    monkeypatch.setattr(encoding, "encoder_state", lambda _: ENCODER)
    monkeypatch.setattr(pool, "pool_state", lambda config: [CHECKSUM[config.provider]])
    for path in paths:
        cell = parsed(path)
        origin = origin_of(cell, settings_of(cell), DATA[cell.dataset])
        assert origin == stored_origin(path), f"{path.name} is not found any more"
        scores = kept.find(cell, origin)
        assert scores is not None
        assert {len(values) for values in scores.test.values()} == {len(scores.users)}
    assert len(paths) == 133


def test_every_kept_cell_can_be_read(cells: Path) -> None:
    """And its means are those of its users, so that none was damaged."""
    paths, kept = sorted(cells.iterdir()), ScoreCache(cells)
    assert len(paths) == 171
    for path in paths:
        scores = kept.find(parsed(path), stored_origin(path))
        assert scores is not None
        for name, values in scores.test.items():
            assert values.mean() == pytest.approx(scores.summary.test[name], rel=1e-4), path.name


@pytest.mark.shared_data
@pytest.mark.parametrize("dataset", sorted(DATA))
def test_the_data_of_kept_cells_are_known_again(
    dataset: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read today, they are what the cells were trained on."""
    monkeypatch.setenv("RELAND_DATA", str(shared_data))
    config = Config.from_dict(get_config(f"{dataset},neumf").to_dict())
    assert data_fingerprint(load_interactions(config.data)) == DATA[dataset]


CELL = Cell("amazon-beauty", "lightgcn", "reland", 0)


def test_a_damaged_cell_is_refused(tmp_path: Path) -> None:
    """Every byte of it, changed: the scores are as they were, or a person is told which file to remove."""
    users = np.arange(5, dtype=np.int32)
    summary = CellSummary({"ndcg@10": 0.4}, {"ndcg@10": 0.5}, 9, 4, 0.5)
    scores = Scores(summary, users, {"ndcg@10": np.linspace(0, 1, 5), "hr@10": np.ones(5)})
    kept = ScoreCache(tmp_path)
    kept.keep(CELL, "origin", scores)
    (path,) = tmp_path.iterdir()
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            found = kept.find(CELL, "origin")
        except RelandError as error:
            assert f"{path}: cannot be read" in str(error)
            refused += 1
        else:
            assert found is None or (
                found.summary == scores.summary
                and np.array_equal(found.users, users)
                and found.test.keys() == scores.test.keys()
                and all(np.array_equal(values, scores.test[name]) for name, values in found.test.items())
            ), f"byte {place} gives other scores"
    assert refused > len(whole) / 2
