"""The search of learning rates: every cell has the same trials, judged by validation with one seed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.ranking.arms import Prepared
from experiments.scenario_grid.cells import BACKBONE, Cell, train_cell
from experiments.scenario_grid.known import Known
from reland_jax.scenario_settings import ScenarioJob

_log = logging.getLogger("reland_jax.scenarios")


class Found(NamedTuple):
    """What a cell is trained with.

    Attributes:
        job: all settings, with the rates that were chosen.
        workdir: where its trainings are.
        trials: of every trial: "rate" or "meta_rate", and "valid_logloss"; empty without a search.
    """

    job: ScenarioJob
    workdir: Path
    trials: tuple[Mapping[str, float], ...] = ()


def searched(prepared: Prepared, known: Known, job: ScenarioJob, cell: Cell, workdir: Path) -> Found:
    """The rates of a cell: those of its backbone, and with meta layers one of `ScenarioJob.meta_rates`.

    Each is tried with the first training seed; the smallest validation logloss counts.

    Raises:
        RelandError: see `train_cell`.
    """
    tried = _chosen(prepared, known, Found(job, workdir), cell._replace(control=BACKBONE), "rate", job.rates)
    if cell.control == BACKBONE:
        return tried
    return _chosen(prepared, known, tried, cell, "meta_rate", job.meta_rates)


def _chosen(
    prepared: Prepared, known: Known, before: Found, cell: Cell, name: str, values: tuple[float, ...]
) -> Found:
    """The best of some values of a rate; what was there before, where there are none."""
    if not values:
        return before._replace(trials=())
    seed, trials, found = before.job.seeds_of_training[0], [], []
    for value in values:
        here = Found(_with(before.job, name, value), before.workdir / f"{name}={value:g}")
        summary = train_cell(prepared, known, here.job, cell, seed, here.workdir).summary
        trials.append({name: value, "valid_logloss": valid_logloss(summary)})
        found.append(here)
        _log.info("%s: %s", cell.name, trials[-1])
    best = min(range(len(trials)), key=lambda at: trials[at]["valid_logloss"])
    return found[best]._replace(trials=tuple(trials))


def valid_logloss(summary: Mapping[str, Any]) -> float:
    """The validation logloss of a training at its best."""
    told = summary["history"][summary["best"]] if summary["history"] else summary
    return float(told["valid_logloss"] if "valid_logloss" in told else told["logloss"])


def _with(job: ScenarioJob, name: str, value: float) -> ScenarioJob:
    if name == "meta_rate":
        return dataclasses.replace(job, scenarios=dataclasses.replace(job.scenarios, meta_rate=value))
    train = dataclasses.replace(job.train, learning_rate=value, table_learning_rate=value)
    return dataclasses.replace(job, train=train)
