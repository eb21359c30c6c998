"""The main job in two processes that share the work, against one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax.config import Config
from tests.e2e import shared_ranker
from tests.e2e.conftest import merged
from tests.e2e.test_run import epochs_of, flags_of, newest_checkpoint, stop_while_training
from tests.rankers.toys import write_shards
from tests.toys import quick_programs_environment


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def start_two(
    repository: Path, programs: Path, folder: Path, *arguments: str, module: str = "experiments.run"
) -> list[subprocess.Popen[bytes]]:
    """Two processes with one device each, which log to ``process-0.log`` and ``process-1.log``."""
    command = [sys.executable, "-m", module, *arguments]
    common = os.environ | quick_programs_environment(programs) | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    common |= {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}"}
    processes = []
    for index in range(2):
        environment = common | {"JAX_PROCESS_ID": str(index), "PYTHONPATH": str(repository)}
        with (folder / f"process-{index}.log").open("wb") as out:
            processes.append(
                subprocess.Popen(command, cwd=repository, env=environment, stdout=out, stderr=out)
            )
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sasrec", "lightgcn"])
def test_two_processes_train_to_the_numbers_of_one(
    repository: Path, programs: Path, tmp_path: Path, settings: Callable[..., dict[str, Any]], backbone: str
) -> None:
    """The first makes what is trained on and writes the results; both train.

    One is killed in the middle, whereupon the other stops too; started again, both go on.
    """
    workdir, changes = tmp_path / "two", settings(train={"max_epochs": 40}, variants=("id", "reland"))
    arguments = [f"--config=experiments/configs/reland.py:demo,{backbone}", *flags_of(changes)]
    arguments += ["--config.mesh.data=2", f"--workdir={workdir}"]
    first, second = start_two(repository, programs, tmp_path, *arguments)
    stop_while_training(second, workdir, 0.0, signal.SIGKILL)
    assert first.wait(timeout=200) != 0
    before = epochs_of(newest_checkpoint(workdir))
    codes = [process.wait(timeout=500) for process in start_two(repository, programs, tmp_path, *arguments)]
    said = [(tmp_path / f"process-{index}.log").read_text() for index in range(2)]
    assert codes == [0, 0], "\n\n".join(said)
    assert all(f"process {index} of 2" in text for index, text in enumerate(said))
    found = json.loads((workdir / "results.json").read_text())
    config = merged(get_config(f"demo,{backbone}").to_dict(), changes)
    expected = run(Config.from_dict(config), tmp_path / "one")
    for variant in changes["variants"]:
        ours, theirs = (each["variants"][variant] for each in (found, expected))
        assert [e["loss"] for e in ours["history"]] == pytest.approx(
            [e["loss"] for e in theirs["history"]], rel=1e-3
        )
        assert ours["test"]["ndcg@10"] == pytest.approx(theirs["test"]["ndcg@10"], abs=0.02)
    assert before == found["variants"]["id"]["history"][: len(before)]
    assert (workdir / "report.html").is_file()
    # The first process alone writes events: of `id` in both starts, of `reland` in the second.
    events = workdir / "tensorboard"
    assert [len(list((events / f"train-{name}-seed0").iterdir())) for name in ("id", "reland")] == [2, 1]


@pytest.mark.slow
def test_two_processes_make_a_table(
    repository: Path, programs: Path, tmp_path: Path, settings: Callable[..., dict[str, Any]]
) -> None:
    """Both train every cell; the first tells of them and writes the tables."""
    workdir, changes = tmp_path / "two", settings(train={"max_epochs": 2, "eval_every": 1})
    given = [flag.replace("--config.", "--set=") for flag in flags_of(changes)]
    arguments = ["--datasets=demo", "--backbones=lightgcn", "--variants=id,reland", "--seeds=1"]
    arguments += ["--set=mesh.data=2", f"--workdir={workdir}", *given]
    started = start_two(repository, programs, tmp_path, *arguments, module="experiments.table2")
    codes = [process.wait(timeout=500) for process in started]
    first, second = ((tmp_path / f"process-{index}.log").read_text() for index in range(2))
    assert codes == [0, 0], f"{first}\n\n{second}"
    assert "2/2 demo lightgcn reland seed 0" in first and "1/2" not in second
    (group,) = json.loads((workdir / "table2.json").read_text())["groups"]
    assert [len(group["cells"][name]["seeds"]) for name in ("id", "reland")] == [1, 1]
    assert sorted(path.name for path in workdir.glob("table2.*")) == [
        "table2.html", "table2.json", "table2.md",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_a_ranker_each_from_its_own_shards(
    repository: Path, programs: Path, tmp_path: Path
) -> None:
    """To the numbers of one that reads all of them; killed in the middle, they go on."""
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shards(shared_ranker.LOG, shared_ranker.ROWS, [225, 450, 675], shards)
    shared_ranker.main(shards, tmp_path / "of-one", tmp_path / "one.npz")
    arguments = [str(shards), str(tmp_path / "of-two"), str(tmp_path / "two.npz")]
    for is_killed in (True, False):
        started = start_two(repository, programs, tmp_path, *arguments, module="tests.e2e.shared_ranker")
        if is_killed:
            while started[0].poll() is None and not list((tmp_path / "of-two").glob("*.files.json")):
                time.sleep(0.02)
            for process in started:
                process.kill()
        statuses = [process.wait(timeout=300) for process in started]
        assert is_killed or statuses == [0, 0], (tmp_path / "process-0.log").read_text()
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert len(one.files) == len(two.files) > 3
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5)
