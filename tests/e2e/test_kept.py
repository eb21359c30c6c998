"""Kept scores of finished cells: those in the repository are found, whatever settings were added since."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.grid.kept import KeptScores, origin_of
from experiments.grid.plan import Cell
from experiments.grid.scores import CellSummary, Scores
from experiments.harness.settings import with_settings
from reland_jax.config import Config
from reland_jax.data import data_fingerprint, load_interactions
from reland_jax.types import RelandError

DATA = {
    "amazon-beauty": "0fdd92a61d91c5c96d482e83b6b2e345c064edc323ffd9cff1fc5408c9704334",
    "ml-1m": "a2e8e6d61c7192d33be7562a6c059274be172d0828819504479a60a026fff7af",
}
"""Fingerprints of the data that the cells were trained on, as they were when the cells were kept."""

POOL = {
    "amazon-beauty": ["75038ace9d000de4c842d888dd3ecb0fd25ef8ad1f9e1bd57699fcca9f83c59d"],
    "ml-1m": [""],
}
"""What `pool_state` said of their pools: the checksum of a file, or nothing for the heuristic."""


@pytest.fixture(scope="module")
def cells(repository: Path) -> Path:
    """The folder of the kept cells."""
    return repository / "experiments/results/cells"


def parsed(path: Path) -> Cell:
    """The cell of a file name."""
    found = re.fullmatch(r"(.+?)_([a-z0-9]+)_(.+)_seed(\d+)", path.stem)
    assert found
    return Cell(*found.groups()[:3], int(found[4]))


def settings_of(cell: Cell, **changes: Any) -> Config:
    """The settings that a cell was trained with."""
    config = Config.from_dict(get_config(f"{cell.dataset},{cell.backbone}").to_dict())
    provider = {"pool.provider": "file", "pool.path": "x"} if cell.dataset == "amazon-beauty" else {}
    return with_settings(config, provider | changes)


def stored_origin(path: Path) -> str:
    """The origin in a file."""
    with np.load(path, allow_pickle=False) as arrays:
        return json.loads(str(arrays["about"]))["origin"]


def test_every_kept_cell_is_found(cells: Path) -> None:
    """Of each backbone, variant and seed; but not of Sports, whose items had other texts then."""
    paths = [path for path in sorted(cells.iterdir()) if parsed(path).dataset in DATA]
    kept = KeptScores(cells)
    for path in paths:
        cell = parsed(path)
        origin = origin_of(settings_of(cell), DATA[cell.dataset], POOL[cell.dataset], cell)
        assert origin == stored_origin(path), f"{path.name} is not found any more"
        scores = kept.find(cell, origin)
        assert scores is not None
        assert {len(values) for values in scores.test.values()} == {len(scores.users)}
    assert len(paths) == 114


def test_every_kept_cell_can_be_read(cells: Path) -> None:
    """And its means are those of its users, so that none was damaged."""
    paths, kept = sorted(cells.iterdir()), KeptScores(cells)
    assert len(paths) == 152
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


def origin(**changes: Any) -> str:
    """Of `CELL` with other settings, by dotted name."""
    config = settings_of(CELL, **{name.replace("__", "."): value for name, value in changes.items()})
    return origin_of(config, "data", ["pool"], CELL)


def test_settings_that_change_no_score_are_not_part_of_an_origin() -> None:
    assert origin() == origin(
        train__checkpoint_seconds=1.0, eval__tile_bytes=1 << 20, retrieval__tile=7, text__batch_size=3,
        encoder__train__checkpoint_seconds=2.0, llm__attempts=2, data__root="elsewhere",
    )  # fmt: skip
    others = [origin(train__learning_rate=0.5), origin(pool__history=3), origin(fusion__dropout=0.3)]
    assert len({origin(), *others}) == 4


def test_a_setting_that_was_added_later_counts_where_it_is_not_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, default = settings_of(CELL).to_dict(), Config().to_dict()
    before = origin()

    def origin_with(value: int) -> str:
        added = [
            values | {"new": {"a": 5}, "train": values["train"] | {"b": b}}
            for values, b in ((config, value), (default, 7))
        ]
        monkeypatch.setattr(Config, "to_dict", lambda _: added.pop(0))
        return origin_of(dataclasses.replace(Config()), "data", ["pool"], CELL)

    assert origin_with(7) == before
    assert origin_with(8) != before


def test_a_damaged_cell_is_refused(tmp_path: Path) -> None:
    """Every byte of it, changed: the scores are as they were, or a person is told which file to remove."""
    users = np.arange(5, dtype=np.int32)
    summary = CellSummary({"ndcg@10": 0.4}, {"ndcg@10": 0.5}, 9, 4, 0.5)
    scores = Scores(summary, users, {"ndcg@10": np.linspace(0, 1, 5), "hr@10": np.ones(5)})
    kept = KeptScores(tmp_path)
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
