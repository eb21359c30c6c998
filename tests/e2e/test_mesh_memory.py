"""Sizing a job before a machine is rented: the command, and what it counts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.configs.reland import get_config
from experiments.mesh_memory import footprint, parse_mesh, sent_bytes
from experiments.scaling.interactions import generate
from reland_jax.config import Config, MeshConfig
from reland_jax.data import split
from reland_jax.types import RelandError
from tests.toys import quick_programs_environment


@pytest.mark.slow
def test_four_devices_hold_a_quarter_each(repository: Path, programs: Path) -> None:
    command = [sys.executable, "-m", "experiments.mesh_memory", "--backbone=lightgcn", "--meshes=1x1,1x4"]
    done = subprocess.run(
        [*command, "--users=400", "--items=199"], cwd=repository, capture_output=True, text=True, timeout=500,
        env=os.environ | quick_programs_environment(programs) | {"PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, four = ([float(cell) for cell in row.split("|")[3:-1]] for row in done.stdout.splitlines()[-2:])
    # Embeddings of 400 users and 199 + 1 items, D = 64, with two moments and the best, in megabytes.
    assert one[0] == pytest.approx(600 * 64 * 4 * 4 / 1e6, abs=0.051)
    assert four[0] == pytest.approx(one[0] / 4, abs=0.1)
    assert one[-1] == 0 and four[-1] > 0


def test_what_is_sent_is_read_off_the_program() -> None:
    program = """
      %a = f32[8,4]{1,0} all-gather(%x), channel_id=1
      %b = (f32[], s32[3]) all-reduce-start(%y, %z)
      ROOT %c = f32[8,4]{1,0} add(%a, %a)"""
    assert sent_bytes(program) == 4 * 8 * 4 + 4 + 4 * 3


def test_a_mesh_is_two_numbers() -> None:
    assert parse_mesh("2x4") == MeshConfig(2, 4)
    with pytest.raises(RelandError, match="'2x' is not DATAxMODEL, such as 2x4"):
        parse_mesh("2x")


@pytest.mark.slow
def test_the_step_of_an_accelerator_can_be_counted_on_a_cpu() -> None:
    """Its sums over edges need the receiver of every edge, and not where each row of edges begins."""
    config = Config.from_dict(get_config("amazon-beauty,lightgcn").to_dict())
    config = dataclasses.replace(config, mesh=MeshConfig())
    splits = split(generate(60, 30, 0), config.data.protocol)
    cpu, gpu = (footprint(config, splits, device) for device in ("cpu", "gpu"))
    edges, rows = len(splits.train.items), splits.num_users + splits.num_items + 1
    assert gpu.data - cpu.data == 4 * (2 * edges - (rows + 2))
    assert gpu.state == cpu.state
