"""Times of every type, with their exact order, unit and range, and what is not a time."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.times import Times, times
from reland_jax.types import RelandError

DAY = datetime.date(2021, 3, 4)
MOMENT = datetime.datetime(2021, 3, 4, 5, 6, 7)


def _times(values: Any, kind: Any = None) -> tuple[Times, list[str]]:
    notes: list[str] = []
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return times(Column("when", array, lambda row: f"x.csv:{row + 2}"), notes), notes


@pytest.mark.parametrize(
    ("values", "unit", "first"),
    [
        ([1_600_000_000, 1_600_000_001], "seconds", "2020-09-13T12:26:40"),
        (["1600000000.5", "1600000001.5"], "seconds", "2020-09-13T12:26:40"),
        ([1_600_000_000_000, 1_600_000_000_001], "milliseconds", "2020-09-13T12:26:40"),
        ([1_600_000_000_000_000, 1_600_000_000_000_001], "microseconds", "2020-09-13T12:26:40"),
        (
            [1_600_000_000_000_000_000, 1_600_000_000_000_000_001],
            "nanoseconds",
            "2020-09-13T12:26:40",
        ),
        ([0, 1], "", "0"),
        ([-5.5, 2.0], "", "-5.5"),
        ([DAY, DAY + datetime.timedelta(1)], "dates", "2021-03-04"),
        (["2021-03-04", "2021-03-05"], "ISO times", "2021-03-04T00:00:00"),
        (["1066-10-14 09:00:00", "2021-03-05 09:00:00"], "ISO times", "1066-10-14T09:00:00"),
        (
            ["2021-03-04T05:06:07+02:00", "2021-03-04T05:06:07Z"],
            "ISO times",
            "2021-03-04T03:06:07",
        ),
        (
            ["2021-03-04 05:06:07 UTC", "2021-03-04 05:06:08.5 UTC"],
            "ISO times",
            "2021-03-04T05:06:07",
        ),
        ([MOMENT, MOMENT.replace(microsecond=1)], "timestamps", "2021-03-04T05:06:07"),
        ([Decimal("1600000000.25"), Decimal("1600000000.50")], "seconds", "2020-09-13T12:26:40"),
        ([datetime.timedelta(1), datetime.timedelta(2)], "microseconds", "1970-01-02T00:00:00"),
    ],
)
def test_the_order_unit_and_range(values: list[Any], unit: str, first: str) -> None:
    got, notes = _times(values)
    assert got.order[0] < got.order[1] and (got.unit, got.first) == (unit, first) and not notes


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.uint64(), pa.string(), pa.decimal128(38, 3), pa.timestamp("ns")]
)
@pytest.mark.parametrize("start", [1_700_000_000_000_000_000, (1 << 63) - 9])
def test_neighbours_that_are_one_float_stay_apart(kind: Any, start: int) -> None:
    numbers = pa.array([start + step for step in (5, 3, 4, 3, 8)], pa.int64())
    got, _ = _times(numbers.cast(kind))
    order = np.unique(got.order, return_inverse=True)[1]
    assert order.tolist() == [2, 0, 1, 0, 3]


def test_decimals_with_more_digits_than_a_float_keeps() -> None:
    got, _ = _times(["1600000000.000000002", "1600000000.000000001", "1.6e9", "1600000000"])
    assert np.unique(got.order, return_inverse=True)[1].tolist() == [2, 1, 0, 0] and got.unit == "seconds"
    assert _times([str((1 << 64) - 1), str((1 << 64) - 2)])[0].order.argsort().tolist() == [1, 0]


def test_mixed_units_are_reported() -> None:
    _, notes = _times([1_600_000_000, 1_600_000_000_000, 1_600_000_000_001])
    assert "its times look like 1 of seconds, 2 of milliseconds; mixed units have no common" in notes[0]
    _, notes = _times([1_600_000_000, 0, 0])
    assert "1 of seconds, 2 of no known unit, such as 0" in notes[0]
    for same in ([1, 2, 3], [0, 86_400], [631_152_000, 4_102_444_800]):
        assert _times(same)[1] == []


def test_zones_as_databases_write_them() -> None:
    texts = ["2024-05-31 12:00:00.5 +0200", "2024-05-31 11:00:00 UTC", "2024-05-31 09:30:00+00"]
    assert np.argsort(_times(texts)[0].order).tolist() == [2, 0, 1]
    with pytest.raises(RelandError, match=r"x\.csv:3: 'when' is 'noon GMT', which is"):
        _times(["2024-05-31 11:00:00 UTC", "noon GMT"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["3", ""], r"x\.csv:3: 'when' is empty; every interaction needs a time.*time_field= for the order"),
        (["3", "soon"], r"x\.csv:3: 'when' is 'soon', which is not a number, as the times before"),
        (["soon"], r"x\.csv:2: 'when' is 'soon', which is neither a number nor an ISO time such as"),
        (["3", "NaN"], r"x\.csv:3: 'when' is 'NaN'"),
        (["3", "inf"], r"x\.csv:3: 'when' is 'inf'"),
        (["16", "0x10"], r"x\.csv:3: 'when' is '0x10'"),
        (["1", "1_000"], r"x\.csv:3: 'when' is '1_000'"),
        (["2021-03-04", "04.03.2021"], r"x\.csv:3: 'when' is '04\.03\.2021', which is neither"),
        (["2021-03-04", "5"], r"x\.csv:3: 'when' is '5', which is not written as .* '2021-03-04'"),
        (
            ["2021-03-04T05:06:07Z", "2021-03-04T05:06:07"],
            r"x\.csv:3: .*which is not written as the times before",
        ),
        (["2021-02-30"], r"x\.csv:2: 'when' is '2021-02-30', which is neither"),
        ([1.0, None], r"x\.csv:3: 'when' is empty"),
        ([1.0, float("-inf")], r"x\.csv:3: 'when' is -inf"),
        ([[1]], r"column 'when' holds list<.*which is not a time"),
    ],
)
def test_what_is_no_time_is_reported_with_its_place(values: list[Any], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        _times(values)


def test_no_rows() -> None:
    for kind in (pa.string(), pa.int64(), pa.timestamp("ns"), pa.null()):
        assert len(_times([], kind)[0].order) == 0
