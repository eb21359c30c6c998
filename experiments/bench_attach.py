"""Users per second, recall and memory of the streaming assignment, compared with other libraries.

    python -m experiments.bench_attach --users=200000 --seeds=75000 --vectors=VECTORS.npy

Users are drawn from a mixture of Gaussians fitted on the behaviour vectors of --vectors (the first array
of two dimensions), so that they are clustered as those are; without it, from planted clusters. The
streaming job takes all of them from Parquet shards with engine "ivf", the first --timed of them with
"scann" and the first --exact_timed with "exact"; its time includes reading and writing, not building the
index. The libraries are given the same first users in memory, as unit vectors, and the best of --repeats
counts. A library that cannot be imported is left out.

Approximate ones are tuned on one sample to find --recall of the exact neighbours with two standard errors to
spare; the recall in the table is that of the first --checked users.
"""

from __future__ import annotations

import bisect
import importlib.util
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.scaling.mixture import Mixture, mixture_like
from reland_jax.files import write_json
from reland_jax.retrieval import exact_top_k
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.scale import (
    AttachJob,
    IvfIndex,
    ScannIndex,
    StreamAssigner,
    attach_all,
    batches,
    list_shards,
    tuning_sample,
    wanted_share,
)
from reland_jax.types import RelandError

_USERS = flags.DEFINE_integer("users", 100_000, "U", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 7500, "S", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 64, "D", lower_bound=1)
_VECTORS = define_path("vectors", None, "File of behaviour vectors whose statistics are taken.")
_COMPONENTS = flags.DEFINE_integer("components", 200, "components of the mixture", lower_bound=1)
_SHARD = flags.DEFINE_integer("shard", 250_000, "users of a Parquet shard", lower_bound=1)
_SAMPLE = flags.DEFINE_integer("sample", 10_000, "users that tune approximate engines", lower_bound=1)
_CHECKED = flags.DEFINE_integer("checked", 100_000, "users whose recall is measured", lower_bound=1)
_TIMED = flags.DEFINE_integer("timed", 100_000, "most users for timing each library", lower_bound=1)
_EXACT_TIMED = flags.DEFINE_integer("exact_timed", 20_000, "the same for exact libraries", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "repetitions of each timing", lower_bound=1)
_RECALL = flags.DEFINE_float("recall", 0.99, "recall@1 that approximate engines are tuned to")
_THREADS = flags.DEFINE_integer("threads", 0, "threads of FAISS; 0 takes all cores", lower_bound=0)
_FOLDER = define_path("folder", None, "folder for shards and outputs; by default they are not kept")
_JSON = define_path("json", None, "JSON file of the results")

MARK = ".made_by_bench_attach"
"""File that tells a folder of this benchmark."""

Search = Callable[[np.ndarray], np.ndarray]
"""Unit queries ``<float32>[Q, D]`` -> key numbers ``[Q]`` or ``[Q, 1]``."""


class Data(NamedTuple):
    """The data that every contender gets.

    Attributes:
        folder: of the Parquet shards.
        keys: ``<float32>[S, D]``, seed users.
        queries: ``<float32>[n, D]``, the first users of the shards.
        exact: ``<int32>[m]``, the nearest seed users of the first m of them, by `ExactIndex`.
        sample: ``<float32>[t, D]``, the users that the streaming job is tuned on.
        sample_exact: ``<int32>[t, 1]``, their nearest seed users.
    """

    folder: Path
    keys: np.ndarray
    queries: np.ndarray
    exact: np.ndarray
    sample: np.ndarray
    sample_exact: np.ndarray

    def recall(self, found: np.ndarray) -> float:
        """Share of the first users whose nearest seed user is the one found."""
        size = min(len(found), len(self.exact))
        return float((found.reshape(-1)[:size] == self.exact[:size]).mean())


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as temporary:
        load, data = [os.getloadavg()[0]], _data(Path(_FOLDER.value or temporary))
        rows = [*_streams(data), *_libraries(data)]
    table = {"backend": jax.default_backend(), "cores": len(os.sched_getaffinity(0)), "rows": rows}
    table |= {"load": [*load, os.getloadavg()[0]], "checked": len(data.exact), "sample": len(data.sample)}
    table |= {"users": _USERS.value, "seeds": _SEEDS.value, "dim": _DIM.value, "recall": _RECALL.value}
    _print(table)
    if _JSON.value:
        write_json(Path(_JSON.value), table)


def claim(folder: Path) -> None:
    """Marks an empty or new folder as one of this benchmark, which replaces what is in it.

    Raises:
        RelandError: the folder holds something and has no such mark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).exists() and any(folder.iterdir()):
        raise RelandError(f"{folder}: has files that are not of this benchmark; choose a new folder")
    (folder / MARK).touch()


def _data(folder: Path) -> Data:
    claim(folder)
    mixture = mixture_like(_VECTORS.value, _COMPONENTS.value, _DIM.value)
    keys = mixture.draw(np.random.default_rng(1), _SEEDS.value)
    _write_shards(folder, mixture, keys)
    queries = _first(folder / "users", max(_CHECKED.value, _TIMED.value, _EXACT_TIMED.value))
    index, sample = ExactIndex(keys), tuning_sample(_job(folder, "ivf"), _DIM.value)
    exact = index.search(queries[: _CHECKED.value], 1)[0][:, 0]
    return Data(folder, keys, queries, exact, sample, index.search(sample, 1)[0])


def _first(folder: Path, count: int) -> np.ndarray:
    """The first users ``<float32>[n, D]`` of the shards, ``count`` of them where there are so many."""
    parts = (vectors for shard in list_shards(folder) for _, vectors in batches(shard, None, 65536))
    return np.concatenate(_until(parts, count))[:count]


def _until(parts: Iterable[np.ndarray], rows: int) -> list[np.ndarray]:
    """As many of the parts as have so many rows together."""
    taken: list[np.ndarray] = []
    for part in parts:
        taken.append(part)
        if sum(map(len, taken)) >= rows:
            break
    return taken


_FOLDERS = {"ivf": "users", "scann": "timed", "exact": "few"}
"""The users that the streaming job is given with each engine."""


def _job(folder: Path, engine: str) -> AttachJob:
    users, seeds, out = folder / _FOLDERS[engine], folder / "seeds.parquet", folder / f"out-{engine}"
    return AttachJob(users, seeds, out, engine, 1, _RECALL.value, sample=_SAMPLE.value)


def _streams(data: Data) -> Iterator[dict[str, Any]]:
    """The streaming job with each engine, in a process of its own so that its peak memory is its own."""
    for engine in _FOLDERS:
        if engine == "scann" and not importlib.util.find_spec("scann"):
            continue
        job = _job(data.folder, engine)
        shutil.rmtree(job.out, ignore_errors=True)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(streamed, (job,))
        yield row | {"recall": data.recall(_assigned(job, len(data.exact)))}


def streamed(job: AttachJob) -> dict[str, Any]:
    """Runs one job to its end; its row of the table, but for the recall."""
    begin = time.perf_counter()
    attacher = StreamAssigner(job)
    # A whole batch compiles what all of them need.
    attacher.search(np.ones((job.batch, attacher.seeds.vectors.shape[1]), np.float32))
    ready, used = time.perf_counter(), time.process_time()
    done = attach_all(attacher, lambda progress: None)
    seconds, used = time.perf_counter() - ready, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"name": f"streaming job, {job.engine}", "users": done.assigned if done else 0, "seconds": seconds}
    row |= {"cpu_seconds": used, "ready": ready - begin, "peak_gib": peak}
    return row | {"setting": str(attacher.effort or "")}


def _assigned(job: AttachJob, count: int) -> np.ndarray:
    """Seed users of the first users; their ids are their rows, as `_write_shards` numbers them."""
    import pyarrow.parquet as pq

    shards = (pq.read_table(shard)["seed_user_id"].to_numpy() for shard in list_shards(job.out))
    return np.concatenate(_until(shards, count))


def _write_shards(folder: Path, mixture: Mixture, keys: np.ndarray) -> None:
    """Seed users have the ids from 0, users those from S, so that none is its own seed user."""
    rng = np.random.default_rng(2)
    shutil.rmtree(folder / "users", ignore_errors=True)
    _write(folder / "seeds.parquet", 0, keys)
    for number, start in enumerate(range(0, _USERS.value, _SHARD.value)):
        rows = mixture.draw(rng, min(_SHARD.value, _USERS.value - start))
        _write(folder / "users" / f"part-{number:05}.parquet", len(keys) + start, rows)
        if number == 0:
            _write(folder / "timed" / "part-00000.parquet", len(keys), rows[: _TIMED.value])
            _write(folder / "few" / "part-00000.parquet", len(keys), rows[: _EXACT_TIMED.value])


def _write(path: Path, start: int, vectors: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"user_id": np.arange(start, start + len(vectors)), "vector": column})
    pq.write_table(table, path, use_dictionary=False, row_group_size=65536)


def _libraries(data: Data) -> Iterator[dict[str, Any]]:
    keys, queries = _unit(data.keys), _unit(data.queries)
    for name, build, most in _contenders(keys, data):
        begin = time.perf_counter()
        search, setting = build()
        ready = time.perf_counter() - begin
        timed = queries[:most]
        search(timed)  # compiles, where anything is compiled
        runs = [_timed(search, timed) for _ in range(_REPEATS.value)]
        seconds, used = min(run[0] for run in runs), min(run[1] for run in runs)
        row = {"name": name, "users": len(timed), "seconds": seconds, "cpu_seconds": used, "ready": ready}
        yield row | {"peak_gib": None, "setting": setting, "recall": data.recall(runs[0][2])}


def _timed(search: Search, queries: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Seconds on the clock, seconds of processor time, and what was found."""
    begin, used = time.perf_counter(), time.process_time()
    found = search(queries)
    return time.perf_counter() - begin, time.process_time() - used, np.asarray(found)


def _contenders(keys: np.ndarray, data: Data) -> Iterator[tuple[str, Callable[[], tuple[Search, str]], int]]:
    """Name, what builds it, and on how many users it is timed."""
    few, many = _EXACT_TIMED.value, _TIMED.value
    yield "IvfIndex", lambda: _ivf(keys, data), many
    yield "exact JAX, ExactIndex", lambda: (_exact_index(keys), "tiles 512 x 512"), few
    yield "exact JAX, exact_top_k", lambda: (lambda q: exact_top_k(q, keys, 1, 512)[0], "tile 512"), few
    yield "NumPy", lambda: (lambda q: _numpy(q, keys), "tile 256"), few
    if importlib.util.find_spec("faiss"):
        yield "FAISS flat", lambda: _faiss(keys, data, "Flat"), few
        yield "FAISS IVF", lambda: _faiss(keys, data, f"IVF{round(len(keys) ** 0.5)},Flat"), many
        yield "FAISS HNSW", lambda: _faiss(keys, data, "HNSW32,Flat"), many
    if importlib.util.find_spec("scann"):
        yield "ScaNN", lambda: _scann(keys, data), many


def _ivf(keys: np.ndarray, data: Data) -> tuple[Search, str]:
    index = IvfIndex.build(keys, 1)
    effort = index.tune(data.sample, data.sample_exact, _RECALL.value)
    return lambda queries: index.search(queries, 1, effort)[0], str(effort)


def _exact_index(keys: np.ndarray) -> Search:
    index = ExactIndex(keys)
    return lambda queries: index.search(queries, 1)[0]


def _numpy(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    tiles = (queries[row : row + 256] for row in range(0, len(queries), 256))
    return np.concatenate([(tile @ keys.T).argmax(axis=1) for tile in tiles])


def _faiss(keys: np.ndarray, data: Data, kind: str) -> tuple[Search, str]:
    """An index for inner products, with the least nprobe or efSearch that reaches the recall."""
    import faiss

    faiss.omp_set_num_threads(_THREADS.value or len(os.sched_getaffinity(0)))
    index = faiss.index_factory(keys.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(keys)
    index.add(keys)

    def search(queries: np.ndarray) -> np.ndarray:
        return index.search(queries, 1)[1]

    if kind == "Flat":
        return search, ""
    name, most = ("nprobe", index.nlist) if kind.startswith("IVF") else ("efSearch", 4096)

    def found(effort: int) -> float:
        faiss.ParameterSpace().set_index_parameter(index, name, effort)
        return float((search(_unit(data.sample)) == data.sample_exact).mean())

    wanted = wanted_share(_RECALL.value, len(data.sample))
    least = bisect.bisect_left(range(1, most), wanted, key=found) + 1
    faiss.ParameterSpace().set_index_parameter(index, name, least)
    return search, f"{name} {least}"


def _scann(keys: np.ndarray, data: Data) -> tuple[Search, str]:
    """ScaNN's own calls with the effort that the streaming job would choose, and nothing around them."""
    index = ScannIndex.build(keys, 1)
    effort = index.tune(data.sample, data.sample_exact, _RECALL.value)
    given = {"leaves_to_search": effort.leaves, "pre_reorder_num_neighbors": effort.reorder}

    def search(queries: np.ndarray) -> np.ndarray:
        return index.searcher.search_batched_parallel(queries, 1, **(given if effort.leaves else {}))[0]

    return search, str(effort)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _print(table: dict[str, Any]) -> None:
    rows = table["rows"]
    print(f"U={table['users']:,} S={table['seeds']:,} D={table['dim']} on {table['cores']} cores")
    titles = f"{'users':>11}{'users/s':>10}{'cpu us/user':>12}{'ratio':>7}{'recall@1':>9}"
    print(f"{'':<24}{titles}{'ready s':>9}{'GiB':>6}  setting")
    for row in rows:
        rate, used = row["users"] / row["seconds"], _microseconds(row)
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        numbers = f"{row['users']:>11,}{rate:>10,.0f}{used:>12.1f}{used / _microseconds(rows[0]):>7.2f}"
        rest = f"{row['recall']:>9.4f}{row['ready']:>9.1f}{peak:>6}  {row['setting']}"
        print(f"{row['name']:<24}{numbers}{rest}")


def _microseconds(row: dict[str, Any]) -> float:
    """Processor time per user, of all cores together."""
    return 1e6 * row["cpu_seconds"] / max(row["users"], 1)


if __name__ == "__main__":
    command_line.run(main)
