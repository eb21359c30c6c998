"""Assigns tens of millions of users to seed users: Parquet shards in, Parquet shards out.

    python -m experiments.attach --users=DIR --seeds=SEEDS.parquet --out=DIR --engine=ivf --recall=0.99

Shards and seeds have the columns user_id and vector (a list of numbers, all of one width). Shards may be in
folders such as day=1. An output has the name of its shard and the columns user_id, seed_user_id and cosine;
with --k above 1 also rank. A vector of zeros has no nearest seed user: both columns are empty then, and the
job reports it. An interrupted job continues when it is started again with the same flags. Shards are divided
among machines by hand with --part and --parts, or by Ray with --ray_workers (requirements-ray.txt).
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path

if TYPE_CHECKING:
    from reland_jax.scale import AttachJob, Progress

_USERS = required_path("users", "folder of Parquet shards of user vectors")
_SEEDS = required_path("seeds", "Parquet file of the seed users and their vectors")
_OUT = required_path("out", "folder of the outputs")
_ENGINE = flags.DEFINE_string("engine", "exact", "search engine: exact, approx, ivf or scann")
_K = flags.DEFINE_integer("k", 1, "seed users per user", lower_bound=1)
_RECALL = flags.DEFINE_float("recall", 0.99, "recall of the search, for engines other than exact")
_BATCH = flags.DEFINE_integer("batch", 65536, "users in memory at a time", lower_bound=1)
_SAMPLE = flags.DEFINE_integer("sample", 10_000, "sample size for tuning ivf and scann", lower_bound=1)
_REPEATED = flags.DEFINE_bool("repeated_users", False, "allow users that are listed more than once")
_PART = flags.DEFINE_integer("part", 0, "part of the shards for this process, from 0")
_PARTS = flags.DEFINE_integer("parts", 1, "number of processes that share the work", lower_bound=1)
_RAY_WORKERS = flags.DEFINE_integer("ray_workers", 0, "Ray workers; 0 does without Ray", lower_bound=0)
_RAY_CORES = flags.DEFINE_integer("ray_cores", 1, "CPU cores of a Ray worker", lower_bound=1)


def main() -> None:
    """Runs the job."""
    # Imported here and below, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax.scale import AttachJob, Outputs

    job = AttachJob(
        Path(_USERS.value), Path(_SEEDS.value), Path(_OUT.value),
        _ENGINE.value, _K.value, _RECALL.value, _BATCH.value, _SAMPLE.value, _REPEATED.value,
    )  # fmt: skip
    _on_ray(job) if _RAY_WORKERS.value else _here(job)
    if unmatched := Outputs(job.out, "").unmatched():
        print(f"{unmatched:,} users have a vector of zeros; the outputs have them without a seed user")


def _here(job: AttachJob) -> None:
    from reland_jax.scale import StreamAssigner, attach_all

    begin = time.perf_counter()
    attacher = StreamAssigner(job)
    num_seeds, width = attacher.seeds.vectors.shape
    seconds = time.perf_counter() - begin
    print(f"{num_seeds:,} seed users of width {width}; engine {job.engine} ready after {seconds:.1f} s")
    if attacher.effort:
        print(f"{job.engine}: {attacher.effort}; recall {attacher.effort.recall:.4f} on the sample")
    last = attach_all(attacher, _print_progress, _PART.value, _PARTS.value)
    print("nothing was left to do" if last is None else f"done: {last.total:,} users in {job.out}")


def _on_ray(job: AttachJob) -> None:
    from reland_jax.scale import attach_on_ray

    begin = time.perf_counter()
    assigned = attach_on_ray(
        job, _RAY_WORKERS.value, _RAY_CORES.value, lambda shard, users: print(f"{shard}: {users:,} users")
    )
    print(f"done: {assigned:,} users assigned in {time.perf_counter() - begin:.1f} s, in {job.out}")


def _print_progress(progress: Progress) -> None:
    remaining = timedelta(seconds=round(progress.remaining))
    share = progress.done / max(progress.total, 1)
    rate = f"{progress.per_second:,.0f} users/s, {share:.0%} done, {remaining} to go"
    print(f"{progress.shard}: {progress.done:,} of {progress.total:,} users, {rate}", flush=True)


if __name__ == "__main__":
    command_line.run(main)
