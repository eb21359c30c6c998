"""All stages of a deployment in order: what each day makes, and what that reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.deployment import features, rankers
from experiments.deployment.days import catalogue_stage, days_of, log_stage, whole_log
from experiments.deployment.encoders import Encoder
from experiments.deployment.features import Arrays
from experiments.deployment.rankers import Reads
from experiments.deployment.tables import Table
from experiments.deployment.trial import trial_stage
from reland_jax.deploy_settings import DeployJob
from reland_jax.flow import Flow, Stage
from reland_jax.rankers import OWN, find_arm
from reland_jax.types import RelandError

TREATED = "reland"
"""The arm that is treated in the A/B test; the first of the settings is its baseline."""


class Plan(NamedTuple):
    """A deployment as a flow.

    Attributes:
        flow: all stages.
        reads: those that rankers read.
        of_day: what is made for each day, in order.
        pools: by the day for which they are made.
        judged: by day.
        trial: of the A/B test after the last day, in the shop; else None.
    """

    flow: Flow
    reads: Reads
    of_day: dict[int, list[Stage[Any]]]
    pools: dict[int, Stage[Arrays]]
    judged: dict[int, Stage[Arrays]]
    trial: Stage[Arrays] | None


class _Planner:
    """Makes the stages day by day."""

    def __init__(self, job: DeployJob, known: list[int], judged_from: int) -> None:
        self.job, self.judged_from = job, judged_from
        self.begin = known[0] + job.rhythm.warm_days
        catalogue = catalogue_stage(job.log)
        logs = {day: log_stage(job.log, catalogue, day) for day in known}
        items = features.items_stage(job, catalogue)
        warm = [logs[day] for day in known if day < self.begin]
        encoding = rankers.encoding_stage(job, catalogue, warm, self.begin)
        self.first: list[Stage[Any]] = [catalogue, *logs.values(), items, encoding]
        self.tables: dict[int, Stage[Table]] = {}
        self.reads = Reads(catalogue, encoding, items, logs, self.tables)
        self.seeds = features.seeds_of(job, whole_log(job.log).events.num_users)
        self.plain: dict[str, Stage[Arrays]] = {}
        self.states: dict[str, Stage[Arrays]] = {}
        self.encoder: Stage[Encoder] | None = None
        self.pool: Stage[Arrays] | None = None
        self.pools: dict[int, Stage[Arrays]] = {}
        self.judged: dict[int, Stage[Arrays]] = {}

    def day(self, day: int) -> list[Stage[Any]]:
        """What is made for a day: its table, rankers of the days before it, and how they do on it."""
        job, reads = self.job, self.reads
        made = self._features(day) if day >= self.begin else []
        made += self._rankers(day)
        if day in reads.logs and day >= self.judged_from:
            self.judged[day] = rankers.judged_stage(job, reads, day, dict(self.states), self.seeds)
            made.append(self.judged[day])
        return made

    def _rankers(self, day: int) -> list[Stage[Arrays]]:
        """The rankers of the days before one; those that read texts of users begin with the first pool."""
        job, found = self.job, {name: rankers.without_users(name) for name in self.job.arms}
        alone = [name for name, plain in found.items() if name == plain]
        before_them = found.values() if day <= self.begin else alone
        for name in dict.fromkeys(before_them):
            earlier = self.plain.get(name)
            self.plain[name] = rankers.ranker_stage(job, self.reads, name, day, earlier, self.seeds)
        made = [self.plain[name] for name in dict.fromkeys(before_them)]
        for name, plain in found.items():
            if name == plain:
                self.states[name] = self.plain[name]
            elif day == self.begin:
                before = self.plain[plain]
                self.states[name] = rankers.begun_stage(job, self.reads, name, day, before, self.seeds)
            elif day > self.begin:
                earlier = self.states[name]
                self.states[name] = rankers.ranker_stage(job, self.reads, name, day, earlier, self.seeds)
        return [*made, *(stage for name, stage in self.states.items() if name not in alone)]

    def _features(self, day: int) -> list[Stage[Any]]:
        job, catalogue, past = self.job, self.reads.catalogue, self.reads.before(day)
        made: list[Stage[Any]] = []
        since = day - self.begin
        if self.encoder is None or since % job.rhythm.encoder_days == 0:
            self.encoder = features.encoder_stage(job, catalogue, past, day)
            made.append(self.encoder)
        vectors = features.vectors_stage(job, catalogue, self.reads.items, self.encoder, past, day)
        made.append(vectors)
        # Vectors of two encoders do not compare, so a new encoder needs a new pool.
        if self.pool is None or since % job.rhythm.pool_days == 0 or self.encoder in made:
            self.pool = features.pool_stage(job, catalogue, self.reads.items, vectors, past, day)
            self.pools[day] = self.pool
            made.append(self.pool)
        self.tables[day] = features.table_stage(job, catalogue, vectors, self.pool, day)
        return [*made, self.tables[day]]


def plan_of(job: DeployJob, days: tuple[int, int] | None = None) -> Plan:
    """The stages of a deployment.

    Args:
        job: the settings.
        days: first and last day that is judged, from 1; None for all from the second day with a pool on.

    Raises:
        RelandError: days that the log does not have, or before the first pool; an arm without its texts.
    """
    known = days_of(job.log)
    first, last = _checked(job, len(known), days)
    if whole_log(job.log).shop is None and any(find_arm(name).source == OWN for name in job.arms):
        raise RelandError(
            f"config.arms: {OWN!r} reads a text of every user, which only the generated shop has"
        )
    known = known[:last]
    planner = _Planner(job, known, known[first - 1])
    # The day after the last one has a table and rankers too: the A/B test is of them.
    of_day = {day: planner.day(day) for day in range(known[0] + 1, known[-1] + 2)}
    stages = [*planner.first, *(stage for made in of_day.values() for stage in made)]
    trial = None
    if whole_log(job.log).shop is not None and TREATED in job.arms[1:]:
        arms = {name: planner.states[name] for name in (TREATED, job.arms[0])}
        trial = trial_stage(job, planner.reads, known[-1] + 1, arms, planner.seeds)
        stages.append(trial)
    return Plan(Flow(tuple(stages)), planner.reads, of_day, planner.pools, planner.judged, trial)


def _checked(job: DeployJob, count: int, days: tuple[int, int] | None) -> tuple[int, int]:
    earliest = job.rhythm.warm_days + 1
    first, last = days or (earliest + 1, count)
    if not earliest <= first <= last <= count:
        raise RelandError(
            f"--days={first}-{last}: the log has days 1 to {count}, and the first pool is made for day "
            f"{earliest} (config.rhythm.warm_days={job.rhythm.warm_days})"
        )
    return first, last
