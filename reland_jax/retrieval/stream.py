"""Assignment of tens of millions of users to seed users, from Parquet shards to Parquet shards.

The same answer as `assign` gives (paper, Eq. 3), for users that need not fit into memory: every input
shard becomes one output shard of the same name. A finished one is not made again, so a job that was
killed goes on where it was. What a folder of outputs was made from stands in its manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.retrieval.assign import own_first
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.retrieval.ivf import IvfEffort, IvfIndex
from reland_jax.retrieval.scann_index import ScannEffort, ScannIndex
from reland_jax.retrieval.shards import (
    Seeds,
    batches,
    finished,
    footer_hash,
    list_shards,
    read_seeds,
    width_of,
    write_shard,
)
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa

Index = ScannIndex | IvfIndex
Effort = ScannEffort | IvfEffort

KEPT_INDEXES: dict[str, tuple[type[Index], type[Effort]]] = {
    "ivf": (IvfIndex, IvfEffort),
    "scann": (ScannIndex, ScannEffort),
}
"""Engines whose index is built and tuned once, and kept beside the outputs."""

STREAM_ENGINES = ("exact", "approx", *KEPT_INDEXES)
"""Exact; `jax.lax.approx_max_k`, made for TPUs; cells of seed users; ScaNN. All but the first are asked for a
recall."""

MANIFEST, INDEX, EFFORT = "_manifest.json", "_index", "effort.json"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AttachJob:
    """What is assigned to what, and how.

    Attributes:
        users: folder of Parquet shards with columns user_id and vector.
        seeds: one Parquet file with the same columns.
        out: folder of the outputs, with columns user_id, seed_user_id and cosine, and rank (1 is the
            nearest) where k > 1.
        engine: one of `STREAM_ENGINES`.
        k: seed users per user, in 1 .. S.
        recall: share of the exact neighbours to be found, in (0, 1); "exact" does not read it.
        batch: bound on the users in memory at a time.
        sample: users on whom "ivf" and "scann" are tuned.
    """

    users: Path
    seeds: Path
    out: Path
    engine: str = "exact"
    k: int = 1
    recall: float = 0.99
    batch: int = 65536
    sample: int = 10_000


class Progress(NamedTuple):
    """How far a job is.

    Attributes:
        shard: the one just made.
        done: users assigned, by earlier runs too.
        total: users of the job.
        assigned: users assigned by this run.
        seconds: since this run began to assign.
    """

    shard: Path
    done: int
    total: int
    assigned: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Users per second of this run."""
        return self.assigned / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> float:
        """Seconds still needed at this rate."""
        return (self.total - self.done) / max(self.per_second, 1e-9)


class Attacher:
    """Seed users, their index and what to stamp on outputs: loaded once, used for shard after shard.

    Attributes:
        job: what is assigned to what.
        seeds: the seed users.
        effort: how thoroughly one of `KEPT_INDEXES` searches; None with another engine.
        search: the k nearest seed users of vectors ``<float32>[n, D]``: rows ``<int32>[n, k]`` and their
            cosines ``<float32>[n, k]``.
    """

    def __init__(self, job: AttachJob) -> None:
        """Reads the seed users and the index; the first one for a folder of outputs builds the index.

        Raises:
            RelandError: a setting out of range, faulty seed users, or outputs made from something else.
        """
        _check_job(job)
        self.job, self.seeds = job, read_seeds(job.seeds)
        if not 1 <= job.k <= len(self.seeds.ids):
            raise RelandError(f"--k={job.k} must be between 1 and the {len(self.seeds.ids)} seed users")
        job.out.mkdir(parents=True, exist_ok=True)
        manifest = _manifest(job, self.seeds)
        _check_manifest(job.out, manifest)
        self._made_from = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
        self.effort: Effort | None = None
        self.search = self._engine()
        _write_manifest(job.out, manifest)

    def target(self, shard: Path) -> Path:
        """The output of an input shard."""
        return self.job.out / shard.name

    def is_finished(self, shard: Path, users: int) -> bool:
        """Whether the output of a shard with so many users was made, from this shard and this job."""
        return finished(self.target(shard), self._stamp(shard), users * self.job.k)

    def attach(self, shard: Path) -> int:
        """Makes the output of one shard; returns its number of users.

        Raises:
            RelandError: a fault of the shard. Nothing of its output is left then.
        """
        stamp, width, count = self._stamp(shard), self.seeds.vectors.shape[1], 0

        def tables() -> Iterator[pa.Table]:
            nonlocal count
            yield self._table(self.seeds.ids[:0], np.zeros((0, width), np.float32))
            for ids, vectors in batches(shard, width, self.job.batch):
                count += len(ids)
                yield self._table(_same_type(ids, self.seeds.ids, shard), vectors)

        write_shard(self.target(shard), tables(), stamp)
        return count

    def _stamp(self, shard: Path) -> str:
        return f"{self._made_from}-{footer_hash(shard)}"

    def _table(self, ids: pa.Array, vectors: np.ndarray) -> pa.Table:
        import pyarrow as pa

        k = self.job.k
        seed, cosine = self.search(vectors)
        own_first(seed, cosine, _rows_of(ids, self.seeds.ids))
        user = ids if k == 1 else ids.take(pa.array(np.repeat(np.arange(len(ids)), k)))
        columns = {"user_id": user, "seed_user_id": self.seeds.ids.take(pa.array(seed.reshape(-1)))}
        columns["cosine"] = pa.array(cosine.reshape(-1))
        if k > 1:
            columns["rank"] = pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), len(ids)))
        return pa.table(columns)

    def _engine(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        job = self.job
        if job.engine in KEPT_INDEXES:
            index, effort = _kept(job, self.seeds.vectors, job.out / f"{INDEX}-{self._made_from}")
            self.effort = effort
            return lambda vectors: index.search(vectors, job.k, effort)
        exact = ExactIndex(self.seeds.vectors, 1.0 if job.engine == "exact" else job.recall)
        return lambda vectors: exact.search(vectors, job.k)


def attach_all(
    attacher: Attacher, report: Callable[[Progress], None], part: int = 0, parts: int = 1
) -> Progress | None:
    """Makes every output that is not there yet; returns the last progress, None where there was none.

    Args:
        attacher: for the job.
        report: called after every shard that was made.
        part: which shards this process makes, in 0 .. parts - 1: every ``parts``-th one.
        parts: among how many processes the shards are divided.

    Raises:
        RelandError: a fault of a shard; all are looked over before the first is made.
    """
    if not 0 <= part < parts:
        raise RelandError(f"--part={part} must be between 0 and --parts={parts} less 1")
    users = check_shards(attacher.job, attacher.seeds)
    mine = list(users)[part::parts]
    missing = [shard for shard in mine if not attacher.is_finished(shard, users[shard])]
    total, assigned, progress = sum(users[shard] for shard in mine), 0, None
    before, begin = total - sum(users[shard] for shard in missing), time.perf_counter()
    for shard in missing:
        assigned += attacher.attach(shard)
        seconds = time.perf_counter() - begin
        progress = Progress(shard, before + assigned, total, assigned, seconds)
        report(progress)
    sweep(attacher.job.out, mine)
    return progress


def check_shards(job: AttachJob, seeds: Seeds) -> dict[Path, int]:
    """The input shards and the users of each, once their schemas fit the seed users.

    Raises:
        RelandError: no shard, a wrong column, or another width than that of the seed users.
    """
    width, users = seeds.vectors.shape[1], {}
    for shard in list_shards(job.users):
        users[shard], declared = width_of(shard)
        if declared not in (None, width):
            raise RelandError(f"{shard}: vectors of width {declared}; those of {job.seeds} have {width}")
    return users


def _rows_of(ids: pa.Array, seed_ids: pa.Array) -> np.ndarray:
    """Row ``<int32>[n]`` of every user among the seed users, -1 where it is none."""
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(ids, value_set=seed_ids), -1)
    return found.to_numpy(zero_copy_only=False)


def _same_type(ids: pa.Array, seed_ids: pa.Array, shard: Path) -> pa.Array:
    """The ids in the type of the seed users' ones: 32- or 64-bit does not matter, text or number does."""
    import pyarrow as pa

    if ids.type == seed_ids.type:
        return ids
    if pa.types.is_integer(ids.type) == pa.types.is_integer(seed_ids.type):
        try:
            return ids.cast(seed_ids.type)
        except pa.ArrowInvalid as error:
            raise RelandError(f"{shard}: a user_id does not fit {seed_ids.type}: {error}") from error
    raise RelandError(f"{shard}: user_id is {ids.type}, that of the seed users is {seed_ids.type}")


def _check_job(job: AttachJob) -> None:
    if job.engine not in STREAM_ENGINES:
        hint = nearest_name(job.engine, list(STREAM_ENGINES))
        raise RelandError(f"--engine={job.engine!r} is not known; {hint}")
    if job.batch < 1 or job.sample < 1:
        raise RelandError(f"--batch={job.batch} and --sample={job.sample} must be at least 1")
    if job.engine != "exact" and not 0.0 < job.recall < 1.0:
        raise RelandError(f"--recall={job.recall} must be between 0 and 1")
    if job.out.resolve() in (job.users.resolve(), job.seeds.resolve().parent):
        raise RelandError(f"--out={job.out}: the outputs need a folder of their own")


def _manifest(job: AttachJob, seeds: Seeds) -> dict[str, Any]:
    """What decides the outputs, besides the shards."""
    made_from = {"engine": job.engine, "k": job.k, "num_seeds": len(seeds.ids), "seeds": seeds.checksum}
    return made_from if job.engine == "exact" else made_from | {"recall": job.recall}


def _check_manifest(out: Path, wanted: dict[str, Any]) -> None:
    path = out / MANIFEST
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else wanted
    differ = [name for name in sorted(wanted | stored) if wanted.get(name) != stored.get(name)]
    if differ:
        what = ", ".join(f"{name} {stored.get(name)} (now {wanted.get(name)})" for name in differ)
        raise RelandError(f"{out} holds outputs made with {what}; choose another --out or empty it")


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    aside = out / f".{MANIFEST}.tmp-{os.getpid()}"
    aside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(aside, out / MANIFEST)


def _kept(job: AttachJob, keys: np.ndarray, folder: Path) -> tuple[Index, Effort]:
    """The index in the folder of outputs and its effort, built and tuned first where there is none.

    ScaNN draws its own random numbers, and products differ in their last bits from one processor to another,
    so only the same index gives the same answers after a restart, and on all machines of a job.
    """
    index, effort = KEPT_INDEXES[job.engine]
    if not folder.exists():
        _build(job, keys, folder)
    return index.load(folder, keys), effort(**json.loads((folder / EFFORT).read_text(encoding="utf-8")))


def _build(job: AttachJob, keys: np.ndarray, folder: Path) -> None:
    index = KEPT_INDEXES[job.engine][0].build(keys, job.k)
    queries = tuning_sample(job, keys.shape[1])
    exact, _ = ExactIndex(keys).search(queries, job.k)
    effort = index.tune(queries, exact, job.recall)
    aside = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    index.save(aside)
    (aside / EFFORT).write_text(json.dumps(effort._asdict(), indent=1), encoding="utf-8")
    try:
        os.rename(aside, folder)
    except OSError:
        # Another process of the same job was first; its index is the one that all use.
        if not folder.exists():
            raise
        shutil.rmtree(aside)


def tuning_sample(job: AttachJob, width: int) -> np.ndarray:
    """About ``job.sample`` users ``<float32>[n, width]``, drawn from the first batches of up to 16 shards.

    Raises:
        RelandError: there are no users, or a fault of a shard.
    """
    shards, rng = list_shards(job.users), np.random.default_rng(0)
    chosen = [shards[i] for i in np.unique(np.linspace(0, len(shards) - 1, 16).astype(int))]
    share = -(-job.sample // len(chosen))
    drawn = []
    for shard in chosen:
        _, vectors = next(batches(shard, width, job.batch), (None, np.zeros((0, width), np.float32)))
        drawn.append(vectors[rng.permutation(len(vectors))[:share]])
    if not sum(map(len, drawn)):
        raise RelandError(f"{job.users}: no users to tune engine {job.engine!r} on")
    return np.concatenate(drawn)


def sweep(out: Path, shards: list[Path]) -> None:
    """Removes what killed runs left of these shards, now that all are there."""
    for shard in shards:
        for path in out.glob(f".{shard.name}.tmp-*"):
            _log.info("%s: left by a run that was killed; removed", path)
            path.unlink(missing_ok=True)
