"""What the arms of a comparison are worth: metrics by segment, and paired differences with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.ranking.arms import ArmRun
from experiments.ranking.logs import Log
from experiments.ranking.search import Chosen
from reland_jax.eval.significance import Corrected, corrected
from reland_jax.events import Levels, Predictions, Quality, activity_levels, bootstrap
from reland_jax.events.levels import NAMES, levels_of
from reland_jax.events.quality import CTCVR, CVR, Task, evaluate_tasks, tasks
from reland_jax.ranker_settings import RankerConfig, RankerJob

TRUTH = "truth"
F_ITEM = "f_item"
WORDS = ("reland", "own")
"""Arms that read words of users."""
PAIRS = (
    (F_ITEM, "id"),
    ("reland", F_ITEM), ("seed_id", F_ITEM), ("permuted", F_ITEM), ("noise", F_ITEM), ("own", F_ITEM),
    ("reland", "seed_id"), ("reland", "permuted"), ("reland", "noise"), ("own", "seed_id"),
)  # fmt: skip
"""Arms and baselines: what item texts are worth, what each further field is worth, and what of that is worth
more than being matched to a seed user."""
LEVEL_PAIRS = (
    *((arm, F_ITEM) for arm in WORDS),
    ("reland", "seed_id"), ("reland", "permuted"), ("reland", "noise"), ("own", "seed_id"),
)  # fmt: skip
"""The same on each activity level: arms that read words of users."""
_LEAST = 20
"""Rows of each class that a comparison needs."""


@dataclasses.dataclass(frozen=True)
class ArmResults:
    """One arm.

    Attributes:
        parameters: numbers that are learned, in the table and elsewhere.
        seeds: of every training: seed, best epoch, validation, rows per second, seconds.
        quality: of every task and segment, each metric the mean over the seeds.
        auc_deviation: standard deviation of the AUC over the seeds, by task and "all" rows; None of one seed.
    """

    parameters: Mapping[str, int]
    seeds: Sequence[Mapping[str, Any]]
    quality: Sequence[Quality]
    auc_deviation: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class Difference:
    """An arm less a baseline.

    Attributes:
        arm: its name.
        baseline: its name.
        task: see `Quality`.
        segment: see `Quality`.
        auc: the comparison, corrected over all of the table.
    """

    arm: str
    baseline: str
    task: str
    segment: str
    auc: Corrected


@dataclasses.dataclass(frozen=True)
class RankerResults:
    """The content of ranker.json.

    Attributes:
        log: its name.
        about: rows, users, items and split, in words.
        levels: cut points and users of each activity level.
        arms: by name.
        truth: what the true probabilities are worth, for a generated log.
        differences: paired, with intervals.
        differences_by_level: the same on each activity level.
        writer: who wrote the rationales.
        config: all settings.
        environment: versions and machine.
        chosen: the settings of every arm, and the trials that they were chosen from, if there was a search.
    """

    log: str
    about: Sequence[str]
    levels: Mapping[str, Any]
    arms: Mapping[str, ArmResults]
    truth: Sequence[Quality] | None
    differences: Sequence[Difference]
    differences_by_level: Sequence[Difference]
    writer: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    chosen: Mapping[str, Chosen] = dataclasses.field(default_factory=dict)


class Judge(NamedTuple):
    """The rows that all arms are judged on.

    Attributes:
        log: with its split.
        levels: of its users.
        config: which labels are learned.
    """

    log: Log
    levels: Levels
    config: RankerConfig

    def tasks(self, reached: np.ndarray, given: np.ndarray) -> list[Task]:
        """What is judged of predictions ``[n, T]`` of the test rows."""
        events, rows = self.log.events, self.log.parts.test
        names = [each.name for each in events.schema.labels]
        if len(self.config.labels) > 1:
            return tasks(events, rows, Predictions(reached[:, 0], given[:, 1]))
        label, score = self.config.labels[0], np.asarray(reached[:, 0], np.float64)
        if label == names[0]:
            return tasks(events, rows, Predictions(score))
        chosen = events.labels[self.config.trained_on][rows] == 1 if self.config.trained_on else score >= 0
        name = CVR if self.config.trained_on else CTCVR
        return [Task(name, rows[chosen], events.labels[label][rows[chosen]], score[chosen])]


def judge_of(log: Log, config: RankerConfig) -> Judge:
    """The judge of a log."""
    if log.streamed:
        known = log.streamed.training
        return Judge(log, levels_of(known.activity, known.impressions), config)
    return Judge(log, activity_levels(log.events, log.parts.train), config)


def arm_results(judge: Judge, runs: Mapping[int, ArmRun]) -> ArmResults:
    """Metrics of one arm, from its runs by training seed."""
    found = [
        evaluate_tasks(judge.log.events, judge.tasks(run.reached, run.given), judge.levels)
        for run in runs.values()
    ]
    deviation: dict[str, float | None] = {}
    for entries in zip(*found, strict=True):
        aucs = [each.auc for each in entries if each.auc is not None]
        if entries[0].segment == "all":
            deviation[entries[0].task] = float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None
    seeds = [{"seed": seed, **_training(run.summary)} for seed, run in runs.items()]
    parameters = next(iter(runs.values())).summary["parameters"]
    return ArmResults(parameters, seeds, [_mean(each) for each in zip(*found, strict=True)], deviation)


def _training(summary: Mapping[str, Any]) -> dict[str, Any]:
    best = summary["history"][summary["best"]]
    told = {name: best[name] for name in ("epoch", "logloss", "auc")}
    return {
        "best_epoch": told["epoch"], "valid_logloss": told["logloss"], "valid_auc": told["auc"],
        "epochs": summary["history"][-1]["epoch"], "rows_per_second": summary["rows_per_second"],
        "seconds": summary["seconds"],
    }  # fmt: skip


def _mean(entries: Sequence[Quality]) -> Quality:
    """The mean over seeds of every metric; None where one seed has none."""
    changed: dict[str, float | None] = {}
    for field in dataclasses.fields(Quality):
        values = [getattr(each, field.name) for each in entries]
        if isinstance(values[0], float) or None in values:
            changed[field.name] = None if None in values else float(np.mean(values))
    return dataclasses.replace(entries[0], **changed)  # type: ignore[arg-type]  # names of metrics alone


def truth_of(judge: Judge) -> list[Quality] | None:
    """What the true probabilities of a generated log are worth on the same rows."""
    if judge.log.shop is None:
        return None
    click, conversion = (each[judge.log.parts.test] for each in judge.log.shop.truth)
    both = np.stack([click, click * conversion], 1)
    if len(judge.config.labels) == 1:
        names = [each.name for each in judge.log.events.schema.labels]
        column = names.index(judge.config.labels[0])
        given = conversion if judge.config.trained_on else both[:, column]
        return evaluate_tasks(judge.log.events, judge.tasks(given[:, None], given[:, None]), judge.levels)
    found = judge.tasks(both, np.stack([click, conversion], 1))
    return evaluate_tasks(judge.log.events, found, judge.levels)


def differences(
    judge: Judge,
    job: RankerJob,
    runs: Mapping[str, Mapping[int, ArmRun]],
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> list[Difference]:
    """Pairs of arms, those of `PAIRS` mostly, on all rows; Holm's correction is over all of these.

    A task with a handful of rows of a class has no entry.
    """
    return _corrected(judge, job, runs, [pair for pair in pairs if set(pair) <= set(runs)], ("all",))


def differences_by_level(
    judge: Judge, job: RankerJob, runs: Mapping[str, Mapping[int, ArmRun]]
) -> list[Difference]:
    """The pairs of `LEVEL_PAIRS` on every activity level; with a correction of their own."""
    pairs = [pair for pair in LEVEL_PAIRS if set(pair) <= set(runs)]
    return _corrected(judge, job, runs, pairs, NAMES)


def _corrected(
    judge: Judge,
    job: RankerJob,
    runs: Mapping[str, Mapping[int, ArmRun]],
    pairs: Sequence[tuple[str, str]],
    segments: Sequence[str],
) -> list[Difference]:
    # Every arm is drawn once, for all pairs that it is in: the draws are the same for all arms.
    drawn = {name: _drawn(judge, job.draws, runs[name], segments) for name in dict.fromkeys(sum(pairs, ()))}
    found = [
        ((arm, baseline, *place), bootstrap.compared(drawn[arm][place], drawn[baseline][place]))
        for arm, baseline in pairs
        for place in drawn[arm]
    ]
    holm = corrected([compared for _, compared in found])
    return [Difference(*place, auc) for (place, _), auc in zip(found, holm, strict=True)]


def _drawn(
    judge: Judge, draws: int, runs: Mapping[int, ArmRun], segments: Sequence[str]
) -> dict[tuple[str, str], bootstrap.Drawn]:
    """The AUC of an arm by task and segment, as it is and on draws of users."""
    of_seeds = [judge.tasks(run.reached, run.given) for run in runs.values()]
    found = {}
    for at, task in enumerate(of_seeds[0]):
        user = judge.log.events.user[task.rows]
        for segment in segments:
            level = judge.levels.level[user]
            mask = np.ones(len(user), bool) if segment == "all" else level == NAMES.index(segment)
            label = task.label[mask]
            if min(label.sum(), len(label) - label.sum()) >= _LEAST:
                scores = [one[at].score[mask] for one in of_seeds]
                found[task.name, segment] = bootstrap.drawn("auc", user[mask], label, scores, draws=draws)
    return found


def about(log: Log) -> list[str]:
    """Rows, users, items, labels and split of a log, in words."""
    events, parts = log.events, log.parts
    rows = {"train": log.training_rows}
    rows |= {name: len(part) for name, part in parts._asdict().items() if name != "about" and len(part)}
    counts = ", ".join(f"{count:,} for {name}" for name, count in rows.items())
    total, ones = events.num_rows, np.array([label.sum() for label in events.labels.values()])
    if log.streamed:
        rest = log.streamed.training.labels
        total += rest.total()
        ones = ones + sum(np.multiply(labels, times) for labels, times in rest.items())
    shares = ", ".join(f"{name} {one / total:.4f}" for name, one in zip(events.labels, ones, strict=True))
    return [
        f"{total:,} impressions of {events.num_users:,} users and {events.num_items:,} items; "
        f"share of rows with each label: {shares}.",
        f"Rows: {counts}; {parts.about}.",
        *events.notes,
    ]


def about_levels(judge: Judge) -> dict[str, Any]:
    """Cut points, and the users of each level."""
    users = np.bincount(judge.levels.level, minlength=len(NAMES)).tolist()
    return {"cuts": list(judge.levels.cuts), "users": dict(zip(NAMES, users, strict=True))}
