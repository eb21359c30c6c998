"""The rows and the sizes that all libraries of the benchmark are given. NumPy alone is needed."""

from __future__ import annotations

import argparse
import json
import resource
from typing import Any, NamedTuple

import numpy as np

WIDTH, HIDDEN, CROSS = 16, (400, 400, 400), 3
LEARNING_RATE = 1e-3
CANDIDATES, WARM_UP = 200, 20


class Rows(NamedTuple):
    """A log of categorical features.

    Attributes:
        code: ``<int64>[n, F]``, from 0 on.
        label: ``<float32>[n]``.
        sizes: number of values of each feature.
    """

    code: np.ndarray
    label: np.ndarray
    sizes: tuple[int, ...]


def make_rows(rows: int, fields: int, values: int, seed: int = 0) -> Rows:
    """Rows whose features have between ten and `values` values, most of them rarely seen.

    Args:
        rows: n.
        fields: F.
        values: values of the largest feature.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    sizes = tuple(int(each) for each in np.geomspace(10, values, fields))
    code = np.stack([(size * rng.random(rows) ** 2).astype(np.int64) for size in sizes], 1)
    logit = sum(np.sin(code[:, at] * (at + 1.0)) for at in range(fields)) / np.sqrt(fields)
    label = (rng.random(rows) < 1 / (1 + np.exp(-2 * logit))).astype(np.float32)
    return Rows(code, label, sizes)


def arguments(description: str) -> argparse.ArgumentParser:
    """What the process of every library is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", type=int, default=200_000, help="training rows")
    parser.add_argument("--fields", type=int, default=26, help="categorical features")
    parser.add_argument("--values", type=int, default=100_000, help="values of the largest feature")
    parser.add_argument("--batch", type=int, default=4096, help="rows of a step")
    parser.add_argument("--epochs", type=int, default=3, help="epochs; the first is not counted")
    parser.add_argument("--requests", type=int, default=1000, help="requests of 200 candidates")
    return parser


def told(record: dict[str, Any]) -> None:
    """Prints the record of a process, with its largest memory, as its last line."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(record | {"peak_bytes": peak}), flush=True)


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {"p50": float(np.quantile(seconds, 0.5) * 1e3), "p99": float(np.quantile(seconds, 0.99) * 1e3)}
