"""Which stages run again when a setting changes, and what running a stage alone needs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax import files
from reland_jax import pipeline as stages
from reland_jax.artefacts import load_arrays
from reland_jax.config import Config
from reland_jax.pipeline import Pipeline
from reland_jax.pool import refuse_to_pay_again
from reland_jax.seeds import choose, kmeans_large
from reland_jax.seeds.kmeans_passes import place
from reland_jax.storage import Texts, Trained
from reland_jax.types import RelandError, TargetRanks
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished, merged

TRAIN = {f"train/{variant}-seed0" for variant in VARIANTS}
FROM_POOL = {"build_pool", "encode_text", "assign", "train/reland-seed0"}


@pytest.fixture
def copied(finished: Callable[[str], Finished], tmp_path: Path) -> Finished:
    """A finished LightGCN run in a folder of its own."""
    original = finished("lightgcn")
    shutil.copytree(original.workdir, tmp_path / "work")
    return original._replace(workdir=tmp_path / "work")


def changed(config: Config, **changes: Any) -> Config:
    """The settings with some of them changed."""
    return Config.from_dict(merged(config.to_dict(), changes))


def watch_stages(monkeypatch: pytest.MonkeyPatch, original: Finished) -> list[str]:
    """The names of the stages computed from now on; those that cost time get a stand-in."""
    texts = Pipeline(original.config, original.workdir).prepare().texts
    computed: list[str] = []
    none = TargetRanks(*(np.zeros(0, np.int32),) * 3)

    def watch(owner: Any, function: str, stage: str, stand_in: Callable[..., Any] | None = None) -> None:
        compute = stand_in or getattr(owner, function)

        def watched(*arguments: Any, **named: Any) -> Any:
            computed.append(stage)
            return compute(*arguments, **named)

        monkeypatch.setattr(owner, function, watched)

    def encode_users(_: Pipeline, interactions: Any, splits: Any) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(splits.num_users, 4)).astype(np.float32)

    def encode_text(interactions: Any, pool: Any, config: Config, cache: Path) -> Texts:
        return Texts(texts.items * (1 if config.text == original.config.text else 2), texts.rationales)

    def fit(_: Pipeline, task: Any, splits: Any, config: Any, name: str, stamp: str) -> Trained:
        computed.append(name)
        return Trained({"params": np.zeros(1)}, {}, {"valid": none, "test": none})

    watch(stages, "load_interactions", "load")
    watch(stages, "split", "split")
    watch(Pipeline, "_encode_users", "encode_users", encode_users)
    watch(stages, "_sample_seeds", "sample_seeds")
    watch(stages, "_build_pool", "build_pool")
    watch(stages, "encode_text", "encode_text", encode_text)
    watch(stages, "_assign", "assign")
    monkeypatch.setattr(Pipeline, "_fit", fit)
    return computed


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
        ({"retrieval": {"neighbours": 2}}, {"assign", "train/reland-seed0"}),
        ({"text": {"whiten_items": 4, "whiten_rationales": 4}}, {"encode_text", *TRAIN} - {"train/id-seed0"}),
        ({"pool": {"history": 3}}, FROM_POOL),
        ({"seeds": {"fraction": 0.3}}, {"sample_seeds"} | FROM_POOL),
        ({"encoder": {"train": {"learning_rate": 0.5}}}, {"encode_users", "sample_seeds"} | FROM_POOL),
        (
            {"data": {"text_fields": ["title"]}},
            {"load", "split", "encode_users", "sample_seeds"} | FROM_POOL,
        ),
        (
            {"text": {"max_tokens": 20}},
            {"encode_users", "sample_seeds", *FROM_POOL, *TRAIN} - {"train/id-seed0"},
        ),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_a_changed_setting_reruns_what_hangs_on_it(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: set[str]
) -> None:
    computed = watch_stages(monkeypatch, copied)
    pipeline = Pipeline(changed(copied.config, **changes), copied.workdir)
    inputs = pipeline.prepare()
    for variant in VARIANTS:
        pipeline.train(inputs, variant, 0)
    assert sorted(computed) == sorted(expected)


def test_a_stage_that_computes_something_else_now_is_run_again(
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number was raised, since an error in it was mended; the settings are what they were."""
    computed = watch_stages(monkeypatch, copied)
    monkeypatch.setitem(stages.VERSIONS, "assign", stages.VERSIONS["assign"] + 1)
    pipeline = Pipeline(copied.config, copied.workdir)
    inputs = pipeline.prepare()
    for variant in VARIANTS:
        pipeline.train(inputs, variant, 0)
    assert sorted(computed) == ["assign", "train/reland-seed0"]


def test_a_damaged_file_costs_its_stage_and_no_other(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool of the heuristic says again what it said, so nothing hangs on when it was made."""
    computed = watch_stages(monkeypatch, copied)
    for name in ("build_pool/pool/pool.parquet", "assign/seed.npy"):
        path = copied.workdir / name
        path.write_bytes(path.read_bytes()[:-1])
    pipeline = Pipeline(copied.config, copied.workdir)
    inputs = pipeline.prepare()
    for variant in VARIANTS:
        pipeline.train(inputs, variant, 0)
    assert sorted(computed) == ["assign", "build_pool"]
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
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied to another machine, say: their times of change differ, and what they hold does not."""
    computed = watch_stages(monkeypatch, copied)
    monkeypatch.setattr(stages, "raw_state", lambda _: [("demo.inter", 1, 2)])
    Pipeline(copied.config, copied.workdir).prepare()
    assert computed == ["load"]


def test_other_weights_of_the_text_encoder_are_noticed(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under the same name, with the size and time of the old file; the same ones elsewhere are the same."""
    folder = Path(shutil.copytree(copied.config.text.encoder, tmp_path / "encoder"))
    computed = watch_stages(monkeypatch, copied)
    config = changed(copied.config, text={"encoder": str(folder)})
    Pipeline(config, copied.workdir).prepare()
    assert computed == []
    path = folder / "model.safetensors"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-4] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    Pipeline(config, copied.workdir).prepare()
    assert {"encode_users", "encode_text"} <= set(computed)


def test_a_changed_setting_trains_anew_beside_old_checkpoints(copied: Finished) -> None:
    """The checkpoints of the run before are another run's, and must not get in the way of this one."""
    config = changed(copied.config, train={"learning_rate": 0.003, "max_epochs": 1})
    pipeline = Pipeline(config, copied.workdir)
    again = pipeline.train(pipeline.prepare(), "id", 0).summary
    before = copied.results["variants"]["id"]["history"]
    assert len(again.history) == 1 and again.history[0]["loss"] != before[0]["loss"]


def stamps(workdir: Path) -> dict[str, dict[str, Any]]:
    """The stamps of all stages but the trainings."""
    return {path.parent.name: json.loads(path.read_text()) for path in workdir.glob("*/stamp.json")}


def test_a_stage_alone_on_a_finished_workdir(copied: Finished) -> None:
    """It is made again though it is up to date, and what hangs on it is now due; no other stage runs."""
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
