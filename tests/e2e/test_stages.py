"""Which stages run again when a setting changes, and what running a stage alone needs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax import files, flow
from reland_jax.artefacts import load_arrays
from reland_jax.config import Config
from reland_jax.flow import Flow, Job, Stage
from reland_jax.pool import refuse_to_pay_again
from reland_jax.seeds import choose, kmeans_large
from reland_jax.seeds.kmeans_passes import place
from reland_jax.stages import BUILD_POOL, ENCODE_USERS, FLOW, ITEMS, RATIONALES, SPLIT, load, training
from reland_jax.storage import Trained
from reland_jax.types import RelandError, TargetRanks
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished, merged

TRAIN = {f"train/{variant}-seed0" for variant in VARIANTS}
FROM_POOL = {"build_pool", "encode_text/rationales", "assign", "train/reland-seed0"}


@pytest.fixture
def copied(finished: Callable[[str], Finished], tmp_path: Path) -> Finished:
    """A finished LightGCN run in a folder of its own."""
    original = finished("lightgcn")
    shutil.copytree(original.workdir, tmp_path / "work")
    return original._replace(workdir=tmp_path / "work")


def changed(config: Config, **changes: Any) -> Config:
    """The settings with some of them changed."""
    return Config.from_dict(merged(config.to_dict(), changes))


class Watched(NamedTuple):
    """The stages with a list of those that are computed.

    Attributes:
        flow: `FLOW`, with stand-ins for what costs time.
        computed: names of stages and trainings.
    """

    flow: Flow
    computed: list[str]

    def watch(self, stage: Stage[Any], stand_in: Callable[[Job], Any] | None = None) -> Stage[Any]:
        """The stage, noted when it is computed."""

        def run(job: Job) -> Any:
            self.computed.append(stage.name)
            return (stand_in or stage.run)(job)

        return dataclasses.replace(stage, run=run)

    def run(self, config: Config, workdir: Path) -> None:
        """All stages and a training of every variant."""
        made, none = flow.run(self.flow, config, workdir), TargetRanks(*(np.zeros(0, np.int32),) * 3)
        trained = Trained({"params": np.zeros(1)}, {}, {"valid": none, "test": none})
        for variant in VARIANTS:
            made.make(self.watch(training(made, variant, 0), lambda job: trained))


@pytest.fixture
def watched(copied: Finished) -> Watched:
    """The stages of the finished run."""
    encoded = flow.run(FLOW, copied.config, copied.workdir)[ITEMS]

    def encode_users(job: Job) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(job[SPLIT].num_users, 4)).astype(np.float32)

    def items(job: Job) -> np.ndarray:
        return encoded * (1 if job.config.text == copied.config.text else 2)

    def rationales(job: Job) -> np.ndarray:
        return np.ones((len(job[BUILD_POOL].pool.rationales), 4), np.float32)

    found = Watched(FLOW, [])
    stand_ins = {ENCODE_USERS: encode_users, ITEMS: items, RATIONALES: rationales}
    stages = tuple(found.watch(stage, stand_ins.get(stage)) for stage in FLOW.stages)
    return found._replace(flow=dataclasses.replace(FLOW, stages=stages))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        (
            # How the work is done, and not what comes out.
            {
                "train": {"checkpoint_seconds": 7.0},
                "encoder": {"train": {"checkpoint_seconds": 7.0}},
                "eval": {"tile_bytes": 4096},
                "text": {"batch_size": 3},
                "retrieval": {"tile": 16},
            },
            set(),
        ),
        ({"train": {"learning_rate": 0.5}}, TRAIN),
        ({"fusion": {"dropout": 0.7}}, {"train/reland-seed0"}),
        # No more are given than are drawn among, so that the assignment has enough of them.
        ({"retrieval": {"neighbours": 2}}, {"train/reland-seed0"}),
        ({"fusion": {"neighbours": 1000}}, {"assign", "train/reland-seed0"}),
        (
            {"text": {"whiten_items": 4, "whiten_rationales": 4}},
            {"encode_text/items", "encode_text/rationales", *TRAIN} - {"train/id-seed0"},
        ),
        ({"pool": {"history": 3}}, FROM_POOL),
        ({"seeds": {"fraction": 0.3}}, {"sample_seeds"} | FROM_POOL),
        ({"encoder": {"train": {"learning_rate": 0.5}}}, {"encode_users", "sample_seeds"} | FROM_POOL),
        (
            {"data": {"text_fields": ["title"]}},
            {"load", "encode_users", "sample_seeds", "encode_text/items"} | FROM_POOL,
        ),
        (
            {"text": {"max_tokens": 20}},
            {"encode_users", "sample_seeds", "encode_text/items", *FROM_POOL, *TRAIN} - {"train/id-seed0"},
        ),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_a_changed_setting_reruns_what_hangs_on_it(
    copied: Finished, watched: Watched, changes: dict[str, Any], expected: set[str]
) -> None:
    watched.run(changed(copied.config, **changes), copied.workdir)
    assert sorted(watched.computed) == sorted(expected)


def test_a_stage_that_computes_something_else_now_is_run_again(copied: Finished, watched: Watched) -> None:
    """Its version was raised, since an error in it was mended; the settings are what they were."""
    stages = [
        dataclasses.replace(stage, version=stage.version + (stage.name == "assign"))
        for stage in watched.flow.stages
    ]
    newer = dataclasses.replace(watched.flow, stages=tuple(stages))
    watched._replace(flow=newer).run(copied.config, copied.workdir)
    assert sorted(watched.computed) == ["assign", "train/reland-seed0"]


def test_a_damaged_file_costs_its_stage_and_no_other(
    copied: Finished, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool of the heuristic says again what it said, so nothing depends on when it was made."""
    for name in ("build_pool/pool/pool.parquet", "assign/seed.npy"):
        path = copied.workdir / name
        path.write_bytes(path.read_bytes()[:-1])
    watched.run(copied.config, copied.workdir)
    assert sorted(watched.computed) == ["assign", "build_pool"]
    assert "pool/pool.parquet has" in caplog.text and "seed.npy has" in caplog.text


def test_a_damaged_pool_that_was_paid_for_is_built_from_its_journal_or_refused(tmp_path: Path) -> None:
    config = Config()
    paid = dataclasses.replace(config.pool, provider="openai")
    with pytest.raises(RelandError, match="(?s)build_pool: it is cut. .*paid for.*journal.sqlite.*--stages"):
        refuse_to_pay_again(paid, config.llm, tmp_path, "it is cut")
    refuse_to_pay_again(config.pool, config.llm, tmp_path, "the heuristic costs nothing")
    (tmp_path / "journal.sqlite").touch()
    refuse_to_pay_again(paid, config.llm, tmp_path, "the answers are there")


def test_what_is_not_ours_stays(copied: Finished) -> None:
    """Such as a folder with the name of a stage; what a killed run was writing is removed."""
    workdir = copied.workdir.with_name("another")
    left = workdir / f".split.tmp-{files._machine()}-{2**22 + 1}"
    for folder in (workdir / "load", left, workdir / "split.tmp-1"):
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(RelandError, match="load: this folder was not made by this program"):
        run(copied.config, workdir, ["load"])
    assert sorted(path.parent.name for path in workdir.glob("*/thesis.txt")) == ["load", "split.tmp-1"]


def test_files_that_were_touched_are_read_again_and_no_more(
    copied: Finished, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied to another machine, say: their times of change differ, and what they hold does not."""
    monkeypatch.setattr(load, "raw_state", lambda _: [("demo.inter", 1, 2)])
    flow.run(watched.flow, copied.config, copied.workdir)
    assert watched.computed == ["load"]


def test_other_weights_of_the_text_encoder_are_noticed(
    copied: Finished, watched: Watched, tmp_path: Path
) -> None:
    """Under the same name, with the size and time of the old file; the same ones elsewhere are the same."""
    folder = Path(shutil.copytree(copied.config.text.encoder, tmp_path / "encoder"))
    config = changed(copied.config, text={"encoder": str(folder)})
    flow.run(watched.flow, config, copied.workdir)
    assert watched.computed == []
    path = folder / "model.safetensors"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-4] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    flow.run(watched.flow, config, copied.workdir)
    assert {"encode_users", "encode_text/items", "encode_text/rationales"} <= set(watched.computed)


def test_a_changed_setting_trains_anew_beside_old_checkpoints(copied: Finished) -> None:
    """The checkpoints of the run before are another run's, and must not get in the way of this one."""
    config = changed(copied.config, train={"learning_rate": 0.003, "max_epochs": 1})
    made = flow.run(FLOW, config, copied.workdir)
    again = made.make(training(made, "id", 0)).summary
    before = copied.results["variants"]["id"]["history"]
    assert len(again.history) == 1 and again.history[0]["loss"] != before[0]["loss"]


def stamps(workdir: Path) -> dict[str, dict[str, Any]]:
    """The stamps of all stages but the trainings."""
    return {path.parent.name: json.loads(path.read_text()) for path in workdir.glob("*/stamp.json")}


def test_a_stage_alone_on_a_finished_workdir(copied: Finished) -> None:
    """It is made again though it is up to date, and what depends on it is now due; no other stage runs."""
    before = stamps(copied.workdir)
    assert run(copied.config, copied.workdir, ["assign"]) == {}
    after = stamps(copied.workdir)
    assert {name for name in before if before[name] != after[name]} == {"assign"}
    assert before["assign"]["made_from"] == after["assign"]["made_from"]
    assert before["assign"]["fingerprint"] != after["assign"]["fingerprint"]


def test_a_stage_alone_on_an_empty_workdir_names_the_stage_to_add(copied: Finished, tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="stage 'load' does not exist; add 'load' to --stages"):
        run(copied.config, tmp_path / "empty", ["assign"])
    shutil.rmtree(copied.workdir / "encode_users")
    with pytest.raises(RelandError, match="stage 'encode_users' does not exist; add 'encode_users'"):
        run(copied.config, copied.workdir, ["assign"])
    with pytest.raises(RelandError, match="stage 'load' was made from other settings"):
        run(changed(copied.config, data={"demo_users": 61}), copied.workdir, ["assign"])


def test_many_users_are_clustered_on_all_devices(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mesh one device clusters; the users with their clusters are the same."""
    devices: list[int] = []

    def watched(vectors: np.ndarray, mesh: Any) -> Any:
        devices.append(mesh.size if mesh else 1)
        return place(vectors, mesh)

    monkeypatch.setattr(choose, "LARGE", 0)
    monkeypatch.setattr(kmeans_large, "place", watched)
    found = []
    for mesh in ({}, {"data": 2, "model": 4}):
        run(changed(copied.config, mesh=mesh), copied.workdir, ["sample_seeds"])
        found.append(load_arrays(copied.workdir / "sample_seeds"))
    assert devices == [1, 8]
    np.testing.assert_array_equal(found[0]["cluster_of_user"], found[1]["cluster_of_user"])
    np.testing.assert_array_equal(found[0]["user"], found[1]["user"])


def test_an_unknown_stage_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="--stages: 'asign' is not a stage; did you mean 'assign'"):
        run(Config(), tmp_path, ["asign"])


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    values = get_config("amazon-beauty,sasrec").to_dict()
    config = Config.from_dict(merged(values, {"data": {"root": str(tmp_path)}}))
    with pytest.raises(RelandError, match="(?s)amazon-beauty.*(https?://|RELAND_DATA|data.root)"):
        run(config, tmp_path / "work")
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
