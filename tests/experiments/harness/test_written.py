"""What commands leave in a workdir replaces nothing of somebody else's, and damaged measurements are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import run as main_job
from experiments.choose import choose
from experiments.deploy import run as deploy
from experiments.growth import Setup
from experiments.growth import run as grow
from experiments.harness.written import MARKS, check_own, read_records
from experiments.paper import Asked
from experiments.paper import run as make_paper
from experiments.ranker import run as rank
from experiments.ranker_ladder import run as rank_networks
from experiments.scenarios import run as rank_scenarios
from experiments.seeds_growth import Setup as SeedsSetup
from experiments.seeds_growth import run as grow_seeds
from experiments.table2 import run as make_table
from experiments.tune import base_config, tune
from reland_jax.config import Config
from reland_jax.deploy_settings import DeployJob
from reland_jax.files import write_sealed
from reland_jax.ranker_settings import RankerJob
from reland_jax.scenario_settings import ScenarioJob
from reland_jax.stages import load
from reland_jax.types import RelandError


@pytest.mark.parametrize("name", MARKS)
def test_files_of_somebody_else_are_refused(tmp_path: Path, name: str) -> None:
    check_own(tmp_path / "missing", name)
    (tmp_path / name).touch()
    check_own(tmp_path, name)
    (tmp_path / name).write_bytes(MARKS[name] + b"\xff cut")  # a damaged one of ours is made again
    check_own(tmp_path, name)
    for content in ("notes", '{"dataset": "mine"}', "<title>Mine</title>", "\0"):
        (tmp_path / name).write_text(content)
        with pytest.raises(RelandError, match=f"{name}: this file was not made by this program"):
            check_own(tmp_path, name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(RelandError, match=f"{name}: not a file, but a file is to be written"):
        check_own(tmp_path, name)


@pytest.mark.parametrize("name", MARKS)
def test_every_command_looks_before_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(load, "load_interactions", lambda config: pytest.fail("worked in vain"))
    (tmp_path / name).write_text("my notes")
    config = base_config("demo", "lightgcn")
    with pytest.raises(RelandError, match=f"{name}: this file was not made by this program"):
        if name in ("results.json", "report.html"):
            main_job.run(Config(), tmp_path)
        elif name == "tune.json":
            tune(config, ("id",), 1, tmp_path)
        elif name == "growth.json":
            grow([], Setup(users=10, items=10, epochs=1, grow_batch=True), tmp_path)
        elif name == "seeds_growth.json":
            grow_seeds([], SeedsSetup(4, 4, 4, 1, 1, 0.0, 4, ""), tmp_path)
        elif name == "choice.json":
            choose("demo", "sets", 0.0, tmp_path)
        elif name.startswith("paper"):
            make_paper(Asked(tmp_path))
        elif name.startswith("deploy"):
            deploy(DeployJob(), tmp_path)
        elif name.startswith("ranker"):
            rank(RankerJob(), tmp_path)
        elif name.startswith("ladder"):
            rank_networks(RankerJob(), ("dnn",), tmp_path)
        elif name.startswith("scenarios"):
            rank_scenarios(ScenarioJob(), tmp_path)
        else:
            make_table({("demo", "lightgcn"): config}, tmp_path)
    assert (tmp_path / name).read_text() == "my notes"


def records_of(path: Path, content: Any) -> dict[str, Any]:
    path.write_text(json.dumps(content, indent=1))
    return read_records(path)


def test_measurements_come_back_and_damage_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "growth.json"
    assert read_records(path) == {}
    measured = {"exponents": {}, "records": {"a": {"seconds": 1.25}}}
    assert records_of(path, measured) == measured["records"]  # of an earlier program
    write_sealed(path, measured)
    assert read_records(path) == measured["records"]
    path.write_text(path.read_text().replace("1.25", "1.24"))
    with pytest.raises(RelandError, match=r"growth.json: damaged .* move it away to start again"):
        read_records(path)
    for content in ({"exponents": 1}, {"exponents": 1, "records": []}, {"exponents": 1, "records": 5}):
        with pytest.raises(RelandError, match=r"growth.json: damaged"):
            records_of(path, content)
    path.write_bytes(MARKS["growth.json"])
    with pytest.raises(RelandError, match=r"growth.json: damaged"):
        read_records(path)
