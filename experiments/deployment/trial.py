"""An A/B test of two rankers in the generated shop, after the last day of the log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.deployment.days import beginning, iso, whole_log
from experiments.deployment.features import Arrays
from experiments.deployment.rankers import Reads, data_of, predicted, table_of
from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.data.sources.raw import Tokens
from reland_jax.deploy_settings import DeployJob
from reland_jax.events import Events, lifts, trial
from reland_jax.events.contract import DAY_MS
from reland_jax.events.lifts import Counts
from reland_jax.events.shop import World
from reland_jax.events.trial import Slates, TrialSettings
from reland_jax.flow import Codec, Job, Stage
from reland_jax.types import RelandError

TRUTH = "truth"


def settings_of(job: DeployJob) -> TrialSettings:
    """The settings of the test: each arm has half of the users."""
    asked = job.trial
    if asked.shown > asked.candidates:
        raise RelandError(
            f"config.trial.shown={asked.shown} is more than config.trial.candidates={asked.candidates}"
        )
    return TrialSettings(
        asked.days, asked.candidates, asked.shown, asked.visits, buckets=2, salt=job.seed, seed=job.seed
    )


def trial_stage(
    job: DeployJob, reads: Reads, day: int, rankers: Mapping[str, Stage[Arrays]], seeds: int
) -> Stage[Arrays]:
    """What all users would be shown by each ranker, and by one that knows the truth, and what comes of it.

    Arrays: "NAME KIND COUNT" ``<float64>[U, days]``, KIND "drawn" or "expected", COUNT of `Counts`.
    """

    def run(made: Job) -> Arrays:
        world, settings = _world(job), settings_of(job)
        slates = trial.draw_slates(world, settings)
        log = slate_log(made[reads.catalogue], slates, beginning(made[reads.catalogue], day))
        table = table_of(made, job, reads, day, seeds)
        scores = {TRUTH: trial.true_scores(world, slates)}
        for name, stage in rankers.items():
            data = data_of(made, job, reads, name, log, table)
            reached = predicted(job, made[reads.encoding], name, data, made[stage], log).reached
            scores[name] = np.asarray(reached[:, 0], np.float64).reshape(slates.item.shape)
        return _outcomes(world, settings, slates, scores)

    tables = (reads.tables[day],) if day in reads.tables else ()
    return Stage(
        f"trial/{iso(day)}", (reads.catalogue, reads.encoding, reads.items, *tables, *rankers.values()),
        lambda config: [job.trial, job.seed, list(rankers)], run,
        lambda made: Codec(lambda arrays, folder: save_arrays(arrays, folder), load_arrays),
    )  # fmt: skip


def _outcomes(
    world: World, settings: TrialSettings, slates: Slates, scores: Mapping[str, np.ndarray]
) -> Arrays:
    found: dict[str, np.ndarray] = {}
    for name, of_arm in scores.items():
        shown = trial.show(slates, of_arm, settings.shown)
        counts = {
            "drawn": trial.outcomes(world, shown, settings.days, settings.seed),
            "expected": trial.expected(world, shown, settings.days),
        }
        for kind, each in counts.items():
            found |= {f"{name} {kind} {what}": array for what, array in each._asdict().items()}
    return found


def slate_log(catalogue: Events, slates: Slates, time: int) -> Events:
    """The candidates of all slates as rows of a log, all at the top and without any outcome.

    Args:
        catalogue: users and items of the shop.
        slates: V visits of K candidates.
        time: when the test begins, in milliseconds since 1970 in UTC.
    """
    count = slates.item.shape[1]
    nothing = np.zeros(slates.item.size, np.int8)
    return catalogue._replace(
        user=np.repeat(slates.user, count), item=slates.item.ravel(),
        time=np.repeat(time + slates.day.astype(np.int64) * DAY_MS, count),
        scenario=Tokens(np.repeat(slates.scenario, count), catalogue.scenario.name),
        labels={each.name: nothing for each in catalogue.schema.labels},
        features={**catalogue.features, "position": np.zeros(slates.item.size)},
    )  # fmt: skip


def counts_of(found: Arrays, name: str, kind: str) -> Counts:
    """The counts of an arm, of `trial_stage`."""
    return Counts(*(np.asarray(found[f"{name} {kind} {what}"]) for what in Counts._fields))


def lifts_of(
    job: DeployJob, found: Arrays, treated: str, control: str, levels: Mapping[str, np.ndarray]
) -> list[tuple[lifts.Lift, float]]:
    """The lifts of one arm over another as measured, each with the true one of all users of its segment.

    Args:
        job: the settings.
        found: of `trial_stage`.
        treated: name of the treatment.
        control: name of the baseline.
        levels: name -> ``<bool>[U]``.
    """
    drawn = [counts_of(found, name, "drawn") for name in (treated, control)]
    means = [counts_of(found, name, "expected") for name in (treated, control)]
    arms = trial.arms_of(len(drawn[0].clicks), settings_of(job))
    return [
        (each, _true(means[0], means[1], each, levels))
        for each in lifts.lifts(drawn[0], drawn[1], arms, levels)
    ]


def _true(treated: Counts, control: Counts, lift: lifts.Lift, levels: Mapping[str, np.ndarray]) -> float:
    if lift.segment.startswith("day "):
        day = int(lift.segment.removeprefix("day ")) - 1
        treated, control = (
            Counts(*(array[:, day : day + 1] for array in each)) for each in (treated, control)
        )
    return lifts.total_lift(treated, control, lift.metric, levels.get(lift.segment))


def _world(job: DeployJob) -> World:
    shop = whole_log(job.log).shop
    assert shop is not None
    return shop.world
