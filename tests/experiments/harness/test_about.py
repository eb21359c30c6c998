"""How a result says what made it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from experiments.harness.about import about, command
from experiments.harness.remaining import Remaining
from reland_jax.config import Config


def test_a_command_is_told_without_the_names_of_people() -> None:
    words = ["/usr/bin/python3", "-m", "experiments.run", "--workdir=a b", "--config.pool.names=('Ada',)"]
    assert command(words) == "python -m experiments.run '--workdir=a b' --config.pool.names=..."
    chosen = command(["python", "-m", "experiments.run", "--config.variants=('id',)", "--why=it's $5"])
    assert chosen == """python -m experiments.run "--config.variants=('id',)" '--why=it'"'"'s $5'"""
    assert "Ada" not in command([*words[:4], "--config.pool.names", "Ada"])
    assert command(["jupyter", "lab"]) == command(["python", "-m", "pytest"]) == ""


def test_the_time_is_that_of_the_last_artefact(tmp_path: Path) -> None:
    for name, seconds in (("load", 60), ("train/id-seed0", 3600)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "stamp.json").touch()
        os.utime(tmp_path / name / "stamp.json", (seconds, seconds))
    assert about(tmp_path)["finished"] == "1970-01-01 01:00 UTC"
    assert set(about(tmp_path / "load" / "none")) == {"command", "finished", "commit"}


def test_the_time_to_come_is_told(caplog: pytest.LogCaptureFixture) -> None:
    remaining = Remaining(Config(variants=("id", "f_item", "reland")))
    with caplog.at_level(logging.INFO, "reland_jax"):
        remaining.trained()  # read back
        for _ in range(4):
            remaining.epoch({"seconds": 1.5, "evaluation_seconds": 0.5})
        remaining.trained()
    first, second = caplog.messages
    assert first.startswith("estimate: 0:20:00 at most for 3 trainings of up to 200 epochs, 2 s each")
    assert second == "2 of 3 trainings done, less than a minute to come"
