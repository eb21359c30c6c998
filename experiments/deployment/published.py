"""The table of a day for users in shards: what the daily job reads, and what it publishes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.deployment.days import beginning
from experiments.deployment.histories import HistoryShards
from experiments.deployment.tables import Table, load_table, save_table
from reland_jax import artefacts
from reland_jax.artefacts import fingerprint, load_arrays, stored
from reland_jax.events.storing import load_events
from reland_jax.files import checksum, read_json, written_aside
from reland_jax.scale import AttachJob, list_shards, name_of
from reland_jax.types import RelandError

ROWS = 65_536
"""Users of a tile that is read of an assigned shard."""


class DailyJob(NamedTuple):
    """A daily job.

    Attributes:
        job: of the assignment.
        until: when the day begins, in milliseconds since 1970 in UTC.
        pool: arrays of the pool that is assigned.
    """

    job: AttachJob
    until: int
    pool: Any


def daily_job(
    deployment: Path, day: str, histories: Path, out: Path, engine: str = "exact", recall: float = 0.99
) -> DailyJob:
    """The job of a day, with the last encoder and the last pool of a deployment before it.

    Args:
        deployment: workdir of `experiments.deploy`.
        day: as a date.
        histories: folder of Parquet shards, see `histories`.
        out: folder of the outputs.
        engine: see `AttachJob`.
        recall: see `AttachJob`.

    Raises:
        RelandError: not a date, or the deployment has no pool for this day.
    """
    try:
        number = int(np.datetime64(day, "D").astype(np.int64))
    except ValueError:
        raise RelandError(f"--day={day!r} is not a date such as 2024-01-14") from None
    until = beginning(stored(deployment / "catalogue", load_events).value, number)
    encoder, pool = (_last(deployment / each, day) for each in ("encoder", "pool"))
    weight = float(read_json(encoder / "encoder.json")["text_weight"])
    found = stored(pool, load_arrays).value
    seeds = out / "seeds.parquet"
    out.mkdir(parents=True, exist_ok=True)
    _write_seeds(seeds, deployment, found)
    of_items, ids = ((deployment / each).absolute() for each in ("items", "catalogue"))
    read = HistoryShards(encoder.absolute(), of_items, ids, weight, until)
    job = AttachJob(histories, seeds, out / "assigned", engine, recall=recall, read=read)
    return DailyJob(job, until, found)


def _last(folder: Path, day: str) -> Path:
    """The artefact of the last day that is not after another one."""
    found = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir() and path.name <= day]
    if not found:
        raise RelandError(
            f"{folder}: nothing was made for {day} or a day before it; run experiments.deploy first"
        )
    return found[-1]


def _write_seeds(path: Path, deployment: Path, pool: Any) -> None:
    """The seed users as the assignment reads them, in the order of the pool."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users = stored(deployment / "catalogue", load_events).value.ids.users[pool["user"]]
    vectors = np.asarray(pool["behaviour"], np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    with written_aside(path, private=True) as aside:
        pq.write_table(pa.table({"user_id": pa.array(users.tolist(), pa.string()), "vector": column}), aside)


def publish(day: DailyJob, out: Path) -> Table:
    """Writes the table of all assigned users, or reads one that is up to date.

    Args:
        day: the job, whose outputs are all there.
        out: its folder; the table is ``table`` in it.
    """
    shards = [day.job.out / name_of(path, day.job.users) for path in list_shards(day.job.users)]
    contents = [checksum(path) for path in shards]
    stamp = fingerprint("table", contents, day.until, *map(np.asarray, day.pool.values()))
    with tempfile.TemporaryDirectory(dir=out, prefix=".rows-") as scratch:
        made = artefacts.make(
            out / "table", stamp, compute=lambda: _gathered(day, shards, Path(scratch)), save=save_table,
            load=load_table,
        )  # fmt: skip
    return artefacts.stored(out / "table", load_table).value if made.fresh else made.value


def _gathered(day: DailyJob, shards: list[Path], scratch: Path) -> Table:
    """The columns of all shards, in files that are mapped into memory while they are written."""
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(path).num_rows for path in shards)
    seed, cosine = (
        np.lib.format.open_memmap(scratch / f"{name}.npy", "w+", dtype, (rows,))
        for name, dtype in (("seed", np.int32), ("cosine", np.float32))
    )
    start = 0
    for of_seed, of_cosine in _assigned(day, shards):
        stop = start + len(of_seed)
        seed[start:stop], cosine[start:stop] = of_seed, of_cosine
        start = stop
    return Table(day.until, seed, cosine, np.asarray(day.pool["rationales"]), np.asarray(day.pool["user"]))


def _assigned(day: DailyJob, shards: list[Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the pool and cosines, some users at a time; -1 and 0 for one without a seed user."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import compute

    ids = pq.read_table(day.job.seeds, columns=["user_id"])["user_id"].combine_chunks()
    for path in shards:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as shard:
            for batch in shard.iter_batches(ROWS, columns=["seed_user_id", "cosine"]):
                names = batch.column("seed_user_id")
                place = compute.index_in(names, value_set=ids.cast(names.type))
                seed = compute.fill_null(place, pa.scalar(-1, pa.int32()))
                cosine = compute.fill_null(batch.column("cosine"), 0.0)
                yield seed.to_numpy(zero_copy_only=False), cosine.to_numpy(zero_copy_only=False)
