"""Assignment of tens of millions of users to seed users, from Parquet shards to Parquet shards.

The same answer as `assign` gives (paper, Eq. 3), for users that need not fit into memory: every input
shard becomes one output shard of the same name. A finished one is not made again, so a killed job continues
where it stopped. What outputs were made from, and their checksums, are stored next to them
(`scale.outputs`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.files import checksum, locked, read_regular, sweep_folder, write_json, written_aside
from reland_jax.retrieval.assign import own_first
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.scale.ivf import IvfEffort, IvfIndex
from reland_jax.scale.outputs import Outputs
from reland_jax.scale.repeats import find_repeats
from reland_jax.scale.scann_index import ScannEffort, ScannIndex
from reland_jax.scale.shards import (
    Seeds,
    ShardReader,
    VectorShards,
    left_out,
    list_shards,
    name_of,
    read_seeds,
    write_shard,
)
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa

Effort = ScannEffort | IvfEffort
Own = TypeVar("Own", ScannEffort, IvfEffort)
"""The effort that an index understands: its own."""


class Index(Protocol[Own]):
    """An index of seed users that is stored next to the outputs."""

    @classmethod
    def build(cls, keys: np.ndarray, k: int) -> Self:
        """An index of keys ``<float32>[S, D]``, of which k will be asked for."""
        ...

    @classmethod
    def load(cls, folder: Path, keys: np.ndarray) -> Self:
        """Reads what `save` wrote for the same keys."""
        ...

    def save(self, folder: Path) -> None:
        """Writes it into an existing folder."""
        ...

    def tune(self, queries: np.ndarray, exact: np.ndarray, recall: float) -> Own:
        """The least effort that finds the wanted share of the exact neighbours of a sample."""
        ...

    def search(self, queries: np.ndarray, k: int, effort: Own) -> tuple[np.ndarray, np.ndarray]:
        """As `exact_top_k`, with the given effort."""
        ...


# Any: the lines of the table are of different kinds. The effort in a line is the one that its index returns.
KEPT_INDEXES: dict[str, tuple[type[Index[Any]], type[Effort]]] = {
    "ivf": (IvfIndex, IvfEffort),
    "scann": (ScannIndex, ScannEffort),
}
"""Engines whose index is built and tuned once, and stored next to the outputs."""

STREAM_ENGINES = ("exact", "approx", *KEPT_INDEXES)
"""Exact; `jax.lax.approx_max_k`, made for TPUs; cells of seed users; ScaNN. All but the first are asked for a
recall."""

INDEX, EFFORT, CHECKSUMS = "_index", "effort.json", "checksums.json"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AttachJob:
    """What is assigned to what, and how.

    Attributes:
        users: folder of Parquet shards with columns user_id and vector, or one such file.
        seeds: one Parquet file with the same columns.
        out: folder of the outputs, with columns user_id, seed_user_id and cosine, and rank (1 is the
            nearest) where k > 1.
        engine: one of `STREAM_ENGINES`.
        k: seed users per user, in 1 .. S.
        recall: share of the exact neighbours to be found, in (0, 1); "exact" does not read it.
        batch: bound on the users in memory at a time.
        sample: number of users that "ivf" and "scann" are tuned on.
        repeated_users: whether a user may be listed more than once, and then is in the outputs as often.
        read: how users are read; their vectors may also be made of what their shards hold.
    """

    users: Path
    seeds: Path
    out: Path
    engine: str = "exact"
    k: int = 1
    recall: float = 0.99
    batch: int = 65536
    sample: int = 10_000
    repeated_users: bool = False
    read: ShardReader = VectorShards()


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


class StreamAssigner:
    """Seed users, their index and what to stamp on outputs: loaded once, used for shard after shard.

    Attributes:
        job: what is assigned to what.
        seeds: the seed users.
        outputs: what there is of them, and what each was made from.
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
        self._made_from = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
        self.outputs = Outputs(job.out, self._made_from)
        self.outputs.check_manifest(manifest)
        self._contents: dict[Path, tuple[tuple[int, ...], str]] = {}
        self.effort: Effort | None = None
        self.search = self._engine()

    def name(self, shard: Path) -> str:
        """What the output of an input shard is called in the folder of outputs."""
        return name_of(shard, self.job.users)

    def is_finished(self, shard: Path, users: int) -> bool:
        """Whether the output of a shard with so many users was made, from this shard and this job."""
        record = self.outputs.record(self.name(shard))
        if record is None or not record.made_from.startswith(self._made_from):
            return False
        return self.outputs.is_finished(self.name(shard), record, self._stamp(shard), users * self.job.k)

    def attach(self, shard: Path) -> int:
        """Makes the output of one shard; returns its number of users.

        Raises:
            RelandError: a fault of the shard. Nothing of its output is left then.
        """
        stamp, width, count, unmatched = self._stamp(shard), self.seeds.vectors.shape[1], 0, 0

        def tables() -> Iterator[pa.Table]:
            nonlocal count, unmatched
            yield self._table(self.seeds.ids[:0], np.zeros((0, width), np.float32))
            for ids, vectors in self.job.read.batches(shard, width, self.job.batch):
                count += len(ids)
                table = self._table(_same_type(ids, self.seeds.ids, shard), vectors)
                unmatched += int(table["seed_user_id"].is_null().to_numpy()[:: self.job.k].sum())
                yield table
            if _state(shard) != self._contents[shard][0]:
                raise RelandError(f"{shard} was changed while it was read; run the same command again")

        write_shard(self.outputs.target(self.name(shard)), tables(), stamp)
        self.outputs.finish(self.name(shard), stamp, count * self.job.k, unmatched)
        return count

    def _stamp(self, shard: Path) -> str:
        """Hash of the job and of all bytes of the shard, which are read once as long as it stays as it is."""
        state = _state(shard)
        if self._contents.get(shard, (None, ""))[0] != state:
            self._contents[shard] = state, checksum(shard)
        return f"{self._made_from}-{self._contents[shard][1]}"

    def _table(self, ids: pa.Array, vectors: np.ndarray) -> pa.Table:
        import pyarrow as pa

        k = self.job.k
        seed, cosine = self.search(vectors)
        own = _rows_of(ids, self.seeds.ids)
        own_first(seed, cosine, own)
        user = ids if k == 1 else ids.take(pa.array(np.repeat(np.arange(len(ids)), k)))
        # A vector of zeros has no direction, so no seed user is its nearest. A seed user is its own nearest
        # all the same.
        unmatched = np.repeat(~vectors.any(axis=1), k)
        unmatched[::k] &= own < 0
        rows = pa.array(seed.reshape(-1), mask=unmatched)
        columns = {"user_id": user, "seed_user_id": self.seeds.ids.take(rows)}
        columns["cosine"] = pa.array(cosine.reshape(-1), mask=unmatched)
        if k > 1:
            columns["rank"] = pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), len(ids)))
        return pa.table(columns)

    def _engine(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        job = self.job
        if job.engine in KEPT_INDEXES:
            folder = job.out / f"{INDEX}-{self._made_from}"
            index, effort = _kept(job, self.seeds.vectors, folder)
            # Outputs of another index are made again, also where the index was damaged and built anew.
            self._made_from += f"-{checksum(folder / CHECKSUMS)[:16]}"
            self.effort = effort
            return lambda vectors: index.search(vectors, job.k, effort)
        exact = ExactIndex(self.seeds.vectors, 1.0 if job.engine == "exact" else job.recall)
        return lambda vectors: exact.search(vectors, job.k)


def attach_all(
    attacher: StreamAssigner, report: Callable[[Progress], None], part: int = 0, parts: int = 1
) -> Progress | None:
    """Makes every output that is missing; returns the last progress, or None if there was nothing to do.

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
    missing = missing_of(attacher, users, mine)
    total, assigned, progress = sum(users[shard] for shard in mine), 0, None
    before, begin = total - sum(users[shard] for shard in missing), time.perf_counter()
    for wait in (False, True):  # what another process is making comes last
        for shard in list(missing):
            with attacher.outputs.turn(attacher.name(shard), wait) as is_ours:
                if not is_ours:
                    continue
                missing.remove(shard)
                if attacher.is_finished(shard, users[shard]):
                    before += users[shard]
                    continue
                assigned += attacher.attach(shard)
            seconds = time.perf_counter() - begin
            progress = Progress(shard, before + assigned, total, assigned, seconds)
            report(progress)
    sweep(attacher, mine)
    return progress


def missing_of(attacher: StreamAssigner, users: Mapping[Path, int], mine: Sequence[Path]) -> list[Path]:
    """Checks that the outputs can be made, and returns the shards whose outputs are missing.

    Args:
        attacher: for the job.
        users: number of users of all shards of the job.
        mine: those that this process makes.

    Raises:
        RelandError: a user is listed more than once, or a file that is not ours is in the way.
    """
    attacher.outputs.tell_strays(map(attacher.name, users))
    missing = [shard for shard in mine if not attacher.is_finished(shard, users[shard])]
    if missing and (repeats := find_repeats(list(users), sum(users.values()))):
        if not attacher.job.repeated_users:
            raise RelandError(
                f"{repeats}; keep one row of each user, or allow it with --repeated_users: they are then in "
                "the outputs as often as in the shards"
            )
        _log.warning("%s", repeats)
    attacher.outputs.check_replaceable(map(attacher.name, missing))
    return missing


def check_shards(job: AttachJob, seeds: Seeds) -> dict[Path, int]:
    """The input shards and the users of each, once their schemas fit the seed users.

    Raises:
        RelandError: no shard, a wrong column, or another width than that of the seed users.
    """
    width, users = seeds.vectors.shape[1], {}
    if others := left_out(job.users):
        _log.warning("%s: %d files are not *.parquet and left out: %s ...", job.users, len(others), others[0])
    for shard in list_shards(job.users):
        users[shard], declared = job.read.width_of(shard)
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
    out, users, seeds = (Path(os.path.realpath(path)) for path in (job.out, job.users, job.seeds))
    if out == seeds.parent or out.is_relative_to(users):
        raise RelandError(f"--out={job.out}: the outputs need a folder of their own")


def _manifest(job: AttachJob, seeds: Seeds) -> dict[str, Any]:
    """What decides the outputs, besides the shards."""
    made_from = {"engine": job.engine, "k": job.k, "num_seeds": len(seeds.ids), "seeds": seeds.checksum}
    made_from |= job.read.made_from()
    return made_from if job.engine == "exact" else made_from | {"recall": job.recall}


def _kept(job: AttachJob, keys: np.ndarray, folder: Path) -> tuple[Index[Any], Effort]:
    """The index in the folder of outputs and its effort, built and tuned first where there is none.

    ScaNN draws its own random numbers, and products differ in their last bits from one processor to another,
    so only the same index gives the same answers after a restart, and on all machines of a job.
    """
    index, effort = KEPT_INDEXES[job.engine]
    with locked(
        folder.with_name(f"{folder.name}.lock"),
        on_wait=lambda: _log.info("%s: another process builds the index; waiting for it", folder),
    ):
        if damage := _damage(folder):
            if folder.exists():
                _log.warning("%s: %s; it is built again, and outputs of another index too", folder, damage)
            _build(job, keys, folder)
        return index.load(folder, keys), effort(**json.loads((folder / EFFORT).read_bytes()))


def _damage(folder: Path) -> str:
    """What is wrong with a kept index, "" where nothing is."""
    try:
        stored = dict(json.loads(read_regular(folder / CHECKSUMS)))
        wrong = [name for name, wanted in stored.items() if checksum(folder / name) != wanted]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return f"its {CHECKSUMS} or a file named there cannot be read ({error})"
    return f"{wrong[0]} is not what was written" if wrong else "" if EFFORT in stored else "it is not whole"


def _build(job: AttachJob, keys: np.ndarray, folder: Path) -> None:
    index = KEPT_INDEXES[job.engine][0].build(keys, job.k)
    queries = tuning_sample(job, keys.shape[1])
    exact, _ = ExactIndex(keys).search(queries, job.k)
    effort = index.tune(queries, exact, job.recall)
    with written_aside(
        folder, ours=lambda folder: (folder / EFFORT).exists() or (folder / CHECKSUMS).exists()
    ) as aside:
        aside.mkdir()
        index.save(aside)
        write_json(aside / EFFORT, effort._asdict())
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        write_json(aside / CHECKSUMS, {path.relative_to(aside).as_posix(): checksum(path) for path in files})


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
        _, vectors = next(job.read.batches(shard, width, job.batch), (None, np.zeros((0, width), np.float32)))
        drawn.append(vectors[rng.permutation(len(vectors))[:share]])
    if not sum(map(len, drawn)):
        raise RelandError(f"{job.users}: no users to tune engine {job.engine!r} on")
    return np.concatenate(drawn)


def sweep(attacher: StreamAssigner, shards: Sequence[Path]) -> None:
    """Removes what killed runs left next to the outputs of these shards, now that all are there."""
    for folder in {attacher.outputs.target(attacher.name(shard)).parent for shard in shards}:
        for path in sweep_folder(folder):
            _log.info("%s: left by a run that was killed; removed", path)


def _state(shard: Path) -> tuple[int, ...]:
    """Changes when a file is written to, as far as can be seen without reading it."""
    found = shard.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
