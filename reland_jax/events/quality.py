"""What predictions are worth: by task, per scenario and per activity level."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.events import metrics
from reland_jax.events.contract import Events
from reland_jax.events.levels import NAMES, Levels
from reland_jax.types import RelandError

CTR, CVR, CTCVR = "ctr", "cvr", "ctcvr"


class Predictions(NamedTuple):
    """Predicted probabilities of rows of a log.

    Attributes:
        click: ``<float>[n]``, of the first label.
        conversion: ``<float>[n]``, of the second one given the first; None where it is not predicted.
    """

    click: np.ndarray
    conversion: np.ndarray | None = None


class Task(NamedTuple):
    """What is judged against what.

    Attributes:
        name: "ctr", "cvr" (clicked rows alone) or "ctcvr" (all rows: clicked and converted).
        rows: ``<int64>[m]``, rows of the log.
        label: ``<int8>[m]``.
        score: ``<float64>[m]``.
    """

    name: str
    rows: np.ndarray
    label: np.ndarray
    score: np.ndarray


@dataclasses.dataclass(frozen=True)
class Quality:
    """The metrics of one task on one segment; None where the segment has one class only.

    Attributes:
        task: see `Task.name`.
        segment: "all", "scenario NAME", or one of `levels.NAMES`.
        rows: impressions.
        users: users with an impression.
        positives: rows whose label is 1.
        auc: over all its rows.
        logloss: mean, in nats.
        normalised_entropy: the logloss over that of the segment's own rate.
        calibration: predicted over true positives.
        calibration_error: expected calibration error over ten bins of equal numbers of rows.
        gauc_weighted: mean AUC of users, weighted by impressions.
        gauc_mean: plain mean AUC of users.
        covered_users: share of the users that these two are over.
        covered_impressions: share of the impressions that are theirs.
    """

    task: str
    segment: str
    rows: int
    users: int
    positives: int
    auc: float | None
    logloss: float | None
    normalised_entropy: float | None
    calibration: float | None
    calibration_error: float | None
    gauc_weighted: float | None
    gauc_mean: float | None
    covered_users: float
    covered_impressions: float


def tasks(events: Events, rows: np.ndarray, predictions: Predictions) -> list[Task]:
    """Clicks on all rows; conversions on clicked rows, and with the click on all rows.

    Args:
        events: the log.
        rows: ``<int64>[n]``, the rows that were predicted.
        predictions: of these rows, in their order.

    Raises:
        RelandError: other numbers of predictions than of rows, or conversions that the log does not have.
    """
    for name, predicted in predictions._asdict().items():
        if predicted is not None and np.shape(predicted) != np.shape(rows):
            raise RelandError(
                f"{np.shape(predicted)} predictions of {name} for {len(rows):,} rows; one each is needed"
            )
    names = [each.name for each in events.schema.labels]
    click = events.labels[names[0]][rows]
    found = [Task(CTR, rows, click, predictions.click)]
    if predictions.conversion is None:
        return found
    if len(names) < 2 or events.schema.labels[1].given != names[0]:
        raise RelandError(
            f"the log has no second label that is given {names[0]!r}, so no conversion to judge"
        )
    conversion, clicked = events.labels[names[1]][rows], click == 1
    return [
        *found,
        Task(CVR, rows[clicked], conversion[clicked], predictions.conversion[clicked]),
        Task(CTCVR, rows, conversion, predictions.click * predictions.conversion),
    ]


def evaluate(
    events: Events, rows: np.ndarray, predictions: Predictions, levels: Levels | None = None
) -> list[Quality]:
    """Every task on all rows, per scenario and, where levels are given, per level.

    Args:
        events: the log.
        rows: ``<int64>[n]``, the rows that were predicted, such as those of testing.
        predictions: of these rows, in their order.
        levels: of the users.

    Raises:
        RelandError: see `tasks` and `metrics.checked`.
    """
    return evaluate_tasks(events, tasks(events, rows, predictions), levels)


def evaluate_tasks(events: Events, judged: Sequence[Task], levels: Levels | None = None) -> list[Quality]:
    """The same of tasks that are at hand.

    Args:
        events: the log.
        judged: what is judged against what.
        levels: of the users.

    Raises:
        RelandError: see `metrics.checked`.
    """
    found = []
    for task in judged:
        for segment, mask in _segments(events, task.rows, levels):
            user = events.user[task.rows[mask]]
            found.append(measure(task.name, segment, user, task.label[mask], task.score[mask]))
    return found


def measure(task: str, segment: str, user: np.ndarray, label: np.ndarray, score: np.ndarray) -> Quality:
    """Every metric of some rows.

    Args:
        task: its name.
        segment: its name.
        user: ``<int>[n]``.
        label: ``<int>[n]`` of 0 and 1.
        score: ``<float>[n]``, probabilities.

    Raises:
        RelandError: see `metrics.checked`.
    """
    grouped = metrics.grouped_auc(user, label, score)
    return Quality(
        task, segment, len(label), grouped.users, int(np.sum(label)),
        metrics.auc(label, score), metrics.logloss(label, score), metrics.normalised_entropy(label, score),
        metrics.calibration(label, score), metrics.calibration_error(label, score),
        grouped.weighted, grouped.mean, grouped.covered_users, grouped.covered_impressions,
    )  # fmt: skip


def _segments(events: Events, rows: np.ndarray, levels: Levels | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and mask ``<bool>[n]`` of every segment of rows."""
    yield "all", np.ones(len(rows), bool)
    if len(events.scenario.name) > 1:
        for code, name in enumerate(events.scenario.name.tolist()):
            yield f"scenario {name}", events.scenario.code[rows] == code
    if levels is not None:
        for code, name in enumerate(NAMES):
            yield name, levels.level[events.user[rows]] == code
