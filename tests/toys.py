"""Small made-up data that several rooms' tests share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from reland_jax.storage import BuiltPool, Inputs, Texts
from reland_jax.strings import as_strings
from reland_jax.types import (
    Assignment,
    IdMap,
    Interactions,
    Ragged,
    Rationale,
    ReasoningPool,
    SeedSet,
    Splits,
)


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Rows of items as a `Ragged`."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.array([item for row in rows for item in row], np.int32)
    return Ragged(indptr, items)


def random_ragged(lengths: Sequence[int], num_items: int, seed: int = 0) -> Ragged:
    """Rows of the given lengths, each of distinct items in 1 .. `num_items`, in random order."""
    rng = np.random.default_rng(seed)
    return ragged([(rng.permutation(num_items)[:length] + 1).tolist() for length in lengths])


def dense_adjacency(train: Ragged, num_items: int) -> np.ndarray:
    """D^-1/2 A D^-1/2 of users, then the padding item, then items; nodes without edges have zero rows."""
    nodes = train.num_rows + num_items + 1
    adjacency = np.zeros((nodes, nodes))
    for user in range(train.num_rows):
        for item in train.row(user).tolist():
            adjacency[user, train.num_rows + item] += 1
            adjacency[train.num_rows + item, user] += 1
    degree = adjacency.sum(1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros(nodes), where=degree > 0)
    return scale[:, None] * adjacency * scale


def planted_splits(num_users: int = 32, num_items: int = 12, length: int = 8) -> Splits:
    """Every user walks round the circle of items, one step at a time: the next item is always certain."""
    cuts = (slice(length), slice(length, -1), slice(-1, None))
    rows = [[(user + step) % num_items + 1 for step in range(length + 2)] for user in range(num_users)]
    parts = (ragged([row[cut] for row in rows]) for cut in cuts)
    return Splits(*parts, num_items, "leave_one_out")


def inputs_of(splits: Splits, seed_users: Sequence[int] = (0, 1)) -> Inputs:
    """What training and report read, for any split: users "u0", "u1", ... and items "i1", "i2", ...

    Every user is given all seed users, whose rationales are random vectors.
    """
    rng, users, seeds = np.random.default_rng(0), splits.num_users, len(seed_users)
    rows = [[*splits.train.row(u), *splits.valid.row(u), *splits.test.row(u)] for u in range(users)]
    whole = ragged(rows)
    ids = IdMap(
        as_strings([f"u{user}" for user in range(users)]),
        as_strings(["", *(f"i{item}" for item in range(1, splits.num_items + 1))]),
    )
    owner = np.repeat(np.arange(users, dtype=np.int32), whole.lengths())
    interactions = Interactions(owner, whole.items, np.arange(len(owner), dtype=float), ids, {}, {})
    chosen = SeedSet(np.array(seed_users, np.int32), np.zeros(seeds, np.int32), np.zeros(seeds, np.int8))
    rationales = [Rationale(f"Likes {user}.", f"Items: {user}.", "", "", "heuristic") for user in seed_users]
    pool = ReasoningPool(chosen, rng.normal(size=(seeds, 4)).astype(np.float32), rationales)
    texts = Texts(
        rng.normal(size=(splits.num_items + 1, 6)).astype(np.float32),
        rng.normal(size=(seeds, 6)).astype(np.float32),
    )
    everyone = np.tile(np.arange(seeds, dtype=np.int32), (users, 1))
    nearest = Assignment(everyone, np.full(everyone.shape, 0.5, np.float32))
    clusters = np.zeros(users, np.int32)
    return Inputs(interactions, splits, clusters, BuiltPool(pool, [], {}), texts, nearest, "inputs")


@contextlib.contextmanager
def quick_programs(folder: Path) -> Iterator[None]:
    """Less compilation for tests that train: it would be nine tenths of what they cost.

    Programs are compiled with few optimisations, and kept in `folder`, so that training the same thing
    again costs no compilation.
    """
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        _configure(
            jax_compilation_cache_dir=str(folder),
            jax_persistent_cache_min_compile_time_secs=0.0,
            jax_disable_most_optimizations=True,
        )
        yield
    finally:
        _configure(**before, jax_disable_most_optimizations=False)


def quick_programs_environment(folder: Path) -> dict[str, str]:
    """The same for a process of its own, as environment variables."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


def _configure(**settings: Any) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX looks at these settings only once, at the first compilation of a process.
    compilation_cache.reset_cache()
