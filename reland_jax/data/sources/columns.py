"""Finds the columns of users, items and times: those named by the settings, else the usual names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from reland_jax.config import TEXT_FIELDS, DataConfig, nearest_name
from reland_jax.types import RelandError

_LIKE_A_TIME = re.compile(r"time|date|stamp|(?:^|_)(?:ts|day|at)$", re.IGNORECASE)
_LIKE_A_VALUE = re.compile(r"(?=\D*\d)[-+.:\dTZ]+")
_SHOWN = 20
_LONGEST = 60


class Frame(NamedTuple):
    """A table whose columns are known before its rows are read.

    Attributes:
        where: the file or files, for messages.
        columns: names of its columns.
        read: gives the columns that are named as a ``pyarrow.Table``, with values as they are stored: strings
            in a text file, any type in Parquet.
        place: words for where a row is, such as ``ratings.csv:17``; slow, for messages only.
        header: where the names of its columns stand, for messages; "" for `where`.
    """

    where: str
    columns: Sequence[str]
    read: Callable[[Sequence[str]], Any]
    place: Callable[[int], str]
    header: str = ""

    @property
    def named(self) -> str:
        """Where the names of its columns stand."""
        return self.header or self.where


class Frames(NamedTuple):
    """The tables of a data set, before anything is taken from them.

    Attributes:
        log: the interactions.
        items: what describes the items, or None.
        users: what describes the users, or None.
        notes: remarks for the account of the loading.
    """

    log: Frame
    items: Frame | None
    users: Frame | None
    notes: list[str]


class Column(NamedTuple):
    """One column of a frame.

    Attributes:
        name: as the file has it.
        values: Arrow (chunked) array.
        place: see `Frame`.
    """

    name: str
    values: Any
    place: Callable[[int], str]


class Usual(NamedTuple):
    """Default names of a format's columns; the first one that exists is used.

    Attributes:
        user: names of the user column.
        item: names of the item column.
        time: names of the time column.
        rating: names of the rating column.
        split: names of the column that says train, valid or test.
        ordered: whether a file without a time column is in the order of time by its nature, as sets are.
    """

    user: tuple[str, ...] = ("user_id", "userId", "userid")
    item: tuple[str, ...] = ("item_id", "itemId", "itemid", "movieId")
    time: tuple[str, ...] = ("timestamp",)
    rating: tuple[str, ...] = ("rating",)
    split: tuple[str, ...] = ()
    ordered: bool = False


class Roles(NamedTuple):
    """Columns of a frame by role; None if there is none, or none is needed.

    Attributes:
        user: of the users.
        item: of the items.
        time: of the times.
        rating: of the ratings, where there is a threshold.
        split: of the parts of a fixed split.
    """

    user: str
    item: str
    time: str | None
    rating: str | None
    split: str | None

    def used(self) -> list[str]:
        """The names of all of them."""
        return [name for name in self if name is not None]


def roles_of(frame: Frame, usual: Usual, config: DataConfig, notes: list[str]) -> Roles:
    """The columns that the settings name, else those of the usual names.

    Args:
        frame: the interactions.
        usual: names of the format.
        config: `user_field`, `item_field`, `time_field`, `rating_field`, `min_rating` and `split_field`.
        notes: remarks for the account of the loading are added to it.

    Raises:
        RelandError: a column that was asked for or is needed is not there; those that are there are named.
    """
    roles = Roles(
        _needed("user_field", config, usual, frame, notes),
        _needed("item_field", config, usual, frame, notes),
        _time(config, usual, frame, notes),
        _rating(config, usual, frame, notes),
        _split(config, usual, frame, notes),
    )
    used = roles.used()
    for name in used:
        if used.count(name) > 1:
            raise RelandError(
                f"{frame.named}: column {name!r} cannot be two things; {_there_are(frame)}; user_field, "
                "item_field, time_field and rating_field name different ones"
            )
    return roles


def _split(config: DataConfig, usual: Usual, frame: Frame, notes: list[str]) -> str | None:
    """The column of the parts of a fixed split; one that is named is read by the protocol "fixed" only."""
    if config.split_field and config.protocol == "fixed":
        return require(config.split_field, "config.data.split_field", frame, notes)
    return next((name for each in usual.split if (name := find(each, "split", frame, notes))), None)


def find(name: str, setting: str, frame: Frame, notes: list[str]) -> str | None:
    """The column of a name, or of one that differs from it in case or spaces alone, which is noted.

    Raises:
        RelandError: several columns have it, or differ from it in case or spaces alone.
    """
    if name in frame.columns:
        refuse_twice([name], frame)
        return name
    alike = [column for column in frame.columns if column.strip().casefold() == name.strip().casefold()]
    if len(alike) > 1:
        raise RelandError(
            f"{frame.named}: no column {name!r}, and {listed(alike)} are like it; name the one that is meant "
            f"by its exact name ({setting})"
        )
    if alike:
        notes.append(f"{frame.named}: column {alike[0]!r} was taken for {name!r} ({setting})")
    return alike[0] if alike else None


def refuse_twice(names: Iterable[str], frame: Frame) -> None:
    """Raises `RelandError` where two columns have one of these names, so that neither can be meant."""
    times = Counter(frame.columns)
    if twice := [name for name in names if times[name] > 1]:
        raise RelandError(f"{frame.named}: a column name appears twice: {twice[0]!r}; rename one of them")


def require(name: str, setting: str, frame: Frame, notes: list[str]) -> str:
    """`find`, where the column must be there.

    Raises:
        RelandError: it is not; those that are there are named.
    """
    found = find(name, setting, frame, notes)
    if found is None:
        hint = nearest_name(name, list(frame.columns)) if 0 < len(frame.columns) <= _SHOWN else ""
        hint = f"; {hint}" if hint.startswith("did") else ""
        raise RelandError(f"{frame.named}: no column {name!r} ({setting}); {_there_are(frame)}{hint}")
    return found


def text_columns(
    frame: Frame, config: DataConfig, taken: Sequence[str], notes: list[str], elsewhere: Sequence[str] = ()
) -> dict[str, str]:
    """The columns of the interactions that describe items: field name -> column.

    Args:
        frame: the interactions.
        config: `text_fields`.
        taken: columns that are something else.
        notes: remarks for the account of the loading are added to it.
        elsewhere: fields that the table of the items has.

    Raises:
        RelandError: a field that was asked for is nowhere; the columns that are there are named.
    """
    found: dict[str, str] = {}
    for field in config.text_fields:
        if field in elsewhere:
            if field in frame.columns:
                notes.append(f"column {field!r} is taken from the table of items, and nowhere else")
            continue
        column = find(field, "config.data.text_fields", frame, notes)
        if column in found.values():
            raise RelandError(f"{frame.named}: config.data.text_fields names column {column!r} twice")
        if column is not None and column not in taken:
            found[field] = column
        elif config.text_fields != TEXT_FIELDS:
            names = [*elsewhere, *(name for name in frame.columns if name not in taken)]
            what = "is not a text of an item" if column else "is not there"
            raise RelandError(
                f"{frame.named}: column {field!r} of config.data.text_fields {what}; columns that can "
                f"describe items are {listed(names) or 'none'}{_hint(field, names)}"
            )
    return found


def listed(names: Sequence[str]) -> str:
    """Some names in quotes, long ones cut, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    shown = (name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:_SHOWN])
    return ", ".join(map(repr, shown)) + more


def _needed(setting: str, config: DataConfig, names: Usual, frame: Frame, notes: list[str]) -> str:
    """The user or item column."""
    asked, usual = {
        "user_field": (config.user_field, names.user), "item_field": (config.item_field, names.item)
    }[setting]  # fmt: skip
    where = f"config.data.{setting}"
    if asked:
        return require(asked, where, frame, notes)
    exact = [name for name in usual if name in frame.columns]
    found = next((name for each in exact or usual if (name := find(each, where, frame, notes))), None)
    if found is None:
        raise RelandError(
            f"{frame.named}: no column {usual[0]!r}; {_there_are(frame)}; say which it is by --{where}=COLUMN"
            f"{_likewise(setting, config, names, frame)}"
        )
    return found


def _likewise(setting: str, config: DataConfig, names: Usual, frame: Frame) -> str:
    """Further columns that are needed and not there, so that one start tells them all."""
    if _there_are(frame) != f"the columns are {listed(frame.columns)}":
        return ""  # what is wrong is not the names
    roles = {"user_field": names.user, "item_field": names.item}
    roles |= {} if names.ordered else {"time_field": names.time}
    there = {column.strip().casefold() for column in frame.columns}
    lacking = [
        f"--config.data.{role}=COLUMN for {usual[0]!r}"
        for role, usual in roles.items()
        if role != setting and getattr(config, role) is None
        and not there & {name.casefold() for name in usual}
    ]  # fmt: skip
    return f"; likewise {' and '.join(lacking)}" if lacking else ""


def _time(config: DataConfig, usual: Usual, frame: Frame, notes: list[str]) -> str | None:
    where = "config.data.time_field"
    if config.time_field is not None:
        return require(config.time_field, where, frame, notes) if config.time_field else None
    found = next((name for each in usual.time if (name := find(each, where, frame, notes))), None)
    if found is not None:
        return found
    alike = [name for name in frame.columns if _LIKE_A_TIME.search(name)]
    if usual.ordered and not alike:
        return None
    which = f"{listed(alike)} looks like one: " if alike else ""
    raise RelandError(
        f"{frame.named}: no column {usual.time[0]!r} for the times; {which}{_there_are(frame)}; say which "
        f"it is by --{where}=COLUMN, or --{where}= for the order of the file"
    )


def _rating(config: DataConfig, usual: Usual, frame: Frame, notes: list[str]) -> str | None:
    where = "config.data.rating_field"
    if config.rating_field:
        found: str | None = require(config.rating_field, where, frame, notes)
        if config.min_rating is not None:
            return found
        notes.append(f"column {found!r} ({where}) is not looked at, since config.data.min_rating is not set")
    if config.min_rating is None:
        return None
    found = next((name for each in usual.rating if (name := find(each, where, frame, notes))), None)
    if found is None:
        raise RelandError(
            f"{frame.named}: config.data.min_rating={config.min_rating} needs a column {usual.rating[0]!r}; "
            f"{_there_are(frame)}; say which it is by --{where}=COLUMN, or leave min_rating out"
        )
    return found


def _there_are(frame: Frame) -> str:
    """The columns there are, and what may be wrong where their names do not look like any."""
    if not frame.columns:
        return "the file is empty"
    there_are = f"the columns are {listed(frame.columns)}"
    if len(frame.columns) == 1 and frame.header:
        return f"{there_are}, in which no delimiter was found (config.data.delimiter names one)"
    if any(_LIKE_A_VALUE.fullmatch(name.strip()) for name in frame.columns):
        return f"{there_are}, which looks like a row; a first line with the names of the columns is needed"
    return there_are


def _hint(name: str, known: Sequence[str]) -> str:
    hint = nearest_name(name, known[:_SHOWN]) if known else ""
    return f"; {hint}" if hint.startswith("did") else ""
