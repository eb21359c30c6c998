"""Users per second, recall and memory of the streaming assignment, beside other libraries, in one run.

    python -m experiments.bench_attach --users=100000 --seeds=7500 --vectors=VECTORS.npz

Users are drawn from a mixture of Gaussians fitted on the behaviour vectors of --vectors (the first array
of two dimensions), so that they are clustered as those are; without it, from planted clusters. Each
library is given the same vectors in memory, the streaming job the same in Parquet shards; the time of
the job includes reading and writing, not building the index. A library that cannot be imported is left
out. For approximate ones the cheapest setting that reaches --recall on the sample is the one timed.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from reland_jax.retrieval import exact_top_k
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.retrieval.scann_index import ScannIndex
from reland_jax.retrieval.stream import Attacher, AttachJob, attach_all
from reland_jax.seeds import kmeans

_USERS = flags.DEFINE_integer("users", 100_000, "U", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 7500, "S", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 64, "D", lower_bound=1)
_VECTORS = flags.DEFINE_string("vectors", None, ".npz of behaviour vectors whose statistics are taken")
_COMPONENTS = flags.DEFINE_integer("components", 200, "components of the mixture", lower_bound=1)
_SHARD = flags.DEFINE_integer("shard", 250_000, "users of a Parquet shard", lower_bound=1)
_SAMPLE = flags.DEFINE_integer("sample", 10_000, "users whose exact neighbours are compared", lower_bound=1)
_TIMED = flags.DEFINE_integer("timed", 100_000, "users each library is timed on, at most", lower_bound=1)
_EXACT_TIMED = flags.DEFINE_integer("exact_timed", 20_000, "the same for exact libraries", lower_bound=1)
_RECALL = flags.DEFINE_float("recall", 0.99, "recall@1 wanted of approximate engines")
_THREADS = flags.DEFINE_integer("threads", 0, "threads of FAISS; 0 takes all cores", lower_bound=0)
_FOLDER = flags.DEFINE_string("folder", None, "where the shards are put and kept; default: a temporary one")
_JSON = flags.DEFINE_string("json", None, "file for the numbers")

Search = Callable[[np.ndarray], np.ndarray]
"""Unit queries ``<float32>[Q, D]`` -> key numbers ``[Q]``."""


class Mixture(NamedTuple):
    """Gaussians with a common rotation and a deviation of their own per direction.

    Attributes:
        weights: ``<float64>[C]``.
        centres: ``<float32>[C, D]``.
        spread: ``<float32>[C, D]``.
    """

    weights: np.ndarray
    centres: np.ndarray
    spread: np.ndarray

    def draw(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """``<float32>[rows, D]``."""
        which = rng.choice(len(self.weights), rows, p=self.weights)
        noise = rng.standard_normal((rows, self.centres.shape[1]), np.float32)
        return self.centres[which] + self.spread[which] * noise


def main(argv: list[str]) -> None:
    """Prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    mixture = fitted(_vectors(), _COMPONENTS.value, _DIM.value)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(_FOLDER.value or temporary)
        rows = [*_streams(folder, mixture), *_libraries(mixture)]
    table = {"backend": jax.default_backend(), "cores": len(os.sched_getaffinity(0)), "rows": rows}
    table |= {"users": _USERS.value, "seeds": _SEEDS.value, "dim": _DIM.value, "recall": _RECALL.value}
    _print(table)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(table, indent=1), encoding="utf-8")


def fitted(vectors: np.ndarray, components: int, width: int) -> Mixture:
    """A mixture with the statistics of vectors ``<float32>[n, d]`` in their leading ``width`` directions.

    Components are the clusters of K-means; where d is smaller, the other directions stay empty.
    """
    middle = vectors.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(vectors - middle, rowvar=False))
    leading = ((vectors - middle) @ axes[:, ::-1][:, :width] + middle @ axes[:, ::-1][:, :width]).astype(
        np.float32
    )
    leading = np.pad(leading, ((0, 0), (0, width - leading.shape[1])))
    count = min(components, len(leading))
    found = kmeans(leading, count, jax.random.key(0), iterations=25, tolerance=1e-3)
    members = np.bincount(found.cluster, minlength=count)
    squares = np.zeros((count, width))
    np.add.at(squares, found.cluster, (leading - found.centres[found.cluster]) ** 2)
    spread = np.sqrt(squares / np.maximum(members, 1)[:, None])
    return Mixture(members / members.sum(), found.centres, spread.astype(np.float32))


def _vectors() -> np.ndarray:
    if _VECTORS.value:
        with np.load(_VECTORS.value) as stored:
            return next(stored[name] for name in stored.files if stored[name].ndim == 2)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(_COMPONENTS.value, _DIM.value))
    rows = 50 * _COMPONENTS.value
    return centres[rng.integers(0, len(centres), rows)] + 0.7 * rng.normal(size=(rows, _DIM.value))


def _streams(folder: Path, mixture: Mixture) -> Iterator[dict[str, Any]]:
    """The streaming job with each engine, in a process of its own so that its peak memory is its own."""
    _write_shards(folder, mixture)
    for engine in ("scann", "exact") if importlib.util.find_spec("scann") else ("exact",):
        shards = folder / ("users" if engine == "scann" else "fewer")
        job = AttachJob(shards, folder / "seeds.parquet", folder / f"out-{engine}", engine, 1, _RECALL.value)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield pool.apply(streamed, (job,))


def streamed(job: AttachJob) -> dict[str, Any]:
    """Runs one job to its end; its row of the table."""
    begin = time.perf_counter()
    attacher = Attacher(job)
    attacher.search(np.ones((1, attacher.seeds.vectors.shape[1]), np.float32))
    ready, used = time.perf_counter(), time.process_time()
    done = attach_all(attacher, lambda progress: None)
    seconds, used = time.perf_counter() - ready, time.process_time() - used
    users = done.assigned if done else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"name": f"stream, {job.engine}", "users": users, "seconds": seconds, "cpu_seconds": used}
    setting = "" if attacher.effort is None else f"leaves {attacher.effort.leaves}, {attacher.effort.reorder}"
    return row | {"ready": ready - begin, "peak_gib": peak, "recall": _recall_of(job), "setting": setting}


def _recall_of(job: AttachJob) -> float:
    """Recall@1 on the sample, from the outputs of the first shard."""
    import pyarrow.parquet as pq

    from reland_jax.retrieval.shards import batches, list_shards, read_seeds

    first, seeds = list_shards(job.users)[0], read_seeds(job.seeds)
    _, vectors = next(batches(first, None, 100_000))
    found = pq.read_table(job.out / first.name)["seed_user_id"].to_numpy()[: len(vectors)]
    index, _ = ExactIndex(seeds.vectors).search(vectors, 1)
    return float((found == seeds.ids.to_numpy()[index[:, 0]]).mean())


def _write_shards(folder: Path, mixture: Mixture) -> None:
    """Seed users have the ids from 0, users those from S, so that none is its own seed user."""
    rng = np.random.default_rng(2)
    _write(folder / "seeds.parquet", 0, _seed_vectors(mixture))
    for number, start in enumerate(range(0, _USERS.value, _SHARD.value)):
        rows = mixture.draw(rng, min(_SHARD.value, _USERS.value - start))
        _write(folder / "users" / f"part-{number:05}.parquet", _SEEDS.value + start, rows)
        if number == 0:
            _write(folder / "fewer" / "part-00000.parquet", _SEEDS.value, rows[: _EXACT_TIMED.value])


def _write(path: Path, start: int, vectors: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"user_id": np.arange(start, start + len(vectors)), "vector": column})
    pq.write_table(table, path, use_dictionary=False, row_group_size=65536)


def _seed_vectors(mixture: Mixture) -> np.ndarray:
    return mixture.draw(np.random.default_rng(1), _SEEDS.value)


def _libraries(mixture: Mixture) -> Iterator[dict[str, Any]]:
    keys = _unit(_seed_vectors(mixture))
    queries = _unit(mixture.draw(np.random.default_rng(3), min(_TIMED.value, _USERS.value)))
    sample = queries[: _SAMPLE.value]
    exact = ExactIndex(keys).search(sample, 1)[0]
    for name, build, most in _contenders(keys, sample, exact):
        begin = time.perf_counter()
        search, setting = build()
        ready = time.perf_counter() - begin
        search(queries[:512])
        timed = queries[:most]
        begin, used = time.perf_counter(), time.process_time()
        found = search(timed)
        seconds, used = time.perf_counter() - begin, time.process_time() - used
        size = min(len(exact), len(timed))
        recall = float((np.asarray(found)[:size].reshape(-1) == exact[:size, 0]).mean())
        row = {"name": name, "users": len(timed), "seconds": seconds, "cpu_seconds": used}
        yield row | {"ready": ready, "peak_gib": None, "recall": recall, "setting": setting}


def _contenders(
    keys: np.ndarray, sample: np.ndarray, exact: np.ndarray
) -> Iterator[tuple[str, Callable[[], tuple[Search, str]], int]]:
    """Name, what builds it, and on how many users it is timed."""
    few, many = _EXACT_TIMED.value, _TIMED.value
    yield "exact JAX, ExactIndex", lambda: (_exact_index(keys), "tiles 512 x 512"), few
    yield "exact JAX, exact_top_k", lambda: (lambda q: exact_top_k(q, keys, 1, 512)[0], "tile 512"), few
    yield "NumPy", lambda: (lambda q: _numpy(q, keys), "tile 256"), few
    if importlib.util.find_spec("faiss"):
        yield "FAISS flat", lambda: _faiss(keys, sample, exact, "Flat"), few
        yield "FAISS IVF", lambda: _faiss(keys, sample, exact, f"IVF{round(len(keys) ** 0.5)},Flat"), many
        yield "FAISS HNSW", lambda: _faiss(keys, sample, exact, "HNSW32,Flat"), many
    if importlib.util.find_spec("scann"):
        yield "ScaNN alone", lambda: _scann(keys, sample, exact), many


def _exact_index(keys: np.ndarray) -> Search:
    index = ExactIndex(keys)
    return lambda queries: index.search(queries, 1)[0]


def _numpy(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    tiles = (queries[row : row + 256] for row in range(0, len(queries), 256))
    return np.concatenate([(tile @ keys.T).argmax(axis=1) for tile in tiles])


def _faiss(keys: np.ndarray, sample: np.ndarray, exact: np.ndarray, kind: str) -> tuple[Search, str]:
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
    name = "nprobe" if kind.startswith("IVF") else "efSearch"
    for effort in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512):
        faiss.ParameterSpace().set_index_parameter(index, name, effort)
        if (search(sample) == exact).mean() >= _RECALL.value:
            break
    return search, f"{name} {effort}"


def _scann(keys: np.ndarray, sample: np.ndarray, exact: np.ndarray) -> tuple[Search, str]:
    """ScaNN's own calls with the effort that the streaming job would choose, and nothing around them."""
    index = ScannIndex.build(keys, 1)
    effort = index.tune(sample, exact, _RECALL.value)
    given = {"leaves_to_search": effort.leaves, "pre_reorder_num_neighbors": effort.reorder}

    def search(queries: np.ndarray) -> np.ndarray:
        searcher = index.searcher
        return searcher.search_batched_parallel(queries, 1, **(given if effort.leaves else {}))[0]

    return search, f"leaves {effort.leaves}, {effort.reorder}"


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _print(table: dict[str, Any]) -> None:
    rows = table["rows"]
    print(f"U={table['users']:,} S={table['seeds']:,} D={table['dim']} on {table['cores']} cores")
    titles = f"{'users/s':>10}{'cpu us/user':>12}{'ratio':>7}{'recall@1':>9}{'ready s':>9}{'GiB':>6}"
    print(f"{'':<24}{titles}  setting")
    for row in rows:
        rate, used = row["users"] / row["seconds"], 1e6 * row["cpu_seconds"] / max(row["users"], 1)
        ratio = rate / (rows[0]["users"] / rows[0]["seconds"])
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        numbers = (
            f"{rate:>10,.0f}{used:>12.1f}{ratio:>7.2f}{row['recall']:>9.4f}{row['ready']:>9.1f}{peak:>6}"
        )
        print(f"{row['name']:<24}{numbers}  {row['setting']}")


if __name__ == "__main__":
    app.run(main)
