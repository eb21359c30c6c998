"""Shuffled batches of fixed shape: which rows a step has is a function of the seed and the step alone."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from reland_jax.types import RelandError


class Rows(NamedTuple):
    """The rows of one step of one process.

    Attributes:
        rows: ``<int64>[B]``, rows of the log.
        weight: ``<float32>[B]``, 0 for a row that only fills the last batch of an epoch.
    """

    rows: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An endless sequence of batches over some rows, each epoch in an order of its own.

    Nothing is kept between steps, so a training that goes on at step s sees what it would have seen.

    Attributes:
        rows: ``<int64>[n]``, rows of the log.
        size: rows of a step over all processes; the shape of every step, also of the last of an epoch.
        seed: of the orders; None for the order of `rows`, as in an evaluation.
        process: which of the processes this is; it gets its part of every batch.
        processes: number of processes; it divides `size`.
    """

    rows: np.ndarray
    size: int
    seed: int | None = 0
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Checks the sizes."""
        if not len(self.rows):
            raise RelandError("there are no rows to make batches of")
        if self.size < 1 or self.processes < 1 or self.size % self.processes:
            raise RelandError(
                f"a batch of {self.size} rows cannot be shared by {self.processes} processes; take a multiple"
            )
        if not 0 <= self.process < self.processes:
            raise RelandError(f"process {self.process} is not one of {self.processes}")

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row was there once."""
        return -(-len(self.rows) // self.size)

    def at(self, step: int) -> Rows:
        """The rows of a step, from 0 on.

        Raises:
            RelandError: the step is negative.
        """
        if step < 0:
            raise RelandError(f"step {step} is negative")
        epoch, place = divmod(step, self.steps_per_epoch)
        share = self.size // self.processes
        start = place * self.size + self.process * share
        where = np.arange(start, start + share)
        there = where < len(self.rows)
        order = np.where(there, where, 0)
        if self.seed is not None:
            order = _order(len(self.rows), self.seed, epoch)[order]
        return Rows(self.rows[order], there.astype(np.float32))


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, ``<int64>[count]``."""
    return np.random.default_rng([seed, epoch]).permutation(count)
