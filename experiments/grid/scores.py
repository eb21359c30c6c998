"""The cells of a grid, trained: what its tables need of each.

A *cell* is a variant of a backbone on a data set, a *group* all cells of one backbone on one data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from reland_jax.config import Config
from reland_jax.eval import per_user_metrics
from reland_jax.pool import PoolSummary, pool_provenance, pool_summary
from reland_jax.records import stored
from reland_jax.storage import Inputs, Metrics, Trained
from reland_jax.types import COMPARED


@dataclasses.dataclass(frozen=True)
class CellSummary:
    """What is kept of a `TrainingSummary`."""

    valid: Metrics
    test: Metrics
    epochs: int
    best_epoch: int
    seconds_per_epoch: float


class Scores(NamedTuple):
    """The scores of one trained recommender that the tables need.

    Attributes:
        summary: its figures.
        users: ``<int32>[n]``, the users that have a test target, sorted.
        test: metric of `COMPARED` -> ``<float64>[n]`` in [0, 1], of each of these users.
    """

    summary: CellSummary
    users: np.ndarray
    test: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class GroupPool(PoolSummary):
    """The pool of a group.

    Attributes:
        provenance: where it comes from; see `pool_provenance`.
        remarks: answers that a person should look at.
    """

    provenance: Mapping[str, object] = dataclasses.field(metadata=stored(""))
    remarks: int

    @property
    def provider(self) -> str:
        """Who wrote it."""
        return str(self.provenance["provider"])


class Group(NamedTuple):
    """All cells of one backbone on one data set; `runs` and `failed` fill up as they are trained.

    Attributes:
        config: settings of the backbone, with the variants and training seeds of the grid.
        protocol: of the split.
        activity: ``<int64>[U]``, number of training interactions of every user.
        pool: what the reasoning pool holds and where it comes from.
        runs: variant -> training seed -> scores.
        failed: variant -> training seed -> why there are none.
    """

    config: Config
    protocol: str
    activity: np.ndarray
    pool: GroupPool
    runs: dict[str, dict[int, Scores]]
    failed: dict[str, dict[int, str]]


def new_group(config: Config, inputs: Inputs) -> Group:
    """A group in which nothing is trained yet."""
    pool = GroupPool(
        **vars(pool_summary(inputs.built.pool)),
        provenance=pool_provenance(config.pool, config.data),
        remarks=len(inputs.built.problems),
    )
    runs: dict[str, dict[int, Scores]] = {variant: {} for variant in config.variants}
    failed: dict[str, dict[int, str]] = {variant: {} for variant in config.variants}
    return Group(config, inputs.splits.protocol, inputs.splits.train.lengths(), pool, runs, failed)


def score(trained: Trained) -> Scores:
    """The scores of a trained recommender, without its parameters and history.

    Raises:
        RelandError: a score was not a number.
    """
    ranks, found = trained.ranks["test"], trained.summary
    per_user = per_user_metrics(ranks, (10,))
    summary = CellSummary(found.valid, found.test, found.epochs, found.best_epoch, found.seconds_per_epoch)
    return Scores(summary, np.unique(ranks.user), {name: per_user[name] for name in COMPARED})
