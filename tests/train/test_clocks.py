"""Processes whose clocks differ take the same decisions."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reland_jax.train import fit
from tests.toys import quick_programs_environment
from tests.train.toys import SEQUENTIAL, toy_task, without_seconds

CONFIG = dataclasses.replace(SEQUENTIAL, max_epochs=12, checkpoint_seconds=2.0)

PROGRAM = """
import json, os, sys, time
from types import SimpleNamespace
import reland_jax.train.loop as loop
from reland_jax.config import MeshConfig
from reland_jax.mesh import join_processes, use_mesh
from reland_jax.train import fit
from tests.train.test_clocks import CONFIG
from tests.train.toys import toy_task, without_seconds

process = int(os.environ["JAX_PROCESS_ID"])
join_processes(os.environ)
ticks = iter(range(10**6))
# One clock says that a checkpoint is due after every epoch, the other that none ever is.
clock = lambda: 5.0 * next(ticks) * (1 - process)
loop.time = SimpleNamespace(monotonic=clock, perf_counter=time.perf_counter)
with use_mesh(MeshConfig(data=2)):
    history = fit(*toy_task("sasrec", CONFIG), CONFIG, sys.argv[1]).history
print(json.dumps(without_seconds(history)))
"""


@pytest.mark.slow
def test_clocks_that_differ_end_no_job(repository: Path, programs: Path, tmp_path: Path) -> None:
    """Two processes train past `checkpoint_seconds` to the numbers of one, and leave a checkpoint."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        port = listening.getsockname()[1]
    common = os.environ | quick_programs_environment(programs)
    common |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(repository)}
    common |= {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=repository, text=True,
            env=common | {"JAX_PROCESS_ID": str(index)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert first == second
    expected = without_seconds(fit(*toy_task("sasrec", CONFIG), CONFIG).history)
    for ours, theirs in zip(first, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["12"]
