"""The cost of more users in seed sampling: how time is told apart, the plot, and the command given again."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import seeds_growth
from experiments.seeds_growth import PHASES, Setup, draw, population, run, sizes_of, table, time_by_phase
from reland_jax.types import RelandError

SETUP = Setup(25_000, 28_000, 8, 1, 2, 1e-4, 10, "")


def record(users: int) -> dict[str, Any]:
    """A measurement that took a second of processor time for each thousand users."""
    parts = dict.fromkeys(PHASES, users / 4000)
    whole = {"seconds": users / 2000, "cpu_seconds": users / 1000}
    memory = {"vector_bytes": users * 32, "base_bytes": 1 << 28, "peak_bytes": (1 << 28) + users * 64}
    counts = {"users": users, "iterations": 9, "complete": 2, "inertia": 1.0, "chosen": [3, 4]}
    return whole | {"phase_seconds": parts, "phase_cpu_seconds": parts} | counts | memory


def test_time_goes_to_the_step_that_ended() -> None:
    said = [
        ("1,000 users", 10.0, 1.0),
        ("K-means: 8 of 8 centres drawn", 11.0, 1.5),
        ("K-means: started, inertia 9", 12.0, 2.0),
        ("K-means: iteration 1, near centres compared, inertia 8", 16.0, 4.0),
        ("K-means: iteration 2, all centres compared, inertia 7", 24.0, 9.0),
        ("K-means: last assignment, all centres compared, inertia 7", 25.0, 10.0),
        ("sampling", 25.5, 10.25),
    ]
    found = time_by_phase(said)
    assert found["phase_seconds"] == dict(zip(PHASES, (2.0, 4.0, 9.0, 0.5), strict=True))
    assert found["phase_cpu_seconds"] == dict(zip(PHASES, (1.0, 2.0, 6.0, 0.25), strict=True))
    assert (found["seconds"], found["cpu_seconds"]) == (15.5, 9.25)


def test_population_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, activity = population(900, SETUP)
    assert vectors.shape == (900, 8) and vectors.dtype == np.float32 and activity.min() >= 3
    monkeypatch.setattr(seeds_growth, "_BLOCK", 200)
    other, _ = population(900, SETUP)
    assert len(np.unique(other, axis=0)) == 900, "every block is another draw"
    np.testing.assert_allclose(other.std(axis=0), vectors.std(axis=0), rtol=0.2)


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[int] = []

    def measure_apart(users: int, setup: Setup) -> dict[str, Any]:
        asked.append(users)
        return record(users)

    monkeypatch.setattr(seeds_growth, "measure_apart", measure_apart)
    run([4000, 2000], SETUP, tmp_path)
    run([2000, 8000], SETUP, tmp_path)
    assert asked == [2000, 4000, 8000]
    shown = capsys.readouterr().out
    assert "exponent" in shown and "1.00" in shown
    kept = json.loads((tmp_path / "seeds_growth.json").read_text())
    assert sorted(each["users"] for each in kept["records"].values()) == [2000, 4000, 8000]


def test_plot_and_table(tmp_path: Path) -> None:
    found = {users: record(users) for users in (1000, 2000)}
    draw(found, SETUP, tmp_path / "growth.svg")
    text = " ".join(ElementTree.parse(tmp_path / "growth.svg").getroot().itertext())
    for expected in ("K = 25,000 at every size", "near centres", "in proportion to users", "vectors"):
        assert expected in text
    assert table(found).splitlines()[2].split()[:3] == ["1,000", "0", "1"]
    assert "exponent" not in table({1000: record(1000)})


@pytest.mark.parametrize("given", ["24999", "1e6", "-3", ""])
def test_impossible_numbers_of_users(given: str) -> None:
    with pytest.raises(RelandError, match="--users.*is not a whole number from --clusters=25000 on"):
        sizes_of([given], SETUP.clusters)
    with pytest.raises(RelandError, match="--users is empty"):
        sizes_of([], SETUP.clusters)


@pytest.mark.slow
def test_the_command(tmp_path: Path, repository: Path) -> None:
    """With just enough users and clusters for the way of many; two devices."""
    given = ["--users=40000", "--clusters=25000", "--seeds=28000", "--dim=4", "--iterations=1", "--devices=2"]
    command = [sys.executable, "-m", "experiments.seeds_growth", *given, f"--workdir={tmp_path}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "iteration 1, near centres compared" in done.stderr
    (found,) = json.loads((tmp_path / "seeds_growth.json").read_text())["records"].values()
    assert sum(found["chosen"]) == 28_000 and found["iterations"] == 1
    assert all(found["phase_cpu_seconds"][name] > 0 for name in PHASES)
    assert found["peak_bytes"] - found["base_bytes"] < 2**29
