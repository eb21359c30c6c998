"""The days of a log as artefacts: what is made for a day can read earlier days and nothing else.

A stage reads the stages that it declares, and those made for a day declare the logs of earlier days alone.
What is joined of them is compared with the day's beginning once more.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ranking.logs import Log, Parts, read_log
from reland_jax import events
from reland_jax.artefacts import fingerprint
from reland_jax.events import Events
from reland_jax.events.contract import DAY_MS
from reland_jax.events.parts import catalogue_of, joined, load_rows, save_rows
from reland_jax.events.storing import load_events, save_events
from reland_jax.flow import Codec, Job, Stage
from reland_jax.ranker_settings import LogConfig
from reland_jax.types import RelandError

_HOUR_MS = 3_600_000


@functools.lru_cache(maxsize=1)
def whole_log(config: LogConfig) -> Log:
    """The log of the settings, read once per process.

    Raises:
        RelandError: it is to be streamed; or see `read_log`.
    """
    if config.streamed:
        raise RelandError("config.log.streamed=True: a deployment reads its log at once; set it to False")
    return read_log(config)


def iso(day: int) -> str:
    """A day since 1970 as it is written."""
    return str(np.datetime64(day, "D"))


def beginning(catalogue: Events, day: int) -> int:
    """When a day begins by the clock of the log, in milliseconds since 1970 in UTC."""
    return day * DAY_MS - round(catalogue.schema.utc_offset_hours * _HOUR_MS)


def days_of(config: LogConfig) -> list[int]:
    """The days from the log's first one to its last, each of which must have rows.

    Raises:
        RelandError: one has none.
    """
    day = whole_log(config).events.day()
    found = list(range(int(day[0]), int(day[-1]) + 1))
    if missing := [each for each in found if not np.searchsorted(day, each + 1) - np.searchsorted(day, each)]:
        raise RelandError(f"the log has no rows on {iso(missing[0])}; a deployment needs every day")
    return found


def log_state(config: LogConfig) -> list[Any]:
    """The settings of a log, and the files of one that is read."""
    place = Path(config.root or ".") / config.name
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []
    return [config, *([str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files)]


def catalogue_stage(config: LogConfig) -> Stage[Events]:
    """What is known of users and items, and no row of the log."""
    return Stage(
        "catalogue",
        reads=(),
        settings=lambda _: log_state(config),
        run=lambda job: catalogue_of(whole_log(config).events),
        codec=lambda job: Codec(save_events, load_events),
        identify=lambda made: fingerprint(made.ids.users, made.ids.items),
    )


def log_stage(config: LogConfig, catalogue: Stage[Events], day: int) -> Stage[Events]:
    """The rows of one day."""

    def run(job: Job) -> Events:
        log = whole_log(config).events
        first, end = np.searchsorted(log.day(), [day, day + 1])
        return log.take(np.arange(first, end))

    return Stage(
        f"log/{iso(day)}",
        reads=(catalogue,),
        settings=lambda _: [*log_state(config), day],
        run=run,
        codec=lambda job: Codec(save_rows, functools.partial(load_rows, job[catalogue])),
        identify=lambda made: fingerprint(made.user, made.item, made.time, *made.labels.values()),
    )


def before(job: Job, catalogue: Stage[Events], logs: Sequence[Stage[Events]], day: int) -> Events:
    """The log before a day.

    Args:
        job: of a stage that reads the others.
        catalogue: the stage of users and items.
        logs: stages of days.
        day: the one that something is made for.

    Raises:
        RelandError: the logs have rows of this day, or of a later one.
    """
    found = joined([job[catalogue], *(job[each] for each in logs)])
    events.refuse_later(found, beginning(found, day), f"what is made for {iso(day)}")
    return found


def as_training(log: Log, rows: Events) -> Log:
    """Some rows as a log all of which is for training."""
    nothing = np.zeros(0, np.int64)
    parts = Parts(np.arange(rows.num_rows), nothing, nothing, "all rows")
    return log._replace(events=rows, parts=parts)
