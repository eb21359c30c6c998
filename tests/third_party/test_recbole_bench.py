"""The peer benchmark's harness, with made-up records: matching, pairing, ratios, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from reland_jax.config import BACKBONES, DataConfig, ModelConfig
from reland_jax.types import IdMap, Ragged, Splits

HERE = Path(__file__).resolve().parents[2] / "third_party" / "recbole"
SCRIPTS = ("matched", "bench_table", "bench", "recbole_side", "reland_side")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's files by name: they are scripts, in no package, and find each other by folder."""
    sys.path.insert(0, str(HERE))
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    sys.path.remove(str(HERE))
    for name in SCRIPTS:
        del sys.modules[name]


@pytest.fixture
def bench(scripts: dict[str, ModuleType]) -> ModuleType:
    """The harness."""
    return scripts["bench"]


@pytest.fixture
def matched(scripts: dict[str, ModuleType]) -> ModuleType:
    """What is the same on both sides."""
    return scripts["matched"]


def make_record(
    library: str, objective: str, epochs: list[float], evaluations: list[float], model: str = "sasrec"
) -> dict[str, Any]:
    """A complete record of timing with 1,200 examples and 1 GiB."""
    return {
        "kind": "timing",
        "library": library,
        "model": model,
        "objective": objective,
        "epoch_seconds": epochs,
        "compile_seconds": 0.0 if library == "recbole" else 6.0,
        "evaluation_seconds": evaluations,
        "evaluation_batch": 256,
        "evaluated_users": 0,
        "examples": 1200,
        "peak_bytes": 2**30,
        "held_out": {"valid": "v", "test": "t"},
        "complete": True,
        "versions": {"python": "3.11"},
        "machine": "one core",
    }


def make_quality(
    library: str, objective: str, progress: list[tuple[float, float]], model: str = "sasrec"
) -> dict[str, Any]:
    """A record of a run for quality; `progress` is of seconds and NDCG@10."""
    record = make_record(library, objective, [], [], model) | {"kind": "quality"}
    record["learning_rate"] = 0.001
    record["progress"] = [{"seconds": seconds, "ndcg@10": quality} for seconds, quality in progress]
    return record


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """Two rounds of RecBole against both objectives."""
    slow = {"evaluation_seconds": [30.0], "is_default": True}
    theirs = [make_record("recbole", "prefix", [time], [9.0]) | {"evaluations": [slow]} for time in (80, 120)]
    theirs[1]["peak_bytes"] = 3 * 2**30
    ours = [make_record("reland_jax", "prefix", [20.0], [2.0, 3.0, 90.0]) for _ in range(2)]
    shifted = [make_record("reland_jax", "shifted", [4.0, 5.0, 90.0], [3.0]) for _ in range(2)]
    return [theirs[0], ours[0], shifted[0], theirs[1], ours[1], shifted[1]]


def row_of(table: str, model: str, objective: str) -> dict[str, str]:
    """A row of the first table by column; "X ratio" is the ratio that follows column X."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    head = [name if name != "ratio" else f"{lines[0][i - 1]} ratio" for i, name in enumerate(lines[0])]
    (row,) = [cells for cells in lines if cells[:2] == [model, objective]]
    return dict(zip(head, row, strict=True))


def test_ratios_are_of_medians_over_the_rounds(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    prefix, shifted = (row_of(bench.make_table(records), "sasrec", o) for o in ("prefix", "shifted"))
    assert (prefix["epoch, s"], prefix["epoch, s ratio"]) == ("100 / 20", "5.00")
    assert (shifted["epoch, s"], shifted["epoch, s ratio"]) == ("100 / 5", "20.00")
    assert (shifted["examples/s"], shifted["examples/s ratio"]) == ("12 / 240", "20.00")
    assert prefix["evaluation, s"] == "30 default, 9 tuned (256) / 3"
    assert prefix["evaluation, s ratio"] == "10.00, 3.00"
    assert (prefix["peak, GiB"], prefix["peak, GiB ratio"]) == ("3.00 / 1.00", "3.00")
    assert prefix["compile, s"] == "6.0" and prefix["seconds to NDCG@10"] == ""


def test_time_to_quality_is_to_the_best_of_recbole(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    records.append(make_quality("recbole", "prefix", [(100, 0.02), (200, 0.05), (300, 0.04)]))
    records[-1]["learning_rate"] = 0.005
    records.append(make_quality("recbole", "prefix", [(100, 0.03), (200, 0.04)]))
    records.append(make_quality("reland_jax", "shifted", [(9, 0.045)]))  # up to an earlier value
    reached = make_quality("reland_jax", "shifted", [(10, 0.03), (16, 0.05), (22, 0.06)])
    table = bench.make_table([*records, reached])
    row = row_of(table, "sasrec", "shifted")
    assert row["seconds to NDCG@10"] == "0.0500, RecBole's steps 0.005: 200 / 16 (6.0 of it compiling)"
    assert row["seconds to NDCG@10 ratio"] == "12.50"
    assert row_of(table, "sasrec", "prefix")["seconds to NDCG@10"] == ""
    never = make_quality("reland_jax", "shifted", [(10, 0.03), (16, 0.049)])
    row = row_of(bench.make_table([*records, never]), "sasrec", "shifted")
    assert row["seconds to NDCG@10"] == "0.0500, RecBole's steps 0.005: 200 / not reached (0.0490)"
    assert row["seconds to NDCG@10 ratio"] == "none"


def test_another_loss_and_fewer_users_are_reported(bench: ModuleType) -> None:
    theirs = make_record("recbole", "bce", [6.0], [150.0], "neumf") | {"evaluated_users": 500}
    listed = [theirs, make_record("reland_jax", "bpr", [2.0], [3.0], "neumf")]
    row = row_of(bench.make_table(listed), "neumf", "bpr (bce)")
    assert (row["evaluation, s"], row["evaluation, s ratio"]) == ("~150 tuned (256) / 3", "~50.00")
    assert "**~: RecBole ranked 500 users; its seconds are scaled" in bench.make_table(listed)
    theirs["evaluated_users"] = 0
    assert "~" not in bench.make_table(listed)


def test_duorec_stands_beside_our_sasrec(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    assert "DuoRec" not in bench.make_table(records)
    records.append(make_record("reland_jax", "shifted", [12.5], [3.0], "duorec"))
    assert "| shifted | 5 | 12.5 | 2.50 |" in bench.make_table(records)


def test_a_poor_measurement_says_so(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    table = bench.make_table(records)
    assert "**" not in table and "on both sides: sasrec." in table and "Machine: one core." in table
    records[0]["busy_cores"], records[1]["complete"] = 2.0, False
    records[1]["held_out"] = {"valid": "v", "test": "other"}
    table = bench.make_table(records)
    assert "The machine was busy" in table and "cut short" in table and "2.00, 0.00" in table
    assert "**The targets or the items masked differ: sasrec.**" in table and "both sides" not in table


def test_the_record_is_the_last_line(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    assert bench.parse_record(f"a warning\n{json.dumps(records[1])}\n") == records[1]
    with pytest.raises(ValueError, match="no JSON record: 'Killed'"):
        bench.parse_record("Killed\n")
    del records[1]["peak_bytes"], records[1]["held_out"]
    with pytest.raises(ValueError, match="lacks held_out, peak_bytes"):
        bench.parse_record(json.dumps(records[1]))
    quality = make_quality("recbole", "prefix", [(1, 0.1)])
    del quality["peak_bytes"]
    assert bench.parse_record(json.dumps(quality)) == quality
    del quality["progress"]
    with pytest.raises(ValueError, match="lacks progress"):
        bench.parse_record(json.dumps(quality))


def test_processes_alternate(bench: ModuleType) -> None:
    def listed(model: str, **settings: int) -> list[list[str]]:
        settings = {"batch": 0, "eval_users": 0} | settings
        return bench.timing_commands(model, Path("x/beauty"), "theirs/python", 2, 3, **settings)

    sasrec = listed("sasrec")
    assert [command[0] for command in sasrec] == ["theirs/python", sys.executable, sys.executable]
    assert all(command[2:4] == ["--model=sasrec", "--dataset=x/beauty"] for command in sasrec)
    assert [command[4:] for command in sasrec] == [
        ["--epochs=2", "--evaluations=3"],
        ["--objective=prefix", "--epochs=2", "--evaluations=3"],
        ["--objective=shifted", "--epochs=2", "--evaluations=3"],
    ]
    assert [command[0] for command in listed("duorec")] == [sys.executable, sys.executable]
    theirs, ours = listed("neumf", batch=16, eval_users=500)
    assert theirs[4:] == ["--epochs=2", "--evaluations=1", "--evaluation_batch=16", "--eval_users=500"]
    assert ours[4:] == ["--objective=bpr", "--epochs=2", "--evaluations=3"]


def test_quality_uses_the_tuned_batch_and_the_best_value(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = [(9, 0.1), (19, 0.3)]
    monkeypatch.setattr(bench, "run", lambda command: make_quality("recbole", "prefix", progress))
    kept = bench.Records(tmp_path / "records.jsonl")
    kept.listed.append(make_record("recbole", "prefix", [1.0], [1.0]) | {"command": [], "round": 0})
    theirs, ours = bench.time_quality(kept, "sasrec", Path("x"), "theirs/python", 0)
    assert theirs["command"][1:] == [
        "--model=sasrec", "--dataset=x", "--quality_epochs=5", "--evaluation_batch=256",
    ]  # fmt: skip
    assert ours["command"][1:] == ["--model=sasrec", "--dataset=x", "--until=0.3"]


@pytest.mark.parametrize("model", ["neumf", "gru4rec"])
def test_quality_gives_recbole_our_steps_too(
    bench: ModuleType, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both learning rates are not RecBole's, NeuMF's batch neither; the better run is the opponent."""
    train = bench.tuned_config(model, "beauty").train
    ours = [f"--learning_rate={train.learning_rate!r}"]
    ours += [f"--batch_size={train.batch_size}"] if train.batch_size != bench.BATCH_SIZE else []

    def run(command: list[str]) -> dict[str, Any]:
        reached = 0.3 if ours[0] in command else 0.1
        return make_quality("recbole", "prefix", [(9, reached)], model)

    monkeypatch.setattr(bench, "run", run)
    kept = bench.Records(tmp_path / "records.jsonl")
    own, given, until = bench.time_quality(kept, model, Path("beauty"), "theirs/python", 0)
    assert train.learning_rate != 0.001
    assert given["command"] == [*own["command"], *ours]
    assert until["command"][-1] == "--until=0.3"


def test_a_benchmark_goes_on_where_it_was(
    bench: ModuleType, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(bench, "run", lambda command: started.append(command) or dict(records[1]))
    path = tmp_path / "records.jsonl"
    first = bench.Records(path).measure(["python", "side.py", "--epochs=2"], 0)
    assert bench.Records(path).measure(["python3", "side.py", "--epochs=2"], 0) == first
    assert len(started) == 1
    bench.Records(path).measure(["python", "side.py", "--epochs=2"], 1)
    bench.Records(path).measure(["python", "side.py", "--epochs=3"], 0)
    assert len(started) == 3 and len(bench.Records(path).listed) == 3


def test_a_missing_environment_says_how_to_make_it(bench: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="setup.sh"):
        bench.find_recbole_python(str(tmp_path / "none"))
    interpreter = tmp_path / "env" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch()
    assert bench.find_recbole_python(str(tmp_path / "env")) == str(interpreter)


def test_a_process_is_run_from_any_folder(
    bench: ModuleType, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del records[1]["machine"]
    script = tmp_path / "side.py"
    script.write_text(f"import reland_jax\nprint({json.dumps(records[1])!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "busy_cores", lambda: 0.25)
    record = bench.run([sys.executable, str(script)])
    assert record.pop("busy_cores") == 0.25 and record.pop("machine") == bench.machine()
    assert record == records[1] and f"{os.cpu_count()} cores" in bench.machine()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc/stat")
def test_a_core_at_work_is_seen(bench: ModuleType) -> None:
    program = "import time; end = time.process_time() + 0.25\nwhile time.process_time() < end: pass"
    before = bench._cpu_ticks()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert bench._cpu_ticks() - before >= 0.2 * os.sysconf("SC_CLK_TCK")


def test_every_backbone_has_the_same_sizes_on_both_sides(matched: ModuleType) -> None:
    assert set(matched.MODELS) == set(BACKBONES)
    for model, match in matched.MODELS.items():
        config = ModelConfig(backbone=model, **matched.model_sizes(model))
        assert config.dim == 64
        for field, (ours, theirs) in match.sizes.items():
            for name, value in theirs.items():
                if name == "hidden_size_list":
                    assert value == [config.dim] * ours
                elif name != "node_dropout":
                    assert value == (list(ours) if field == "tower" else ours), (model, name)
    assert matched.model_sizes("neumf")["tower"] == ModelConfig().tower


def test_targets_per_step_and_splits_match(matched: ModuleType, scripts: dict[str, ModuleType]) -> None:
    for model, match in matched.MODELS.items():
        theirs = matched.recbole_settings(model)
        ours = scripts["reland_side"].matched_config(model, match.objectives[0], "x", 1)
        ours.validate()
        rows_per_target = 2 if model == "neumf" else 1
        assert theirs["train_batch_size"] == rows_per_target * ours.train.batch_size
        assert theirs["learning_rate"] == ours.train.learning_rate
        if match.sequential:
            assert theirs["eval_args"]["split"] == {"LS": "valid_and_test"}
            assert ours.data.protocol == "leave_one_out" and not ours.eval.mask_history
            assert theirs["MAX_ITEM_LIST_LENGTH"] == DataConfig().max_length == ours.data.max_length
        else:
            assert theirs["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}
            assert ours.data.protocol == "ratio" and ours.eval.mask_history
            assert theirs["train_neg_sample_args"]["sample_num"] == ours.train.negatives


def test_tuned_settings_are_those_of_the_experiments(scripts: dict[str, ModuleType]) -> None:
    from experiments.configs.reland import get_config

    for model in BACKBONES:
        tuned = scripts["reland_side"].tuned_config(model, "some/where/amazon-beauty")
        expected = get_config(f"amazon-beauty,{model}").to_dict()
        assert tuned.data.name == "some/where/amazon-beauty"
        assert tuned.train.learning_rate == expected["train"]["learning_rate"]
        assert tuned.to_dict()["model"] == expected["model"]
        assert tuned.train.eval_every == 1 and tuned.train.patience == tuned.train.max_epochs


def test_a_fingerprint_is_of_targets_and_mask(matched: ModuleType, scripts: dict[str, ModuleType]) -> None:
    ids = IdMap(np.array(["u0", "u1"]), np.array(["", "a", "b", "c"]))
    train, valid, test = (
        Ragged(np.array(indptr), np.array(items, np.int32))
        for indptr, items in (([0, 1, 2], [1, 3]), ([0, 1, 1], [2]), ([0, 1, 2], [3, 1]))
    )
    splits = Splits(train, valid, test, 3, "ratio")
    masked = scripts["reland_side"].held_out(ids, splits, True)
    assert masked["valid"] == matched.digest([("u0", "b")], [("u1", "c"), ("u0", "a")])
    assert masked["test"] == matched.digest(
        [("u1", "a"), ("u0", "c")], [("u0", "a"), ("u0", "b"), ("u1", "c")]
    )
    free = scripts["reland_side"].held_out(ids, splits, False)
    assert free["valid"] == matched.digest([("u0", "b")], ()) != masked["valid"]
    assert matched.digest([("u0", "b")], ()) != matched.digest((), [("u0", "b")])


def test_training_stops_at_the_wanted_quality(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    side = scripts["reland_side"]

    class Rising:
        users_per_tile = 7

        def metrics(self, params: int, part: str) -> dict[str, float]:
            return {"ndcg@10": 0.01 * params}

    def fit(task: object, evaluator: Any, config: object, on_epoch: Any) -> None:
        for epoch in range(1, 5):
            metrics = evaluator.metrics(epoch, "valid")
            on_epoch({"seconds": 0.0, "evaluation_seconds": 0.0, "loss": 1.0, **metrics})

    monkeypatch.setattr("reland_jax.train.fit", fit)
    monkeypatch.setattr(side, "prepare", lambda config: side.Prepared(None, Rising(), {"valid": "v"}))
    config = side.tuned_config("sasrec", "demo")
    reached = [entry["ndcg@10"] for entry in side.train_until(config, 0.03)["progress"]]
    assert reached == [0.01, 0.02, 0.03]
    assert len(side.train_until(config, 0.5)["progress"]) == 4


class Scores:
    """A trainer and the loader of RecBole: as much of both as `resize` and the timing touch."""

    def __init__(self, kind: str = "GENERAL", config: Any = None) -> None:
        self.config = config or {"MODEL_TYPE": type("Type", (), {"name": kind})}
        self.sampler = type("Sampler", (), {"data_source": list(range(40))})()
        self._dataset, self._sampler, self.model = type("Data", (), {"item_num": 100}), None, None
        self.test_batch_size, self.ranked = 0, 0

    def evaluate(self, loader: Any, load_best_model: bool) -> None:
        """Counts the users."""
        self.ranked += len(loader.sampler.data_source)


def test_a_batch_reaches_loader_and_trainer(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    side, general, sequential = scripts["recbole_side"], Scores(), Scores("SEQUENTIAL")
    made: list[int] = []

    class Loader(Scores):
        def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool) -> None:
            super().__init__(config=config)
            made.append(config["eval_batch_size"])

    loader = Loader.__new__(Loader)
    Scores.__init__(loader)
    side.resize(general, loader, 16, False)
    assert general.test_batch_size == made[-1] == 1600
    side.resize(general, loader, 40, True)
    assert general.test_batch_size == made[-1] == 4096 and side.default_users(general, 100) == 40
    side.resize(sequential, loader, 16, False)
    assert sequential.test_batch_size == made[-1] == 16 and side.default_users(sequential, 100) == 4096
    clock = iter([0.0, 2.0, 2.0, 5.0])
    monkeypatch.setattr(side.time, "perf_counter", lambda: next(clock))
    assert side.time_evaluations(general, loader, 2, 10) == [8.0, 12.0]
    assert general.ranked == 2 * 10
