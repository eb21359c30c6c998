"""Splits of a log by days: training before validation before testing, with gaps where they are asked for."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from reland_jax.events.contract import Events
from reland_jax.types import RelandError


class Days(NamedTuple):
    """First and last day of each part, as ISO dates by the clock of the schema.

    Attributes:
        train: ("", day) begins with the log.
        valid: first and last day.
        test: (day, "") goes on to the end of the log.
    """

    train: tuple[str, str]
    valid: tuple[str, str]
    test: tuple[str, str]


class DaySplit(NamedTuple):
    """Rows of each part of a log, increasing.

    Attributes:
        train: ``<int64>[n]``.
        valid: ``<int64>[n]``.
        test: ``<int64>[n]``.
        days: first and last day of each part as asked for.
        left_out: rows in none of them.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    days: Days
    left_out: int


def split_days(events: Events, days: Days) -> DaySplit:
    """Splits a log by days.

    Args:
        events: the log.
        days: of the parts. Days between two parts are a gap: their rows are left out and counted.

    Raises:
        RelandError: not a date, parts that overlap or stand in another order, or a part without rows.
    """
    day = _days_of(events)
    spans = spans_of(days, int(day[0]), int(day[-1]))
    train, valid, test = (np.arange(*np.searchsorted(day, [first, last + 1])) for first, last in spans)
    for name, part in zip(days._fields, (train, valid, test), strict=True):
        if not len(part):
            raise RelandError(
                f"days: no rows in {name}, {' to '.join(getattr(days, name))}; the log has "
                f"{_iso(int(day[0]))} to {_iso(int(day[-1]))}"
            )
    left_out = events.num_rows - len(train) - len(valid) - len(test)
    return DaySplit(train, valid, test, days, left_out)


def spans_of(days: Days, first_day: int, last_day: int) -> list[tuple[int, int]]:
    """First and last day of training, validation and testing, since 1970.

    Args:
        days: of the parts.
        first_day: of the log.
        last_day: of the log.

    Raises:
        RelandError: not a date, or parts that overlap or stand in another order.
    """
    spans = [_numbers(part, first_day, last_day, name) for name, part in days._asdict().items()]
    for (name, (_, last)), (after, (first, _)) in pairwise(zip(days._fields, spans, strict=True)):
        if first <= last:
            raise RelandError(
                f"days: {after} begins on {_iso(first)}, which is not after the last day of {name}, "
                f"{_iso(last)}"
            )
    return spans


def last_days(events: Events, valid: int = 1, test: int = 1, gap: int = 0) -> Days:
    """The days of the usual split: the last ones for testing, those before them for validation.

    Args:
        events: the log.
        valid: see `days_between`.
        test: see `days_between`.
        gap: see `days_between`.

    Raises:
        RelandError: it has no rows, or see `days_between`.
    """
    day = _days_of(events)
    return days_between(int(day[0]), int(day[-1]), valid, test, gap)


def days_between(first: int, last: int, valid: int = 1, test: int = 1, gap: int = 0) -> Days:
    """`last_days` of a log by its first and last day.

    Args:
        first: day since 1970.
        last: day since 1970.
        valid: days of validation, at least 1.
        test: days of testing, at least 1.
        gap: days between two parts that are left out.

    Raises:
        RelandError: a number that is too small, or no day is left for training.
    """
    if valid < 1 or test < 1 or gap < 0:
        raise RelandError(f"valid={valid} and test={test} must be at least 1, and gap={gap} at least 0")
    test_from = last - test + 1
    valid_to = test_from - gap - 1
    train_to = valid_to - valid - gap
    if train_to < first:
        raise RelandError(
            f"the log has {last - first + 1} days, {_iso(first)} to {_iso(last)}: none is left "
            f"for training beside {valid} of validation, {test} of testing and gaps of {gap}"
        )
    return Days(("", _iso(train_to)), (_iso(valid_to - valid + 1), _iso(valid_to)), (_iso(test_from), ""))


def _days_of(events: Events) -> np.ndarray:
    if not events.num_rows:
        raise RelandError("the log has no rows, and so no days to split it by")
    return events.day()


def _numbers(part: tuple[str, str], first_day: int, last_day: int, name: str) -> tuple[int, int]:
    """First and last day of a part, since 1970."""
    found = []
    for written, otherwise in zip(part, (first_day, last_day), strict=True):
        try:
            found.append(int(np.datetime64(written, "D").astype(np.int64)) if written else otherwise)
        except ValueError:
            raise RelandError(
                f"days: {name} has {written!r}, which is not a date such as 2022-05-04"
            ) from None
    if found[0] > found[1]:
        raise RelandError(f"days: {name} ends on {part[1] or _iso(found[1])}, before it begins")
    return found[0], found[1]


def _iso(day: int) -> str:
    return str(np.datetime64(day, "D"))
