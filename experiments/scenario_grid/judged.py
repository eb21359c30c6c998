"""What the cells of a grid are worth: per scenario, in the mean of scenarios, and by users who cross them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.ranking.arms import ArmRun
from experiments.ranking.logs import Log
from experiments.scenario_grid.cells import BACKBONE, Cell
from experiments.scenario_grid.search import Found
from reland_jax.eval.significance import Comparison, Corrected, corrected
from reland_jax.events import bootstrap, metrics

ALL, CROSSING, STAYING = "all", "users of several scenarios", "users of one scenario"
TOLD, UNTOLD = "users with knowledge", "users without"
OF_USERS = (ALL, CROSSING, STAYING, TOLD, UNTOLD)
"""Segments that are no scenarios."""
KNOWLEDGE = "knowledge"
_FEWEST = 20
"""Rows of each class that an interval needs."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """One segment of the test rows.

    Attributes:
        rows: impressions.
        users: users.
        positives: rows with the label.
        auc: mean over the training seeds; None where one class is missing.
        logloss: the same, in nats.
    """

    rows: int
    users: int
    positives: int
    auc: float | None
    logloss: float | None


@dataclasses.dataclass(frozen=True)
class CellResults:
    """One cell.

    Attributes:
        backbone: its name.
        control: its name.
        parameters: numbers that are learned, in the table and elsewhere.
        meta_bytes: memory of the meta layers in a step, as predicted.
        seeds: of every training: seed, best epoch, validation, rows per second, seconds.
        segments: by name.
        macro_auc: mean over scenarios.
        macro_logloss: mean over scenarios.
        auc_deviation: standard deviation of the AUC of all rows over the seeds; None of one seed.
        rate: learning rate.
        meta_rate: that of the meta layers, as a share of it; None without.
        trials: what the search of the last rate came to; empty without a search.
    """

    backbone: str
    control: str
    parameters: Mapping[str, int]
    meta_bytes: int
    seeds: Sequence[Mapping[str, Any]]
    segments: Mapping[str, Measure]
    macro_auc: float | None
    macro_logloss: float | None
    auc_deviation: float | None
    rate: float
    meta_rate: float | None
    trials: Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The AUC of a cell less that of another one, on the same rows.

    Attributes:
        ours: name of the cell.
        baseline: name of the other.
        segment: see `CellResults.segments`.
        auc: the comparison, corrected over all of the table.
    """

    ours: str
    baseline: str
    segment: str
    auc: Corrected


@dataclasses.dataclass(frozen=True)
class ScenarioResults:
    """The content of scenarios.json.

    Attributes:
        log: its name.
        about: rows, users, items and split, in words.
        cells: in the order of the tables.
        truth: what the true probabilities are worth, for a generated log.
        differences: paired, with intervals.
        knowledge: writer, texts of scenarios, calls and tokens.
        config: all settings.
        environment: versions and machine.
    """

    log: str
    about: Sequence[str]
    cells: Sequence[CellResults]
    truth: Mapping[str, Measure] | None
    differences: Sequence[Difference]
    knowledge: Mapping[str, Any]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


class Judge(NamedTuple):
    """The rows that all cells are judged on.

    Attributes:
        user: ``<int32>[n]``.
        label: ``<int8>[n]``.
        segments: name -> mask ``<bool>[n]``.
    """

    user: np.ndarray
    label: np.ndarray
    segments: Mapping[str, np.ndarray]

    @property
    def scenarios(self) -> list[str]:
        """Names of the segments that are scenarios."""
        return [name for name in self.segments if name not in OF_USERS]


def judge_of(log: Log, label: str, known: np.ndarray | None = None) -> Judge:
    """The judge of a log.

    A user crosses scenarios if training has rows of the user in two or more.

    Args:
        log: with its parts.
        label: what is judged.
        known: ``<int32>[U]``, -1 for a user of whom nothing is known; None where this is no question.
    """
    events, rows, train = log.events, log.parts.test, log.parts.train
    there = np.zeros((events.num_users, len(events.scenario.name)), bool)
    there[events.user[train], events.scenario.code[train]] = True
    crosses = (there.sum(1) > 1)[events.user[rows]]
    segments = {ALL: np.ones(len(rows), bool)}
    for code, name in enumerate(events.scenario.name.tolist()):
        mask = events.scenario.code[rows] == code
        segments |= {name: mask} if mask.any() else {}
    segments |= {CROSSING: crosses, STAYING: ~crosses}
    told = known is not None and known[events.user[rows]] >= 0
    if 0 < np.sum(told) < len(rows):
        segments |= {TOLD: np.asarray(told), UNTOLD: ~np.asarray(told)}
    return Judge(events.user[rows], events.labels[label][rows], segments)


def measures(judge: Judge, scores: Sequence[np.ndarray]) -> dict[str, Measure]:
    """Every segment, each metric the mean over training seeds.

    Args:
        judge: of the log.
        scores: probabilities ``<float>[n]``, one array for each seed.
    """
    found = {}
    for name, mask in judge.segments.items():
        label = judge.label[mask]
        aucs = [metrics.auc(label, score[mask]) for score in scores]
        losses = [metrics.logloss(label, score[mask]) for score in scores]
        found[name] = Measure(
            len(label), len(np.unique(judge.user[mask])), int(label.sum()), mean(aucs), mean(losses)
        )
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing."""
    said = [each for each in values if each is not None]
    return float(np.mean(said)) if said and len(said) == len(values) else None


def cell_results(
    judge: Judge, cell: Cell, runs: Mapping[int, ArmRun], meta: int, found_by: Found
) -> CellResults:
    """One cell, from its runs by training seed, the memory of its meta layers and the search of its rates."""
    scores = scores_of(runs)
    found = measures(judge, scores)
    aucs = [metrics.auc(judge.label, score) for score in scores]
    said = [each for each in aucs if each is not None]
    scenarios = [found[name] for name in judge.scenarios if found[name].auc is not None]
    return CellResults(
        cell.backbone, cell.control, next(iter(runs.values())).summary["parameters"], meta,
        [{"seed": seed, **training(run.summary)} for seed, run in runs.items()], found,
        mean([each.auc for each in scenarios]), mean([each.logloss for each in scenarios]),
        float(np.std(said, ddof=1)) if len(said) > 1 else None, found_by.job.train.learning_rate,
        None if cell.control == BACKBONE else found_by.job.scenarios.meta_rate, found_by.trials,
    )  # fmt: skip


def training(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a training; models for each scenario have no validation of their own."""
    told = {"rows_per_second": summary["rows_per_second"], "seconds": summary["seconds"]}
    if not summary["history"]:
        return told | {"valid_logloss": summary["valid_logloss"]}
    best = summary["history"][summary["best"]]
    return told | {"best_epoch": best["epoch"], "valid_logloss": best["logloss"], "valid_auc": best["auc"]}


def scores_of(runs: Mapping[int, ArmRun]) -> list[np.ndarray]:
    """The probabilities of the first label, ``<float64>[n]`` for each seed."""
    return [np.asarray(run.reached[:, 0], np.float64) for run in runs.values()]


def truth_of(log: Log, judge: Judge) -> dict[str, Measure] | None:
    """What the true probabilities of a generated log are worth on the same rows."""
    return measures(judge, [log.shop.truth.click[log.parts.test]]) if log.shop else None


class Draws:
    """AUCs on draws of users, made once for every training and segment: all comparisons share them.

    Args:
        judge: of the log.
        draws: of users.
    """

    def __init__(self, judge: Judge, draws: int) -> None:
        self.judge, self._draws = judge, draws
        self._kept: dict[tuple[Cell, int, str], bootstrap.Drawn] = {}

    def of(self, cell: Cell, runs: Mapping[int, ArmRun], segment: str) -> bootstrap.Drawn:
        """The mean over the training seeds of a cell, on one segment."""
        for seed, run in runs.items():
            place = cell, seed, segment
            if place not in self._kept:
                self._kept[place] = self._drawn(np.asarray(run.reached[:, 0], np.float64), segment)
        return bootstrap.averaged([self._kept[cell, seed, segment] for seed in runs])

    def _drawn(self, score: np.ndarray, segment: str) -> bootstrap.Drawn:
        judge, mask = self.judge, self.judge.segments[segment]
        return bootstrap.drawn("auc", judge.user[mask], judge.label[mask], [score[mask]], draws=self._draws)


def differences(drawn: Draws, runs: Mapping[Cell, Mapping[int, ArmRun]], baseline: str) -> list[Difference]:
    """Backbones beside the baseline, meta layers beside their backbone, knowledge beside its controls.

    A segment with few rows of a class, or too few users to draw from, has no entry.
    """
    found: list[tuple[tuple[str, str, str], Comparison]] = []
    for ours, other, whole in pairs(list(runs), baseline):
        for segment, mask in drawn.judge.segments.items():
            few = np.bincount(drawn.judge.label[mask], minlength=2).min() < _FEWEST
            if few or (segment != ALL and not whole):
                continue
            both = (drawn.of(each, runs[each], segment) for each in (ours, other))
            found.append(((ours.name, other.name, segment), bootstrap.compared(*both)))
    holm = corrected([compared for _, compared in found])
    return [Difference(*place, auc) for (place, _), auc in zip(found, holm, strict=True)]


def pairs(cells: Sequence[Cell], baseline: str) -> Iterator[tuple[Cell, Cell, bool]]:
    """What is compared with what, and whether on every segment."""
    for cell in cells:
        if cell.control == BACKBONE:
            if cell.backbone != baseline and Cell(baseline, BACKBONE) in cells:
                yield cell, Cell(baseline, BACKBONE), True
            continue
        if Cell(cell.backbone, BACKBONE) in cells:
            yield cell, Cell(cell.backbone, BACKBONE), True
        if cell.control != KNOWLEDGE and Cell(cell.backbone, KNOWLEDGE) in cells:
            yield Cell(cell.backbone, KNOWLEDGE), cell, False
