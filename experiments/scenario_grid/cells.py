"""The cells of a grid of backbones and controls, each trained once per seed and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.ranking.arms import ArmRun, Prepared, train_kept
from experiments.ranking.logs import Parts
from experiments.scenario_grid.known import Known
from reland_jax import events
from reland_jax.artefacts import fingerprint
from reland_jax.fields import nearest_name
from reland_jax.rankers import (
    ARMS,
    CONTROLS,
    Program,
    Ranker,
    RankerData,
    ReadBatch,
    ScenarioRanker,
    Texts,
    controlled,
    create_ranker,
    create_scenario_ranker,
    find_control,
    meta_bytes,
)
from reland_jax.scenario_settings import ALONE, CHAIN, TRAINABLE, ScenarioConfig, ScenarioJob
from reland_jax.types import RelandError

_VERSION = 1
"""Of the code of a cell: increased when equal inputs give other results."""
_FEWEST = 2
"""Rows of each class that a scenario needs, in training and in validation, for a model of its own."""
BACKBONE = "backbone"


class Cell(NamedTuple):
    """One line of the tables.

    Attributes:
        backbone: see `ScenarioJob.backbones`.
        control: see `rankers.CONTROLS`.
    """

    backbone: str
    control: str

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.backbone if self.control == BACKBONE else f"{self.backbone} + {self.control}"


def cells_of(job: ScenarioJob) -> list[Cell]:
    """The cells of a job; models without meta layers have one.

    Raises:
        RelandError: a control that is not known.
    """
    wanted = [
        name for each in job.controls for name in (CONTROLS if each == "all" else [find_control(each).name])
    ]
    found = []
    for backbone in job.backbones:
        alone = backbone in (ALONE, CHAIN)
        found += [Cell(backbone, each) for each in dict.fromkeys(wanted) if not alone or each == BACKBONE]
    if not found:
        raise RelandError(f"config.controls: {ALONE} and {CHAIN} have no meta layers; add {BACKBONE}")
    if job.baseline not in job.backbones:
        hint = nearest_name(job.baseline, job.backbones)
        raise RelandError(f"config.baseline={job.baseline!r} is not among config.backbones; {hint}")
    return found


def needs_knowledge(cells: list[Cell]) -> bool:
    """Whether any of the cells has meta layers."""
    return any(each.control != BACKBONE for each in cells)


def plan_of(job: ScenarioJob, cell: Cell) -> ScenarioConfig:
    """The settings of a cell."""
    plan = dataclasses.replace(job.scenarios, backbone=cell.backbone)
    return find_control(cell.control).plan(plan)


def memory_of(prepared: Prepared, job: ScenarioJob, cell: Cell, texts: Texts, between: int = 0) -> int:
    """Bytes of a cell's meta layers in a step, of the given knowledge; see `meta_bytes`; 0 without."""
    if cell.control == BACKBONE:
        return 0
    plan, wide = plan_of(job, cell), len(prepared.schema.features) * job.ranker.width
    given = {
        "user": (plan.user_vectors, texts.rationales),
        "scenario": (plan.scenario_vectors, texts.scenarios),
    }
    widths = {
        level: plan.vector_width if kind == TRAINABLE or table is None else table.shape[-1]
        for level, (kind, table) in given.items()
    }
    return meta_bytes(plan, job.train.batch_size, wide, widths, between)


def train_cell(
    prepared: Prepared, known: Known, job: ScenarioJob, cell: Cell, seed: int, workdir: Path
) -> ArmRun:
    """Trains a cell with a seed, or reads what an earlier call left.

    Raises:
        RelandError: parts that do not go together; see `train_ranker`.
    """
    if cell.backbone == ALONE:
        return _alone(prepared, job, seed, workdir)
    program = program_of(prepared, job, cell)
    ranker = program.ranker
    texts = controlled(find_control(cell.control), known.texts, job.texts.seed)
    arrays = [np.asarray(each) for each in texts if each is not None]
    plan = ranker.plan if isinstance(ranker, ScenarioRanker) else cell.backbone
    stamp = fingerprint(
        "scenarios", _VERSION, prepared.identity, *arrays, ranker.config, plan, job.train, seed
    )
    name, data = f"{cell.backbone}-{cell.control}-seed{seed}", RankerData(prepared.encoded, texts)
    return train_kept(prepared, program, data, seed, name, stamp, workdir)


def _ranker(prepared: Prepared, job: ScenarioJob, cell: Cell) -> Ranker:
    if cell.backbone != CHAIN:
        return create_scenario_ranker(job.ranker, plan_of(job, cell), prepared.schema, ARMS["id"])
    labels = tuple(each.name for each in prepared.log.events.schema.labels)
    config = dataclasses.replace(job.ranker, task="aitm", labels=labels)
    return create_ranker(config, prepared.schema, ARMS["id"])


def program_of(prepared: Prepared, job: ScenarioJob, cell: Cell) -> Program:
    """What is compiled for a cell."""
    return Program(_ranker(prepared, job, cell), job.train, ReadBatch(events.gather, prepared.schema))


def _alone(prepared: Prepared, job: ScenarioJob, seed: int, workdir: Path) -> ArmRun:
    """A model for each scenario, of its rows alone; the mean of all where one has too few of a class."""
    program, log = program_of(prepared, job, Cell("one", BACKBONE)), prepared.log
    data = RankerData(prepared.encoded, Texts())
    label = log.events.labels[job.ranker.labels[0]]
    reached = np.full((len(log.parts.test), 1), label[log.parts.train].mean(), np.float32)
    rates, parameters, seconds, losses = [], {"table": 0, "dense": 0}, 0.0, []
    for code, parts in _parts_of_scenarios(prepared):
        enough = all(np.bincount(label[part], minlength=2).min() >= _FEWEST for part in parts[:2])
        own = log.events.scenario.code[log.parts.test] == code
        if not enough or not own.any():
            continue
        stamp = fingerprint("alone", _VERSION, prepared.identity, job.ranker, job.train, seed, code)
        here = prepared._replace(log=log._replace(parts=parts))
        run = train_kept(here, program, data, seed, f"alone-{code}-seed{seed}", stamp, workdir)
        reached[own] = run.reached
        rates.append((len(parts.train), run.summary["rows_per_second"]))
        seconds += run.summary["seconds"]
        losses.append((len(parts.valid), run.summary["history"][run.summary["best"]]["logloss"]))
        parameters = {name: parameters[name] + count for name, count in run.summary["parameters"].items()}
    rows = sum(count for count, _ in rates)
    rate = rows / max(sum(count / each for count, each in rates), 1e-9)
    loss = sum(count * each for count, each in losses) / max(sum(count for count, _ in losses), 1)
    summary = {
        "history": [], "best": -1, "rows_per_second": rate, "seconds": seconds, "valid_logloss": loss,
    }  # fmt: skip
    return ArmRun(reached, reached, summary | {"parameters": parameters})


def _parts_of_scenarios(prepared: Prepared) -> Iterator[tuple[int, Parts]]:
    """The parts of every scenario that training knows, by its place in the log's names."""
    scenario, parts = prepared.log.events.scenario, prepared.log.parts
    for name in prepared.encoding.known[events.contract.SCENARIO].tolist():
        code = scenario.name.tolist().index(name)
        train, valid, test = (part[scenario.code[part] == code] for part in parts[:3])
        yield code, Parts(train, valid, test, parts.about)
