"""A log larger than memory, gone through file by file: what is kept of it, and what is counted of the rest.

Rows of validation and testing are kept, as a log with the ids of the whole. Of training rows is kept
what does not grow with their number: vocabularies and scales, how many have which labels, and the activity of
users; and of the clicks by which users are matched, who clicked what and when. The rows go to shards.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.finding import locate
from reland_jax.data.sources import table
from reland_jax.events.build import described
from reland_jax.events.contract import Events, Schema, Values, without
from reland_jax.events.days import Days, spans_of
from reland_jax.events.encoding import Encoding, Seen, seen
from reland_jax.events.leaks import refuse_leaks
from reland_jax.events.levels import activity_of
from reland_jax.events.parts import together
from reland_jax.events.shards import read_shards, write_encoded
from reland_jax.events.values import positions
from reland_jax.files import checksum
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, RelandError

_REMARKS = 10
"""Remarks that are told of all files together."""


class Files(NamedTuple):
    """The files of a log; each of the impressions' fits into memory.

    Attributes:
        log: impressions, in any order.
        users: tables of features of users.
        items: tables of features of items.
    """

    log: tuple[Path, ...]
    users: tuple[Path, ...]
    items: tuple[Path, ...]

    def checksums(self) -> list[list[str]]:
        """SHA-256 of every file."""
        return [[checksum(path) for path in side] for side in self]


class Survey(NamedTuple):
    """What one look at every file finds.

    Attributes:
        ids: of the whole log, in the order of their first appearance.
        first: its first day, since 1970.
        last: its last day.
    """

    ids: IdMap
    first: int
    last: int


class Division(NamedTuple):
    """How the rows of a file are divided.

    Attributes:
        days: of training, validation and testing.
        spans: the same as numbers, see `spans_of`.
        warm_until: training rows before this day are of behaviour alone.
    """

    days: Days
    spans: Sequence[tuple[int, int]]
    warm_until: int

    @property
    def is_warm(self) -> bool:
        """Whether users are matched by days before training."""
        return self.warm_until > self.spans[0][0]

    def rows(self, events: Events) -> list[np.ndarray]:
        """Rows ``<int64>[n]`` of behaviour before training, training, validation and testing."""
        (first, last), valid, test = self.spans
        day, begin = events.day(), max(first, self.warm_until)
        spans = ((first, begin - 1), (begin, last), valid, test)
        return [np.arange(*np.searchsorted(day, [from_, to + 1])) for from_, to in spans]


class Clicks(NamedTuple):
    """Clicks by which users are matched, in the order of time: ``<int32>[n]`` twice and ``<int64>[n]``."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


class Training(NamedTuple):
    """What is known of the rows that are not kept.

    Attributes:
        seen: what vocabularies and scales are made of; None without training rows.
        labels: how many training rows have which labels.
        activity: see `activity_of`, of training rows.
        impressions: see `activity_of`.
        clicks: of the days before training, or of the training rows where there are no such days.
    """

    seen: Seen | None
    labels: Counter[tuple[int, ...]]
    activity: np.ndarray
    impressions: np.ndarray
    clicks: Clicks

    def joined(self, other: Training) -> Training:
        """That of both."""
        clicks = (np.concatenate(both) for both in zip(self.clicks, other.clicks, strict=True))
        counted = [each.seen for each in (self, other) if each.seen]
        return Training(
            reduce(Seen.joined, counted) if counted else None, self.labels + other.labels,
            self.activity + other.activity, self.impressions + other.impressions, Clicks(*clicks),
        )  # fmt: skip


class Streamed(NamedTuple):
    """A log of which most rows stay in its files.

    Attributes:
        files: where they are.
        schema: what is read.
        dropped: features that are read and are none of a ranker, such as texts.
        division: of the rows.
        training: what is known of those that are not kept.
    """

    files: Files
    schema: Schema
    dropped: tuple[str, ...]
    division: Division
    training: Training


def files_of(config: DataConfig) -> Files:
    """The files of a log in CSV or Parquet.

    Raises:
        RelandError: there is no such log, or it is of another format.
    """
    found = locate(config)
    if found.source != "table":
        raise RelandError(
            f"{config.name!r} is read as {found.source}; a log that is streamed is a file or a folder of CSV "
            "or Parquet files (set config.log.streamed=False for others)"
        )
    place = Path(found.place)
    items, users = table.described(config, place if place.is_dir() else place.parent)
    log = [path for path in table.files(found.place, config) if path not in (users, items)]
    return Files(tuple(log), (users,) if users else (), (items,) if items else ())


def survey(files: Files, schema: Schema) -> Survey:
    """Ids and days of a log, by its columns of users, items, times and labels.

    Raises:
        RelandError: see `read_shards`.
    """
    plain = dataclasses.replace(schema, features=())
    users: dict[str, None] = {}
    items: dict[str, None] = {"": None}
    days: list[int] = []
    for part in read_shards(files.log, plain):
        users |= dict.fromkeys(part.ids.users.tolist())
        items |= dict.fromkeys(part.ids.items.tolist())
        days += part.day()[[0, -1]].tolist()
    return Survey(IdMap(as_strings([*users]), as_strings([*items])), min(days), max(days))


def catalogue(files: Files, schema: Schema, ids: IdMap) -> Events:
    """The log without rows and features of the context: every user and item with what describes them.

    Raises:
        RelandError: see `described`.
    """
    notes: list[str] = []
    features: dict[str, Values] = {}
    for side, paths, names in (("user", files.users, ids.users), ("item", files.items, ids.items)):
        frames = [table.of_file(path, DataConfig()) for path in paths]
        features |= described(side, frames, names, schema, notes)
    first = next(read_shards(files.log[:1], dataclasses.replace(schema, features=())))
    empty = first.take(np.zeros(0, np.int64))
    return empty._replace(schema=schema, features=features, ids=ids, notes=tuple(notes))


def go_through(
    files: Files, whole: Events, division: Division, dropped: Collection[str]
) -> tuple[Events, Streamed]:
    """Keeps the rows of validation and testing, and counts those of training.

    Args:
        files: of the log.
        whole: of `catalogue`.
        division: of the rows.
        dropped: features that a ranker does not read.

    Returns:
        The rows that are kept, in the order of time, and all that is known of the others.

    Raises:
        RelandError: see `read_shards` and `refuse_leaks`, the latter for every file on its own; or there is
            no row for training, validation or testing.
    """
    held, counted, notes = [], [], dict.fromkeys(whole.notes)
    for part in _parts(files, whole.schema, dropped):
        warm, train, *others = division.rows(part)
        notes |= dict.fromkeys(part.notes)
        if any(map(len, others)):
            held.append(_with_ids(part.take(np.concatenate(others)), whole.ids))
        if len(train) or len(warm):
            counted.append(_counted(part, warm if division.is_warm else train, train, whole.ids))
    training = reduce(Training.joined, counted) if counted else None
    if training is None or training.seen is None or not held:
        what = "validation and testing" if training and training.seen else "training"
        raise RelandError(f"the log has no rows for {what}: choose other days")
    training = training._replace(clicks=_in_order(training.clicks))
    kept = _described_rows(together(held), whole, tuple(notes))
    return kept, Streamed(files, whole.schema, tuple(dropped), division, training)


def write_training(streamed: Streamed, encoding: Encoding, ids: IdMap, folder: Path) -> None:
    """Encodes the training rows of every file into a shard of the folder; a file is in memory at a time."""
    parts = _parts(streamed.files, streamed.schema, streamed.dropped)
    for number, part in enumerate(parts):
        rows = streamed.division.rows(part)[1]
        if len(rows):
            write_encoded(encoding, part.take(rows), folder / f"{number:06d}.parquet", ids)


def _parts(files: Files, schema: Schema, dropped: Collection[str]) -> Iterator[Events]:
    for part in read_shards(files.log, schema, files.users, files.items):
        yield without(part, dropped)


def _with_ids(part: Events, ids: IdMap) -> Events:
    """Rows of a part by the ids of the whole, without features of users and items."""
    user, item = (positions(mine, every) for mine, every in zip(part.ids, ids, strict=True))
    features = {each.name: part.features[each.name] for each in part.schema.of_side("context")}
    return part._replace(
        user=user[part.user].astype(np.int32), item=item[part.item].astype(np.int32), ids=ids,
        features=features,
    )  # fmt: skip


def _counted(part: Events, behaviour: np.ndarray, train: np.ndarray, ids: IdMap) -> Training:
    """What is kept of the rows of a part by which users are matched, and on which rankers are trained."""
    refuse_leaks(part, train)
    named = [each.name for each in part.schema.labels]
    labels = np.stack([part.labels[name][train] for name in named], 1)
    distinct, counts = np.unique(labels, axis=0, return_counts=True)
    mine = _with_ids(part, ids)
    clicked = behaviour[part.labels[named[0]][behaviour] == 1]
    known = seen(part, train) if len(train) else None
    return Training(
        known, Counter(dict(zip(map(tuple, distinct.tolist()), counts.tolist(), strict=True))),
        *activity_of(mine, train), Clicks(mine.user[clicked], mine.item[clicked], mine.time[clicked]),
    )  # fmt: skip


def _in_order(clicks: Clicks) -> Clicks:
    order = np.argsort(clicks.time, kind="stable")
    return Clicks(*(each[order] for each in clicks))


def _described_rows(rows: Events, whole: Events, notes: Sequence[str]) -> Events:
    """Rows with the features of all users and items, in the order of time."""
    context = {each.name for each in rows.schema.of_side("context")}
    features = {
        each.name: (rows if each.name in context else whole).features[each.name]
        for each in rows.schema.features
    }
    told = [*notes[:_REMARKS], *([f"and {len(notes) - _REMARKS:,} remarks more on files of the log"]
                                 if len(notes) > _REMARKS else [])]  # fmt: skip
    every = rows._replace(features=features, notes=tuple(told))
    return every.take(np.argsort(every.time, kind="stable"))


def division_of(days: Days, found: Survey, warm_days: int) -> Division:
    """How rows are divided by days.

    Raises:
        RelandError: see `spans_of`, or the days before training leave none to train on.
    """
    spans = spans_of(days, found.first, found.last)
    first, last = spans[0]
    if first + warm_days > last:
        raise RelandError(
            f"config.log.warm_days={warm_days} leaves nothing to train on: training has {last - first + 1} "
            "days"
        )
    return Division(days, spans, first + warm_days)
