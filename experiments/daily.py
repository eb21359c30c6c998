"""The daily job for any number of users: Parquet shards of histories in, the table of a day out.

    python -m experiments.daily --deployment=WORKDIR --day=2024-01-14 --histories=DIR --out=DIR

WORKDIR is that of `experiments.deploy`; its last encoder and pool before the day are taken. Shards have the
columns user_id, items (lists of item ids, oldest first) and time (of the newest click, milliseconds since
1970 in UTC), which must be before the day. DIR/assigned has the seed user and cosine of every user, as
`experiments.attach` writes them, and DIR/table what a ranker maps into memory: a row for every user, in the
order of the shards. An interrupted job continues when it is started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path

if TYPE_CHECKING:
    from reland_jax.scale import Progress

_DEPLOYMENT = required_path("deployment", "workdir of experiments.deploy")
_DAY = flags.DEFINE_string("day", None, "day that the table is for, such as 2024-01-14", required=True)
_HISTORIES = required_path("histories", "folder of Parquet shards of what users clicked before the day")
_OUT = required_path("out", "folder of the outputs")
_ENGINE = flags.DEFINE_string("engine", "exact", "search engine: exact, approx, ivf or scann")
_RECALL = flags.DEFINE_float("recall", 0.99, "recall of the search, for engines other than exact")
_RAY_WORKERS = flags.DEFINE_integer("ray_workers", 0, "Ray workers; 0 does without Ray", lower_bound=0)
_RAY_CORES = flags.DEFINE_integer("ray_cores", 1, "CPU cores of a Ray worker", lower_bound=1)


def main() -> None:
    """Runs the job."""
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from experiments.deployment.published import daily_job, publish
    from reland_jax.scale import StreamAssigner, attach_all, attach_on_ray

    day = daily_job(
        Path(_DEPLOYMENT.value), _DAY.value, Path(_HISTORIES.value), Path(_OUT.value),
        _ENGINE.value, _RECALL.value,
    )  # fmt: skip
    if _RAY_WORKERS.value:
        report = lambda shard, users: print(f"{shard}: {users:,} users", flush=True)  # noqa: E731
        attach_on_ray(day.job, _RAY_WORKERS.value, _RAY_CORES.value, report)
    else:
        attach_all(StreamAssigner(day.job), _print_progress)
    table = publish(day, Path(_OUT.value))
    without = int((table.seed < 0).sum())
    print(f"done: {len(table.seed):,} users, {without:,} without a seed user, in {_OUT.value}/table")


def _print_progress(progress: Progress) -> None:
    print(f"{progress.shard}: {progress.done:,} of {progress.total:,} users", flush=True)


if __name__ == "__main__":
    command_line.run(main)
