"""A made-up version of a pool store, and its assignment by NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from reland_jax.pool_store.version_files import Content, Origin, Population
from reland_jax.types import Assignment, Rationale, ReasoningPool, SeedSet

SETTINGS: dict[str, Any] = {
    "retrieval": {"engine": "exact", "neighbours": 1, "cold_mismatch": 0.1, "tile": 16},
    "protocol": "leave_one_out",
    "provenance": {"provider": "batch", "prompt_version": "1", "data": "toy"},
}
CHANGE = {"who": "ann", "why": "a test", "action": "build", "arguments": {}}


def brute_force(behaviour: np.ndarray, seeds: np.ndarray, k: int) -> Assignment:
    """The k nearest seed users of every user by cosine in float64, a seed user first for itself."""
    unit = behaviour / np.linalg.norm(behaviour, axis=1, keepdims=True)
    cosine = unit.astype(np.float64) @ unit[seeds].T.astype(np.float64)
    cosine[seeds, np.arange(len(seeds))] = 2.0
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    found = np.minimum(np.take_along_axis(cosine, order, axis=1), 1.0)
    return Assignment(order.astype(np.int32), found.astype(np.float32))


def rationale(number: int, **changes: Any) -> Rationale:
    """A rationale that names its number, written on day `number` of 2026, from a prompt of its own."""
    day = f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}T00:00:00+00:00"
    texts = (f"likes thing{number}", f"recommend thing{number}; more", f"Step 1: likes thing{number}")
    return Rationale(*texts, f"{number:064x}", "llm", 100 + number, 10, day)._replace(**changes)


def content(users: int = 12, seeds: int = 4, k: int = 1, seed: int = 0) -> Content:
    """Users "user-0", "user-1", ...; some of them seed users."""
    rng = np.random.default_rng(seed)
    behaviour = rng.normal(size=(users, 3)).astype(np.float32)
    chosen = rng.permutation(users)[:seeds].astype(np.int32)
    population = Population(
        np.asarray([f"user-{row}" for row in range(users)]),
        behaviour,
        np.arange(5, 5 + users, dtype=np.int32),
        np.full(users, 2, np.int32),
        rng.integers(2**63, size=users).astype(np.uint64),
        np.stack([np.arange(users) % 3, np.arange(users) % 2], axis=1).astype(np.int32),
    )
    picked = SeedSet(chosen, np.arange(seeds, dtype=np.int32), (np.arange(seeds) % 2).astype(np.int8))
    pool = ReasoningPool(picked, behaviour[chosen], [rationale(row) for row in range(seeds)])
    origin = Origin(population.seen[chosen], population.history[chosen])
    settings = SETTINGS | {"retrieval": SETTINGS["retrieval"] | {"neighbours": k}}
    return Content(population, pool, origin, brute_force(behaviour, chosen, k), settings)


def check_valid(found: Content) -> None:
    """What every version must be: parts that fit, distinct seed users, everybody assigned."""
    users, seeds = len(found.population.user_ids), len(found.pool.rationales)
    assert seeds > 0
    assert {len(array) for array in found.population} == {users}
    assert {len(array) for array in (*found.pool.seeds, found.pool.behaviour, *found.origin)} == {seeds}
    assert len(set(found.pool.seeds.user.tolist())) == seeds
    assert found.pool.seeds.user.min() >= 0 and found.pool.seeds.user.max() < users
    np.testing.assert_array_equal(found.pool.behaviour, found.population.behaviour[found.pool.seeds.user])
    seed = found.assignment.seed
    assert seed.shape == found.assignment.cosine.shape and len(seed) == users
    assert seed.min() >= 0 and seed.max() < seeds
    np.testing.assert_array_equal(seed[found.pool.seeds.user, 0], np.arange(seeds))


def same(a: Content, b: Content) -> bool:
    """Whether two versions hold the same."""
    arrays = [(*x.population, *x.pool.seeds, x.pool.behaviour, *x.origin, *x.assignment) for x in (a, b)]
    equal = all(np.array_equal(x, y) for x, y in zip(*arrays, strict=True))
    return equal and list(a.pool.rationales) == list(b.pool.rationales) and a.settings == b.settings
