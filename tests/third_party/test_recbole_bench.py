"""The peer benchmark's harness, with made-up records: pairing, ratios, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "third_party" / "recbole"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The harness, loaded from its file: it is a script and in no package."""
    spec = importlib.util.spec_from_file_location("recbole_bench", HERE / "bench.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_record(
    library: str, objective: str, epochs: list[float], evaluations: list[float]
) -> dict[str, Any]:
    """A complete record of SASRec with 1,200 examples and 1 GiB."""
    return {
        "library": library,
        "model": "sasrec",
        "objective": objective,
        "epoch_seconds": epochs,
        "compile_seconds": 0.0,
        "evaluation_seconds": evaluations,
        "evaluation_batch": 256,
        "examples": 1200,
        "peak_bytes": 2**30,
        "complete": True,
        "versions": {"python": "3.11"},
    }


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """Two rounds of RecBole against both objectives."""
    slow = {"evaluation_seconds": [30.0], "is_default": True}
    theirs = [make_record("recbole", "prefix", [time], [9.0]) | {"evaluations": [slow]} for time in (80, 120)]
    theirs[1]["peak_bytes"] = 3 * 2**30
    ours = [make_record("reland_jax", "prefix", [20.0], [2.0, 3.0, 90.0]) for _ in range(2)]
    shifted = [make_record("reland_jax", "shifted", [4.0, 5.0, 90.0], [3.0]) for _ in range(2)]
    return [theirs[0], ours[0], shifted[0], theirs[1], ours[1], shifted[1]]


def row_of(table: str, objective: str, what: str) -> list[str]:
    """The last three cells of a row."""
    (line,) = [x for x in table.splitlines() if f"| {objective} |" in x and what in x]
    return [cell.strip() for cell in line.split("|")[-4:-1]]


def test_ratios_are_of_medians_over_the_rounds(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    table = bench.make_table(records)
    assert row_of(table, "prefix", "training epoch") == ["100", "20", "5.00"]
    assert row_of(table, "shifted", "training epoch") == ["100", "5", "20.00"]
    assert row_of(table, "shifted", "examples/s") == ["12", "240", "20.00"]
    assert row_of(table, "prefix", "tuned: 256") == ["9", "3", "3.00"]
    assert row_of(table, "prefix", "default batch") == ["30", "3", "10.00"]
    assert row_of(table, "prefix", "peak memory") == ["3", "1", "3.00"]


def test_a_poor_measurement_says_so(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    assert "**" not in bench.make_table(records)
    records[0]["busy_cores"], records[1]["complete"] = 2.0, False
    table = bench.make_table(records)
    assert "The machine was busy" in table and "cut short" in table and "2.00, 0.00" in table


def test_the_record_is_the_last_line(bench: ModuleType, records: list[dict[str, Any]]) -> None:
    assert bench.parse_record(f"a warning\n{json.dumps(records[1])}\n") == records[1]
    with pytest.raises(ValueError, match="no JSON record: 'Killed'"):
        bench.parse_record("Killed\n")
    del records[1]["peak_bytes"], records[1]["examples"]
    with pytest.raises(ValueError, match="lacks examples, peak_bytes"):
        bench.parse_record(json.dumps(records[1]))


def test_processes_alternate(bench: ModuleType) -> None:
    listed = bench.commands(["lightgcn", "sasrec"], Path("x/beauty"), "theirs/python", ["--epochs=2"])
    assert [command[0] for command in listed] == [
        "theirs/python", sys.executable, "theirs/python", sys.executable, sys.executable,
    ]  # fmt: skip
    assert [command[2] for command in listed[:3]] == [
        "--model=LightGCN",
        "--model=lightgcn",
        "--model=SASRec",
    ]
    assert [command[3] for command in listed[3:]] == ["--objective=prefix", "--objective=shifted"]
    assert all(command[-2:] == ["--dataset=x/beauty", "--epochs=2"] for command in listed)


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
    script = tmp_path / "side.py"
    script.write_text(f"import reland_jax\nprint({json.dumps(records[1])!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "busy_cores", lambda: 0.25)
    record = bench.run([sys.executable, str(script)])
    assert record.pop("busy_cores") == 0.25 and record == records[1]


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc/stat")
def test_a_core_at_work_is_seen(bench: ModuleType) -> None:
    program = "import time; end = time.process_time() + 0.25\nwhile time.process_time() < end: pass"
    before = bench._cpu_ticks()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert bench._cpu_ticks() - before >= 0.2 * os.sysconf("SC_CLK_TCK")
