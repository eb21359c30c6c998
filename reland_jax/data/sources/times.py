"""Times as numbers whose order is exact: integers, decimals, dates, ISO texts, and Parquet's types."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.values import is_number, is_text, plain
from reland_jax.types import RelandError

_UNITS = {"seconds": ("s", 1), "milliseconds": ("ms", 10**3), "microseconds": ("us", 10**6)}
_UNITS |= {"nanoseconds": ("ns", 10**9)}
_EARLIEST, _LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100
_DIGITS = 15
"""Decimal digits that a float64 always keeps."""


class Times(NamedTuple):
    """When interactions happened.

    Attributes:
        order: ``<int64>[n]``, ``<uint64>[n]`` or ``<float64>[n]``; compares as the times do.
        unit: in words: "seconds" and the like of numbers, "ISO times" of texts, "timestamps" or "dates" of
            types that say so; "" where it is not known, which does no harm.
        first: the earliest, for people.
        last: the latest, for people.
    """

    order: np.ndarray
    unit: str
    first: str
    last: str


def times(column: Column, notes: list[str]) -> Times:
    """The times of a column.

    Args:
        column: numbers of any type, timestamps with or without a zone, dates, durations, or texts of numbers
            or ISO times.
        notes: remarks for the account of the loading are added to it.

    Raises:
        RelandError: a missing or meaningless value, with its place, or a type that holds no times.
    """
    import pyarrow as pa

    values = plain(column)
    if is_text(values.type):
        return _of_texts(column, values, notes)
    if len(missing := np.flatnonzero(values.is_null().to_numpy())):
        raise RelandError(f"{column.place(int(missing[0]))}: {column.name!r} is empty; {_NEEDED}")
    if pa.types.is_temporal(values.type) and not pa.types.is_time(values.type):
        return _of_type(values)
    if pa.types.is_decimal(values.type):
        return _of_decimals([Decimal(value) for value in values.to_pylist()], column.name, notes)
    if pa.types.is_integer(values.type):
        return _of_numbers(values.to_numpy(), column.name, notes)
    if pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64()).to_numpy()
        if len(bad := np.flatnonzero(~np.isfinite(numbers))):
            row = int(bad[0])
            raise RelandError(f"{column.place(row)}: {column.name!r} is {numbers[row]}; {_NEEDED}")
        return _of_numbers(numbers, column.name, notes)
    raise RelandError(
        f"{column.place(0)}: column {column.name!r} holds {values.type}, which is not a time; {_OTHER}"
    )


_NEEDED = "every interaction needs a time, or set config.data.time_field= for the order of the file"
_OTHER = "name another column by config.data.time_field, or leave it empty for the order of the file"


def _of_type(values: Any) -> Times:
    """Times of an Arrow type that says what they are."""
    import pyarrow as pa

    if pa.types.is_date(values.type):
        unit, letter = "dates", "D" if values.type == pa.date32() else "ms"
        values = values.cast(pa.int32()) if letter == "D" else values
    else:
        letter = values.type.unit
        named = next(name for name, (short, _) in _UNITS.items() if short == letter)
        unit = "timestamps" if pa.types.is_timestamp(values.type) else named
    order = values.cast(pa.int64()).to_numpy()
    if not len(order):
        return Times(order, unit, "", "")
    return Times(order, unit, _iso(int(order.min()), letter), _iso(int(order.max()), letter))


def _of_numbers(numbers: np.ndarray, name: str, notes: list[str]) -> Times:
    """Times of which only the size tells the unit."""
    if numbers.dtype.kind in "iu" and numbers.dtype != np.uint64:
        numbers = numbers.astype(np.int64)
    if not len(numbers):
        return Times(numbers, "", "", "")
    low, high = numbers.min(), numbers.max()
    units = [unit for unit in _UNITS if _like(numbers, unit).any()]
    if len(units) == 1 and _like(numbers, units[0]).all():
        letter, _ = _UNITS[units[0]]
        return Times(numbers, units[0], _iso(int(low), letter), _iso(int(high), letter))
    if units:
        counts = [f"{_like(numbers, unit).sum():,} of {unit}" for unit in units]
        neither = ~np.any([_like(numbers, unit) for unit in units], axis=0)
        counts += (
            [f"{neither.sum():,} of no known unit, such as {numbers[neither][0]}"] if neither.any() else []
        )
        notes.append(
            f"column {name!r}: its times look like {', '.join(counts)}; mixed units have no common order, "
            "and a number that stands for a missing time is the first or last of all"
        )
    return Times(numbers, "", f"{low}", f"{high}")


def _like(numbers: np.ndarray, unit: str) -> np.ndarray:
    """Which numbers are times between 1990 and 2100 in a unit."""
    scale = _UNITS[unit][1]
    return (numbers >= _EARLIEST * scale) & (numbers <= _LATEST * scale)


def _iso(number: int, letter: str) -> str:
    whole, _, fraction = str(np.int64(number).view(f"M8[{letter}]")).partition(".")
    return f"{whole}.{fraction}" if fraction.strip("0") else whole


def _of_texts(column: Column, values: Any, notes: list[str]) -> Times:
    """Times of a text file, or of strings in Parquet."""
    import pyarrow as pa
    from pyarrow import compute

    trimmed = compute.utf8_trim_whitespace(values)
    if not trimmed.null_count:
        hexadecimal = compute.any(compute.match_substring(trimmed, "x", ignore_case=True)).as_py()
        for kind in () if hexadecimal else (pa.int64(), pa.uint64(), pa.float64()):
            try:
                numbers = trimmed.cast(kind).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                continue
            if kind == pa.float64() and not np.isfinite(numbers).all():
                break
            longest = compute.max(compute.utf8_length(trimmed)).as_py() or 0
            if kind == pa.float64() and longest > _DIGITS:
                return _of_decimals([Decimal(text) for text in trimmed.to_pylist()], column.name, notes)
            return _of_numbers(numbers, column.name, notes)
        written = _as_iso(trimmed)
        for kind in (
            pa.timestamp("ns"),
            pa.timestamp("ns", "UTC"),
            pa.timestamp("us"),
            pa.timestamp("us", "UTC"),
        ):
            try:
                return _of_type(written.cast(kind))._replace(unit="ISO times")
            except pa.ArrowInvalid:
                continue
    raise _first_fault(column, trimmed)


def _as_iso(texts: Any) -> Any:
    """Times with their zone as ISO has it, where databases write " UTC" or " +0000"."""
    from pyarrow import compute

    texts = compute.replace_substring_regex(texts, r"(\d) ?(?:UTC|GMT)$", r"\1Z")
    return compute.replace_substring_regex(texts, r"(\d) ([+-]\d\d:?\d\d)$", r"\1\2")


def _first_fault(column: Column, trimmed: Any) -> RelandError:
    """The error that names the first text that is not what the first row is, a number or an ISO time."""
    import pyarrow as pa

    texts, written = trimmed.to_pylist(), _as_iso(trimmed).to_pylist()
    numbers = bool(texts) and is_number(texts[0] or "")
    zone = ""
    if not numbers and texts and texts[0]:
        zone = "UTC" if re.search(r"\d(?:Z|[+-]\d\d(?::?\d\d)?)$", written[0]) and ":" in written[0] else ""
    kind = pa.timestamp("us", zone) if zone else pa.timestamp("us")
    for row, text in enumerate(texts):
        if not text:
            return RelandError(f"{column.place(row)}: {column.name!r} is empty; {_NEEDED}")
        if is_number(text) if numbers else _is_time(written[row], kind):
            continue
        what = (
            "not a number, as the times before it are"
            if numbers and row
            else ("neither a number nor an ISO time such as 2024-05-31T12:00:00")
        )
        if is_number(text) or (zone and row):
            what = f"not written as the times before it are, such as {texts[0]!r}"
        do = f"correct or remove this row, {_OTHER}" if row else _OTHER
        return RelandError(f"{column.place(row)}: {column.name!r} is {text!r}, which is {what}; {do}")
    return RelandError(f"{column.place(0)}: column {column.name!r} cannot be read as times; {_OTHER}")


def _is_time(text: str, kind: Any) -> bool:
    import pyarrow as pa

    try:
        pa.scalar(text).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _of_decimals(numbers: list[Decimal], name: str, notes: list[str]) -> Times:
    """Numbers with more digits than a float64 keeps: their ranks, which keep the order."""
    try:
        distinct = sorted(set(numbers))
    except InvalidOperation:  # signalling NaNs
        raise RelandError(f"column {name!r}: not all times are numbers; {_OTHER}") from None
    rank = {number: place for place, number in enumerate(distinct)}
    order = np.array([rank[number] for number in numbers], np.int64)
    rough = _of_numbers(np.array(distinct[:1] + distinct[-1:], np.float64), name, notes)
    return rough._replace(order=order)
