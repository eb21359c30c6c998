"""What a deployment found, as typed values: days, levels, costs and the A/B test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.deployment.days import iso, whole_log
from experiments.deployment.features import Arrays
from experiments.deployment.plan import TREATED, Plan
from experiments.deployment.trial import TRUTH, lifts_of
from experiments.ranking.logs import Log
from reland_jax import events
from reland_jax.deploy_settings import DeployJob
from reland_jax.events import Events, Predictions, metrics
from reland_jax.events.levels import NAMES
from reland_jax.events.lifts import Lift
from reland_jax.events.parts import joined
from reland_jax.events.quality import CTCVR, CTR, Task, tasks
from reland_jax.flow import Made
from reland_jax.records import stored
from reland_jax.results import environment

FEWEST = 20
"""Rows of either class that a comparison needs."""


@dataclasses.dataclass(frozen=True)
class ArmDay:
    """How an arm does on some rows.

    Attributes:
        task: "ctr" (clicks), or "ctcvr" (clicks with a conversion), both on all rows.
        segment: a day, "all days", or a level on all days.
        arm: its name.
        rows: impressions.
        auc: over all of them; None where they are of one class.
        difference: of the AUC from the baseline's; None for the baseline, and where it is not measured.
        low: lower end of its 95% interval, by a bootstrap over users.
        high: its upper end.
        improvement: RelaImpr, (AUC - 0.5) over that of the baseline, less 1.
    """

    task: str
    segment: str
    arm: str
    rows: int
    auc: float | None
    difference: float | None
    low: float | None
    high: float | None
    improvement: float | None


@dataclasses.dataclass(frozen=True)
class DayCost:
    """What a day cost.

    Attributes:
        day: as it is written.
        seconds: by step: encoder, vectors, pool, table, ranker (all arms), judged.
        asked: seed users about whom an LLM was asked.
        prompt_tokens: read by it.
        response_tokens: written by it.
        seed_users: of the pool of that day, 0 on other days.
        matched: share of all users who have a seed user.
    """

    day: str
    seconds: Mapping[str, float]
    asked: int
    prompt_tokens: int
    response_tokens: int
    seed_users: int
    matched: float


@dataclasses.dataclass(frozen=True)
class TrialLift:
    """A lift of the A/B test.

    Attributes:
        treated: name of the treatment.
        control: name of the baseline.
        measured: with its interval.
        true: of all users of the segment, by the true probabilities.
    """

    treated: str
    control: str
    measured: Lift
    true: float


@dataclasses.dataclass(frozen=True)
class DeployResults:
    """The content of deploy.json.

    Attributes:
        log: its name.
        about: rows, users and days, in words.
        days: arms by day, and on all days.
        levels: arms by the level of the user before the day, on all days.
        costs: by day.
        trial: lifts of the A/B test; empty where there is none.
        config: all settings.
        environment: versions and machine.
    """

    log: str = dataclasses.field(metadata=stored("deployment"))
    about: Sequence[str]
    days: Sequence[ArmDay]
    levels: Sequence[ArmDay]
    costs: Sequence[DayCost]
    trial: Sequence[TrialLift]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


def summarise(job: DeployJob, plan: Plan, made: Made) -> DeployResults:
    """The results of a run.

    Args:
        job: its settings.
        plan: its stages.
        made: their artefacts.
    """
    log = whole_log(job.log)
    judged = {day: (made[plan.reads.logs[day]], made[stage]) for day, stage in plan.judged.items()}
    whole = joined([rows for rows, _ in judged.values()])
    arrays = {
        name: np.concatenate([found[name] for _, found in judged.values()])
        for name in next(iter(judged.values()))[1]
    }
    days = [each for day, found in judged.items() for each in _compared(job, iso(day), *found)]
    everything = _compared(job, "all days", whole, arrays)
    levels = [
        each for code, name in enumerate(NAMES)
        for each in _compared(job, name, whole, arrays, arrays["level"] == code)
    ]  # fmt: skip
    return DeployResults(
        job.log.name, _about(log, plan, whole), [*days, *everything], levels, _costs(job, plan, made),
        _trial(job, plan, made), dataclasses.asdict(job), environment(),
    )  # fmt: skip


def _about(log: Log, plan: Plan, judged: Events) -> list[str]:
    days = sorted(plan.judged)
    return [
        f"The log has {log.events.num_rows:,} rows of {log.events.num_users:,} users; {judged.num_rows:,} "
        f"rows of {iso(days[0])} to {iso(days[-1])} are judged, each day by rankers that were trained on the "
        "days before it and by a table made from behaviour before it.",
    ]


def _compared(
    job: DeployJob, segment: str, log: Events, found: Arrays, mask: np.ndarray | None = None
) -> list[ArmDay]:
    """All arms on some rows of a log."""
    rows = np.arange(log.num_rows) if mask is None else np.flatnonzero(mask)
    if not len(rows):
        return []
    of_arms = {name: _tasks(log, rows, found, name) for name in job.arms}
    return [
        _arm_day(job, segment, name, log, task, base)
        for name, own in of_arms.items()
        for task, base in zip(own, of_arms[job.arms[0]], strict=True)
    ]


def _tasks(log: Events, rows: np.ndarray, found: Arrays, name: str) -> list[Task]:
    reached, given = (np.asarray(found[f"{kind} {name}"][rows], np.float64) for kind in ("reached", "given"))
    conversion = given[:, 1] if given.shape[1] > 1 else None
    judged = tasks(log, rows, Predictions(reached[:, 0], conversion))
    return [each for each in judged if each.name in (CTR, CTCVR)]


def _arm_day(job: DeployJob, segment: str, name: str, log: Events, task: Task, base: Task) -> ArmDay:
    auc, of_base = (metrics.auc(each.label, each.score) for each in (task, base))
    positives, rows = int(task.label.sum()), len(task.rows)
    few = min(positives, rows - positives) < FEWEST
    if name == job.arms[0] or few or auc is None or of_base is None:
        return ArmDay(task.name, segment, name, rows, auc, None, None, None, None)
    found = events.compare(
        "auc", log.user[task.rows], task.label, [task.score], [base.score], draws=job.draws
    )
    improvement = (auc - 0.5) / (of_base - 0.5) - 1 if of_base != 0.5 else None
    return ArmDay(task.name, segment, name, rows, auc, found.difference, found.low, found.high, improvement)


def _costs(job: DeployJob, plan: Plan, made: Made) -> list[DayCost]:
    costs = []
    for day, stages in plan.of_day.items():
        seconds: dict[str, float] = {}
        for stage in stages:
            seconds[stage.family] = seconds.get(stage.family, 0.0) + made.seconds[stage.name]
        pool = made[plan.pools[day]] if day in plan.pools else None
        cost = np.zeros(3, np.int64) if pool is None else np.asarray(pool["cost"])
        table = plan.reads.tables.get(day)
        matched = float((made[table].seed >= 0).mean()) if table is not None else 0.0
        asked, prompt, response = cost.tolist()
        users = 0 if pool is None else len(pool["user"])
        costs.append(DayCost(iso(day), seconds, asked, prompt, response, users, matched))
    return costs


def _trial(job: DeployJob, plan: Plan, made: Made) -> list[TrialLift]:
    if plan.trial is None:
        return []
    log = joined([made[stage] for stage in plan.reads.logs.values()])
    found = events.activity_levels(log, np.arange(log.num_rows))
    levels = {name: found.level == code for code, name in enumerate(NAMES) if (found.level == code).any()}
    base = job.arms[0]
    pairs = [(TREATED, base), (TRUTH, base), (TRUTH, TREATED)]
    return [
        TrialLift(treated, control, lift, true)
        for treated, control in pairs
        for lift, true in lifts_of(job, made[plan.trial], treated, control, levels)
    ]
