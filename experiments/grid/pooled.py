"""One question, one test: do the words help, over all backbones of a data set?

A test per cell asks a question per backbone, each with little power. Here a user's value is the mean, over
the backbones that evaluate the user, of the difference of two variants; each variant is averaged over the
training seeds that both have. A single paired t test over users then answers for all backbones at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from experiments.grid.scores import Group
from reland_jax.eval.significance import Comparison, holm, paired_comparison
from reland_jax.presets import row_name
from reland_jax.types import COMPARED
from reland_jax.variants import PAIRS, RELAND, Pair

WORDS = tuple(pair for pair in PAIRS if pair.ours == RELAND.name)
"""The comparisons that say what rationales are worth."""


@dataclasses.dataclass(frozen=True)
class Pooled(Comparison):
    """Two variants compared over all backbones of a data set.

    Attributes:
        backbones: those that have both variants.
        seeds: per backbone, how many training seeds both have.
        users: that at least one of these backbones evaluates.
        p_holm: p-value after Holm's correction over the pooled tests of the data set.
    """

    backbones: Sequence[str]
    seeds: Sequence[int]
    users: int
    p_holm: float


PooledTests = Mapping[str, Mapping[str, Mapping[str, Pooled]]]
"""Data set -> name of a pair -> metric -> test."""


def pooled_tests(groups: Iterable[Group]) -> PooledTests:
    """The pooled tests of every data set, without those for which no backbone has both variants.

    Args:
        groups: of any number of data sets.
    """
    by_dataset: dict[str, list[Group]] = {}
    for group in groups:
        by_dataset.setdefault(os.path.basename(group.config.data.name.rstrip("/")), []).append(group)
    return {name: found for name, some in by_dataset.items() if (found := _of_dataset(some))}


def _of_dataset(groups: Sequence[Group]) -> dict[str, dict[str, Pooled]]:
    sides = {(pair, metric): _sides(groups, pair, metric) for pair in WORDS for metric in COMPARED}
    known = {key: each for key, each in sides.items() if each is not None}
    compared = {key: paired_comparison(ours, base) for key, (ours, base) in known.items()}
    adjusted = holm([one.p_value for one in compared.values()]).tolist()
    found: dict[str, dict[str, Pooled]] = {}
    for ((pair, metric), one), p in zip(compared.items(), adjusted, strict=True):
        having = [(row_name(group.config), seeds) for group in groups if (seeds := _seeds(group, pair))]
        backbones, seeds = [name for name, _ in having], [len(each) for _, each in having]
        users = len(known[pair, metric][0])
        found.setdefault(pair.name, {})[metric] = Pooled(
            **vars(one), backbones=backbones, seeds=seeds, users=users, p_holm=p
        )
    return found


def _sides(groups: Sequence[Group], pair: Pair, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Both variants per user, over backbones and seeds, ``<float64>[n]``; None without two users."""
    size = max((len(group.activity) for group in groups), default=0)
    total, count = np.zeros((2, size)), np.zeros(size)
    for group in groups:
        seeds = _seeds(group, pair)
        for side, variant in enumerate(pair):
            for seed in seeds:
                scores = group.runs[variant][seed]
                total[side, scores.users] += scores.test[metric] / len(seeds)
        if seeds:
            count[group.runs[pair.ours][seeds[0]].users] += 1
    counted = count > 0
    if counted.sum() < 2 or not np.isfinite(total).all():
        return None
    ours, base = total[:, counted] / count[counted]
    return ours, base


def _seeds(group: Group, pair: Pair) -> list[int]:
    """The training seeds that both variants have."""
    ours, base = (group.runs.get(name, {}) for name in pair)
    return sorted(ours.keys() & base.keys())
