"""Ids, ratings and texts of every type."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.values import MISSING, ids, ratings, texts
from reland_jax.types import RelandError


def _column(values: Any, kind: Any = None) -> Column:
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
    return Column("who", array, lambda row: f"x.parquet: row {row + 1}")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "7", "1.0", "None", "null"], ["007", "7", "1.0", "None", "null"]),
        ([1_000_000_001_000.0, 7.0, -0.0], ["1000000001000", "7", "0"]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([Decimal("1.00"), Decimal("2.50")], ["1", "2.50"]),
        ([2**63 - 1, -3], ["9223372036854775807", "-3"]),
        ([b"u1", b"u2"], ["u1", "u2"]),
        ([True, False], ["true", "false"]),
        ([datetime.date(2021, 3, 4)], ["2021-03-04"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.chunked_array([["b"], ["a", "b"]]), ["b", "a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([uuid.UUID(int=7).bytes], pa.uuid()), ["00000000-0000-0000-0000-000000000007"]),
        (pa.array([b"u1", b"u2"], pa.binary(2)), ["u1", "u2"]),
        (pa.array([1.0, 16_777_215.0], pa.float32()), ["1", "16777215"]),
    ],
)
def test_ids_keep_what_was_written(values: Any, expected: list[str]) -> None:
    got = ids(_column(values))
    assert got.name[got.code].tolist() == expected and len(set(got.name)) == len(got.name)


@pytest.mark.parametrize("mark", sorted(MISSING))
def test_marks_of_missing_values_are_no_ids(mark: str) -> None:
    with pytest.raises(RelandError, match=r"row 3: 'who' is '.*', a missing value"):
        ids(_column(["u", "v", mark]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["u", None], r"row 2: 'who' is empty; every interaction needs a user and an item"),
        (["u", " "], r"row 2: 'who' is empty"),
        ([1.0, float("nan")], r"row 2: 'who' is nan, a missing value"),
        ([1.0, float("inf")], r"row 2: 'who' is inf, a missing value"),
        ([1.0, 2.0**60], r"row 2: 'who' is 1.15.*store them as integers"),
        (["u", "v\0"], r"row 2: 'who' holds a NUL character"),
        ([["u"]], r"column 'who' holds list"),
        ([b"\xff"], r"column 'who' holds no UTF-8 text"),
        (pa.array([b"\xff\xfe"], pa.binary(2)), r"column 'who' holds no UTF-8 text"),
        (pa.array([1.0, 16_777_216.0], pa.float32()), r"row 2: .*store them as integers"),
        ([None, None], r"row 1: 'who' is empty"),
    ],
)
def test_what_is_no_id_is_reported_with_its_row(values: list[Any], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        ids(_column(values))


@pytest.mark.parametrize(
    "values",
    [
        ["4", "", "nan", " -1 "],
        ["4", "NULL", "N/A", "-1"],
        [4.0, None, float("nan"), -1.0],
        [4, None, None, -1],
    ],
)
def test_ratings_may_be_missing(values: list[Any]) -> None:
    assert str(ratings(_column(values)).tolist()) == "[4.0, nan, nan, -1.0]"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["4", "PG-13"], r"row 2: 'who' is 'PG-13', which is not a number"),
        ([4.0, float("inf")], r"row 2: 'who' is infinite"),
        ([[4]], r"holds list"),
    ],
)
def test_what_is_no_rating_is_reported(values: list[Any], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        ratings(_column(values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None, "nan"], ["a", "", "nan"]),
        ([["a", "b"], None, []], ['["a", "b"]', "", ""]),
        ([{"n": "a"}, None], ['{"n": "a"}', ""]),
        ([1999.0, None, 2.5], ["1999", "", "2.5"]),
        ([7, None], ["7", ""]),
        ([None, None], ["", ""]),
    ],
)
def test_texts_are_kept_as_they_were_written(values: list[Any], expected: list[str]) -> None:
    got = texts(_column(values))
    assert got.name[got.code].tolist() == expected


@pytest.mark.parametrize("read", [ids, texts, ratings])
def test_no_rows(read: Callable[[Column], Any]) -> None:
    got = read(_column([], pa.string()))
    assert len(got.code if hasattr(got, "code") else got) == 0
