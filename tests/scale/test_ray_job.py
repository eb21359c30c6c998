"""The assignment through Ray Data on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reland_jax.scale.ray_job import attach_on_ray
from reland_jax.scale.stream import AttachJob, StreamAssigner, attach_all
from reland_jax.types import RelandError


def write(path: Path, start: int, vectors: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"user_id": np.arange(start, start + len(vectors)), "vector": column}), path)


def example(folder: Path, shards: int, users: int, seeds: int) -> AttachJob:
    rng = np.random.default_rng(0)
    for number in range(shards):
        rows = rng.normal(size=(users, 16)).astype(np.float32)
        write(folder / "users" / f"part-{number}.parquet", number * users, rows)
    write(folder / "seeds.parquet", 10**6, rng.normal(size=(seeds, 16)).astype(np.float32))
    return AttachJob(folder / "users", folder / "seeds.parquet", folder / "out", batch=500)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!_.]*.parquet"))}


def kill_a_worker(out: Path, killed: list[int], done: threading.Event) -> None:
    """Kills the process that writes a shard, known from the name of the file it writes aside."""
    while not killed and not done.is_set():
        for path in out.glob(".part-*.tmp-*"):
            os.kill(int(path.name.rpartition("-")[2]), signal.SIGKILL)
            killed.append(1)
            return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.optional("ray")
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    import ray

    job = example(tmp_path, shards=4, users=20_000, seeds=2000)
    plain = AttachJob(job.users, job.seeds, tmp_path / "plain", batch=500)
    attach_all(StreamAssigner(plain), print)
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(job.out, killed, done))
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    try:
        killer.start()
        assert attach_on_ray(job, 2, 1, print) == 80_000
        assert attach_on_ray(job, 2, 1, print) == 0
    finally:
        done.set()
        killer.join()
        ray.shutdown()
    assert killed and outputs(job.out) == outputs(plain.out)
    assert not list(job.out.glob(".*"))


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RelandError, match=r"--ray_workers: Ray cannot be imported.*requirements-ray\.txt"):
        attach_on_ray(example(tmp_path, 1, 10, 5), 1, 1, print)
