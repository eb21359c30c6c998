"""The streaming assignment on a cluster, through Ray Data.

The unit of work is a shard. Workers load the seed users and the index once each; the shard of a killed worker
is given to another one by Ray. All machines must see the folders of the job under the same paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reland_jax.scale.stream import AttachJob, StreamAssigner, check_shards, missing_of, sweep
from reland_jax.types import RelandError


class ShardWorker:
    """One worker of Ray's actor pool."""

    def __init__(self, job: AttachJob) -> None:
        """Loads what `StreamAssigner` loads."""
        self._attacher = StreamAssigner(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Makes the output of the shard ``row["shard"]``; returns its name and number of users."""
        return {"shard": row["shard"], "users": self._attacher.attach(Path(row["shard"]))}


def attach_on_ray(job: AttachJob, workers: int, cores: int, report: Callable[[str, int], None]) -> int:
    """Makes every output that is not there yet; returns the users assigned by this run.

    Args:
        job: its folders, as all machines see them.
        workers: size of the actor pool, at least 1.
        cores: CPU cores that Ray sets aside for each, at least 1.
        report: called with every shard that was made and its number of users.

    Raises:
        RelandError: Ray is not installed, or see `attach_all`.
    """
    ray = _ray()
    # The index is built here, so that workers only load it.
    attacher = StreamAssigner(job)
    users = check_shards(job, attacher.seeds)
    missing = missing_of(attacher, users, list(users))
    assigned = 0
    if missing:
        rows = ray.data.from_items([{"shard": str(shard.absolute())} for shard in missing])
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers)
        made = rows.repartition(len(missing)).map(
            ShardWorker, fn_constructor_kwargs={"job": _absolute(job)}, compute=pool, num_cpus=cores
        )
        for row in made.iter_rows():
            assigned += row["users"]
            report(row["shard"], row["users"])
    sweep(attacher, list(users))
    return assigned


def _absolute(job: AttachJob) -> AttachJob:
    """The job with absolute paths, for workers with another current folder."""
    paths = {name: getattr(job, name).absolute() for name in ("users", "seeds", "out")}
    return dataclasses.replace(job, **paths)


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RelandError(
            f"--ray_workers: Ray cannot be imported ({error}); `pip install -r requirements-ray.txt`"
        ) from error
    return ray
