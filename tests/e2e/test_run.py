"""The command line: what a mistake is answered with, and a run killed in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.stages import FLOW, training
from tests.e2e.conftest import Finished, merged
from tests.toys import quick_programs_environment

DEMO = "experiments/configs/reland.py:demo,lightgcn"


def start(repository: Path, programs: Path, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """The main job as a process of its own."""
    command = [sys.executable, "-m", "experiments.run", *arguments]
    environment = os.environ | quick_programs_environment(programs)
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    with log.open("wb") as out:
        return subprocess.Popen(command, cwd=repository, env=environment, stdout=out, stderr=out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config.train.learning_rat=1"], "'learning_rat' is not a setting; did you mean 'learning_rate'?"),
        (["--stage=assign"], "Did you mean: stages ?"),
        (["assign"], "unexpected arguments: assign"),
        (["--config.model.dropout=2.0"], "config.model.dropout=2.0 must be at least 0 and at most 0.99"),
        ([f"--config={DEMO}x"], "backbone 'lightgcnx': did you mean 'lightgcn'?"),
    ],
)
def test_a_mistake_on_the_command_line(
    repository: Path, programs: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    """One line that helps, a status that is not zero, no traceback, and no work done."""
    log, workdir = tmp_path / "log", tmp_path / "work"
    process = start(repository, programs, f"--config={DEMO}", f"--workdir={workdir}", *arguments, log=log)
    assert process.wait(timeout=500) != 0
    said = log.read_text()
    assert expected in said.replace("'. ", ". ").replace("\n", " "), said
    assert "Traceback" not in said
    assert not workdir.exists()


def flags_of(changes: dict[str, Any], prefix: str = "--config") -> Iterator[str]:
    """Nested settings as flags."""
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from flags_of(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}={value}"


def newest_checkpoint(workdir: Path) -> Path | None:
    """The folder of the newest complete checkpoint of the variant `id`."""
    # The list of its files is written when they all are on the disk.
    lists = workdir.glob("checkpoints/train/id-seed0*/*.files.json")
    found = [path.with_name(path.name.removesuffix(".files.json")) for path in lists]
    return max(found, key=lambda path: int(path.name), default=None)


def stop_while_training(process: subprocess.Popen[bytes], workdir: Path, delay: float, number: int) -> None:
    """Sends a signal some time after the first checkpoint."""
    deadline = time.monotonic() + 500
    while newest_checkpoint(workdir) is None:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it trained"
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(number)
    process.wait(timeout=60)


def epochs_of(checkpoint: Path) -> list[dict[str, float]]:
    """The history that a checkpoint holds."""
    return json.loads((checkpoint / "notes" / "metadata").read_text())["progress"]["seeds"][0]["history"]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_killed_in_the_middle_and_started_again(
    finished: Callable[[str], Finished],
    settings: Callable[..., dict[str, Any]],
    repository: Path,
    programs: Path,
    tmp_path: Path,
    number: int,
) -> None:
    """kill -9 or Ctrl-C of a real process at a random moment of training; the second run ends with the same
    numbers."""
    changes = settings(train={"max_epochs": 60}, variants=("id",))
    config = Config.from_dict(merged(get_config("demo,lightgcn").to_dict(), changes))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        untrained = shutil.ignore_patterns("train", "results.json")
        shutil.copytree(finished("lightgcn").workdir, folder, ignore=untrained)
    # How often a training is saved is a matter of the machine; only the process that is killed must do it.
    seldom = dataclasses.replace(config.train, checkpoint_seconds=60.0)
    config = dataclasses.replace(config, train=seldom)
    made = flow.run(FLOW, config, undisturbed)
    expected = made.make(training(made, "id", 0)).summary

    log, delay = tmp_path / "log", random.uniform(0.0, 1.0)
    arguments = (f"--config={DEMO}", f"--workdir={killed}", *flags_of(changes))
    process = start(repository, programs, *arguments, log=log)
    stop_while_training(process, killed, delay, number)
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in log.read_text()
        assert log.read_text().splitlines()[-1].startswith("error: stopped by Ctrl-C")
    assert not (killed / "train" / "id-seed0").exists(), f"it had finished; {log.read_text()}"
    before = epochs_of(newest_checkpoint(killed) or Path())
    assert 0 < len(before) < 60

    run(config, killed)
    found = json.loads((killed / "results.json").read_text())["variants"]["id"]
    assert found["history"][: len(before)] == before, f"it began anew (killed after {delay} s)"
    for part in ("valid", "test"):
        assert found[part] == expected.of(part), f"killed after {delay} s, at epoch {len(before)}"
    assert [entry["loss"] for entry in found["history"]] == [entry["loss"] for entry in expected.history]
