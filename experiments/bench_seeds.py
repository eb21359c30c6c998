"""Seconds of K-means, seed sampling and assignment on generated clustered vectors, and ScaNN's recall.

    python -m experiments.bench_seeds --users=22363 --clusters=1118 --seeds=2236 --dim=64

Needs no data. Each step runs twice: "first" includes compilation, "again" does not, and their
difference is shown as "compile" for the steps that compile. The defaults have the sizes of Amazon
Beauty; with them it takes about 8 seconds on 2 idle CPU cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.harness import command_line
from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import assign, exact_top_k, recall_at_k, scann_top_k
from reland_jax.seeds import kmeans, sample_seeds
from reland_jax.types import RelandError

_USERS = flags.DEFINE_integer("users", 22363, "U", lower_bound=1)
_CLUSTERS = flags.DEFINE_integer("clusters", 1118, "K of K-means", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 64, "D", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 2236, "S", lower_bound=1)
_PLANTED = flags.DEFINE_integer("planted", 200, "clusters planted in the generated vectors", lower_bound=1)
_SPREAD = flags.DEFINE_float("spread", 0.7, "deviation within a planted cluster; the centres have 1")
_SCANN_KEYS = flags.DEFINE_integer("scann_keys", 8000, "keys of the ScaNN measurement; 0 leaves it out")
_NEIGHBOURS = flags.DEFINE_integer("neighbours", 10, "k of the ScaNN measurement", lower_bound=1)


def main() -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(_PLANTED.value, _DIM.value))
    vectors = _clustered(rng, centres, _USERS.value)
    print(f"U={_USERS.value} K={_CLUSTERS.value} D={_DIM.value} S={_SEEDS.value} on {jax.default_backend()}")
    print(f"{'step':<22}{'first s':>10}{'again s':>10}{'compile s':>11}  notes")
    _bench_seeds(vectors, rng.integers(3, 50, len(vectors)))
    if _SCANN_KEYS.value:
        _bench_scann(vectors, _clustered(rng, centres, _SCANN_KEYS.value))


def _clustered(rng: np.random.Generator, centres: np.ndarray, rows: int) -> np.ndarray:
    """``<float32>[rows, D]`` around the given centres ``[C, D]``."""
    noise = _SPREAD.value * rng.normal(size=(rows, centres.shape[1]))
    return (centres[rng.integers(0, len(centres), rows)] + noise).astype(np.float32)


def _bench_seeds(vectors: np.ndarray, activity: np.ndarray) -> None:
    def start() -> Any:
        return kmeans(vectors, _CLUSTERS.value, jax.random.key(0), iterations=0, tolerance=1e-4)

    def cluster() -> Any:
        return kmeans(vectors, _CLUSTERS.value, jax.random.key(0), iterations=50, tolerance=1e-4)

    # The number of iterations is not part of what is compiled, so only the first call compiles.
    _row("k-means++ start", _timed(start)[1], compiles=True)
    found, seconds = _timed(cluster)
    _row("K-means, 50 at most", seconds, note=f"{found.iterations} iterations, {found.inertia:.5g}")

    def sample() -> Any:
        return sample_seeds(found.cluster, found.distance, activity, _SEEDS.value, rounds=2, seed=0)

    seeds, seconds = _timed(sample)
    _row("sampling", seconds, note=f"{int(seeds.how.sum())} by importance")
    matched, seconds = _timed(lambda: assign(vectors, seeds.user, RetrievalConfig()))
    note = f"mean cosine {matched.cosine.mean():.3f}"
    _row("assignment, k=1", seconds, note=note, compiles=True)


def _bench_scann(vectors: np.ndarray, keys: np.ndarray) -> None:
    k = _NEIGHBOURS.value
    exact, seconds = _timed(lambda: exact_top_k(vectors, keys, k))
    _row(f"exact, {len(keys)} keys", seconds, note=f"k={k}", compiles=True)
    try:
        found, seconds = _timed(lambda: scann_top_k(vectors, keys, k))
    except RelandError as error:
        print(f"ScaNN left out: {error}")
        return
    first = recall_at_k(found[0][:, :1], exact[0][:, :1])
    note = f"k={k}, recall {recall_at_k(found[0], exact[0]):.4f}, of the nearest {first:.4f}"
    _row(f"ScaNN, {len(keys)} keys", seconds, note=note + ", index built each time")


def _timed(run: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """The result and the seconds of a first and a second call."""
    begin = time.perf_counter()
    run()
    between = time.perf_counter()
    result = run()
    return result, (between - begin, time.perf_counter() - between)


def _row(name: str, seconds: tuple[float, float], *, note: str = "", compiles: bool = False) -> None:
    compiling = f"{seconds[0] - seconds[1]:.3f}" if compiles else "-"
    print(f"{name:<22}{seconds[0]:>10.3f}{seconds[1]:>10.3f}{compiling:>11}  {note}", flush=True)


if __name__ == "__main__":
    command_line.run(main)
