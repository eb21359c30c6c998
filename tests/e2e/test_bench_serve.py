"""The load test of the server: its figures are those of answers that came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.toys import model_of, toy_bundle


@pytest.mark.slow
@pytest.mark.optional("starlette", requirements="serve")
def test_it_measures_and_exchanges_bundles_without_loss(tmp_path: Path, repository: Path) -> None:
    model_of(toy_bundle(tmp_path / "made", "ease")).save(tmp_path / "bundle")
    command = [
        sys.executable, "-m", "experiments.bench_serve", f"--bundle=a={tmp_path / 'bundle'}", "--seconds=1",
        "--shares=10,20", "--connections=4", "--swaps=2", f"--json={tmp_path / 'load.json'}", "--k=3",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads((tmp_path / "load.json").read_text())["records"]
    assert list(record["loads"])[:3] == ["capacity", "10%", "20%"] and record["swaps"] == 2
    for load in record["loads"].values():
        assert set(load["statuses"]) == {"200"} and 0 < load["p50"] <= load["p99"]
