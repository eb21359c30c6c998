"""The contract of an event log: who was shown what, when and where, and what came of it, in columns.

A schema declares every column that is read and what it is. Nothing is guessed: in a log of impressions most
columns are outcomes (such as the seconds watched), and one that were taken for a feature would leak.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from reland_jax.config import nearest_name
from reland_jax.data.sources.raw import Tokens
from reland_jax.types import IdMap, Ragged, RelandError

KINDS = ("categorical", "numeric", "multi")
SIDES = ("user", "item", "context")
USER_ID, ITEM_ID, SCENARIO = "user_id", "item_id", "scenario"
BUILT_IN = (USER_ID, ITEM_ID, SCENARIO)
"""Categorical features that every log has without a declaration."""
BATCH_COLUMNS = ("user_row", "item_row", "weight")
"""What else a batch has by name, beside features and labels."""

DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


@dataclasses.dataclass(frozen=True)
class Feature:
    """A declared feature.

    Attributes:
        name: what it is called from here on.
        kind: one of `KINDS`; a multi-valued one holds any number of categories.
        side: what it describes, one of `SIDES`; a context feature has a value in every row of the log.
        column: the column that is read; "" for the one of its name.
        separator: multi-valued, in text: what stands between two values.
        log: numeric: whether its size is taken as ``sign(x) log(1 + |x|)`` before it is scaled.
        shares: the feature whose vocabulary it uses, as a list of items uses "item_id"; "" for its own.
    """

    name: str
    kind: str
    side: str
    column: str = ""
    separator: str = " "
    log: bool = False
    shares: str = ""

    @property
    def read_from(self) -> str:
        """The column that is read."""
        return self.column or self.name


@dataclasses.dataclass(frozen=True)
class Label:
    """A declared label: what came of an impression, 0 or 1.

    Attributes:
        name: what it is called from here on.
        column: the column that is read; "" for the one of its name.
        at_least: values from this one on are 1; None where the column holds 0 and 1 alone.
        given: the label without which it cannot be 1, as there is no conversion without a click; "" for none.
            Rows that contradict it are counted, told, and 0.
    """

    name: str
    column: str = ""
    at_least: float | None = None
    given: str = ""

    @property
    def read_from(self) -> str:
        """The column that is read."""
        return self.column or self.name


@dataclasses.dataclass(frozen=True)
class Schema:
    """What is read of a log, and what it is.

    Attributes:
        user: column of the users' ids.
        item: column of the items' ids.
        time: column of the times.
        labels: in the order of the funnel; the first is the click.
        features: beside those of `BUILT_IN`.
        scenario: column of the scenario (page, tab, country); "" where there is one only.
        time_unit: "days", "seconds", "milliseconds", "microseconds" or "nanoseconds"; "" where the size of
            the times tells.
        utc_offset_hours: of the clock by which a day begins.
    """

    user: str
    item: str
    time: str
    labels: tuple[Label, ...]
    features: tuple[Feature, ...] = ()
    scenario: str = ""
    time_unit: str = ""
    utc_offset_hours: float = 0.0

    def __post_init__(self) -> None:
        """Checks that the parts fit together."""
        _check_labels(self.labels)
        _check_names(self)
        for feature in self.features:
            _check_feature(feature, self)

    def label(self, name: str) -> Label:
        """A label by its name.

        Raises:
            RelandError: there is none of that name.
        """
        found = next((each for each in self.labels if each.name == name), None)
        if found is None:
            known = [each.name for each in self.labels]
            raise RelandError(f"label {name!r} is not declared; {nearest_name(name, known)}")
        return found

    def of_side(self, side: str) -> list[Feature]:
        """The declared features of one of `SIDES`."""
        return [each for each in self.features if each.side == side]


class Multi(NamedTuple):
    """A multi-valued column.

    Attributes:
        rows: positions in `name`, ``r`` rows.
        name: ``<str>[m]``, the distinct values.
    """

    rows: Ragged
    name: np.ndarray


Values = Tokens | Multi | np.ndarray
"""A column of a feature: categorical, multi-valued, or numeric ``<float64>[r]`` with NaN for no value.

r is U for a feature of users, I + 1 for one of items (row 0 without a value), n for one of the context. The
categorical value "" stands for none.
"""


class Events(NamedTuple):
    """A log of impressions, in the order of time (rows of the same time in that of the files).

    Attributes:
        schema: what was read.
        user: ``<int32>[n]`` in ``0 .. U-1``.
        item: ``<int32>[n]`` in ``1 .. I``.
        time: ``<int64>[n]``, milliseconds since 1970 in UTC, not decreasing.
        scenario: ``n`` rows; "all" in each where the log has no scenarios.
        labels: name -> ``<int8>[n]`` of 0 and 1.
        features: name -> values, see `Values`.
        ids: external ids.
        notes: what was left out or changed, in words.
    """

    schema: Schema
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    scenario: Tokens
    labels: Mapping[str, np.ndarray]
    features: Mapping[str, Values]
    ids: IdMap
    notes: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """``n``."""
        return len(self.user)

    @property
    def num_users(self) -> int:
        """``U``."""
        return len(self.ids.users)

    @property
    def num_items(self) -> int:
        """``I``, without the padding item."""
        return len(self.ids.items) - 1

    def day(self) -> np.ndarray:
        """Days since 1970 by the clock of the schema, ``<int64>[n]``, not decreasing."""
        return (self.time + round(self.schema.utc_offset_hours * _HOUR_MS)) // DAY_MS

    def take(self, rows: np.ndarray) -> Events:
        """The log with some of its rows alone, in their order; users, items and ids stay.

        Args:
            rows: ``<int64>[m]``, increasing.
        """
        context = {each.name for each in self.schema.of_side("context")}
        return self._replace(
            user=self.user[rows], item=self.item[rows], time=self.time[rows],
            scenario=self.scenario._replace(code=self.scenario.code[rows]),
            labels={name: label[rows] for name, label in self.labels.items()},
            features={
                name: rows_of(values, rows) if name in context else values
                for name, values in self.features.items()
            },
        )  # fmt: skip

    def before(self, time: int) -> Events:
        """The log as it was at a time: rows earlier than ``time``, in milliseconds since 1970 in UTC."""
        return self.take(np.arange(np.searchsorted(self.time, time, side="left")))


def without(events: Events, names: Collection[str]) -> Events:
    """The log without some of its features.

    Raises:
        RelandError: there is no feature of a name.
    """
    declared = [each.name for each in events.schema.features]
    for name in names:
        if name not in declared:
            raise RelandError(f"feature {name!r} is not declared; {nearest_name(name, declared)}")
    left = tuple(each for each in events.schema.features if each.name not in names)
    return events._replace(
        schema=dataclasses.replace(events.schema, features=left),
        features={each.name: events.features[each.name] for each in left},
    )


def refuse_later(events: Events, until: int, purpose: str) -> None:
    """Refuses a log with rows that are not earlier than a time.

    Args:
        events: the log.
        until: milliseconds since 1970 in UTC.
        purpose: what the log is for, in words.

    Raises:
        RelandError: it has such rows; they are counted.
    """
    later = events.num_rows - int(np.searchsorted(events.time, until, side="left"))
    if later:
        raise RelandError(
            f"{purpose} may only see what was before {np.datetime64(until, 'ms')} UTC, and {later:,} of "
            f"{events.num_rows:,} rows are not; hand it events.before({until})"
        )


def rows_of(values: Values, rows: np.ndarray) -> Values:
    """Some rows of a column.

    Args:
        values: see `Values`.
        rows: ``<int64>[m]``.
    """
    if isinstance(values, Tokens):
        return values._replace(code=values.code[rows])
    if isinstance(values, Multi):
        return values._replace(rows=values.rows.take(rows))
    return values[rows]


def all_features(events: Events) -> dict[str, tuple[Feature, Values]]:
    """Every feature with its values, those of `BUILT_IN` first."""
    users, items = (Tokens(np.arange(len(ids), dtype=np.int32), ids) for ids in events.ids)
    found: dict[str, tuple[Feature, Values]] = {
        USER_ID: (Feature(USER_ID, "categorical", "user"), users),
        ITEM_ID: (Feature(ITEM_ID, "categorical", "item"), items),
        SCENARIO: (Feature(SCENARIO, "categorical", "context"), events.scenario),
    }
    return found | {each.name: (each, events.features[each.name]) for each in events.schema.features}


def row_in(side: str, events: Events) -> np.ndarray:
    """The row of each impression in the columns of a side, ``<int64>[n]`` or ``<int32>[n]``."""
    return {"user": events.user, "item": events.item, "context": np.arange(events.num_rows)}[side]


def rows_in(side: str, events: Events) -> int:
    """How many rows the columns of a side have: U, I + 1 or n."""
    return {"user": events.num_users, "item": events.num_items + 1, "context": events.num_rows}[side]


def _plain_name(name: str) -> str:
    """A name without what tells two spellings of it apart: "Is_Click" is "click"."""
    return name.strip().casefold().removeprefix("is_")


def _check_labels(labels: tuple[Label, ...]) -> None:
    if not labels:
        raise RelandError("the schema declares no label; one is needed, such as a click")
    before: list[str] = []
    for label in labels:
        if label.name in before:
            raise RelandError(f"label {label.name!r} is declared twice")
        if label.given and label.given not in before:
            raise RelandError(
                f"label {label.name!r} is given {label.given!r}, which is not declared before it "
                f"({', '.join(before) or 'nothing is'})"
            )
        before.append(label.name)


def _check_names(schema: Schema) -> None:
    names = [*BUILT_IN, *(each.name for each in schema.features)]
    taken = {*BATCH_COLUMNS, *BUILT_IN} & {each.name for each in schema.labels} | {*BATCH_COLUMNS} & {*names}
    if taken:
        raise RelandError(
            f"{min(taken)!r} is a column of every batch; give the label or feature another name"
        )
    for feature in schema.features:
        if names.count(feature.name) > 1:
            there_is = "every log has it anyway" if feature.name in BUILT_IN else "rename one of them"
            raise RelandError(f"feature {feature.name!r} is declared twice; {there_is}")


def _check_feature(feature: Feature, schema: Schema) -> None:
    """Refuses what is no kind or side, and a feature that is a label."""
    for what, value, known in (("kind", feature.kind, KINDS), ("side", feature.side, SIDES)):
        if value not in known:
            hint = nearest_name(value, known)
            raise RelandError(f"feature {feature.name!r}: {what} {value!r} is not known; {hint}")
    names = {
        _plain_name(name): label.name for label in schema.labels for name in (label.name, label.read_from)
    }
    for name in (feature.name, feature.read_from):
        if _plain_name(name) in names:
            raise RelandError(
                f"feature {feature.name!r} is the label {names[_plain_name(name)]!r}: it would be told what "
                "is to be predicted; take it out of the features"
            )
    own = [each.name for each in schema.features if each.kind != "numeric" and not each.shares]
    others = (*BUILT_IN, *own)
    if feature.shares and (feature.kind == "numeric" or feature.shares not in others):
        raise RelandError(
            f"feature {feature.name!r} cannot share the vocabulary of {feature.shares!r}; categorical and "
            f"multi-valued ones share that of {', '.join(others)}"
        )
