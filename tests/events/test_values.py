"""Columns of values: positions of names, rows of tables, and lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import Feature, Multi
from reland_jax.events.values import at_rows, column_of, positions
from reland_jax.strings import as_strings
from reland_jax.types import RelandError


def _column(*values: object) -> Column:
    return Column("c", pa.chunked_array([pa.array(list(values))]), lambda row: f"f:{row + 1}")


def _lists(values: object) -> list[list[str]]:
    assert isinstance(values, Multi)
    return [values.name[values.rows.row(row)].tolist() for row in range(values.rows.num_rows)]


def test_positions_of_names() -> None:
    among = as_strings(["b", "", "a"])
    assert positions(as_strings(["a", "c", "b", ""]), among).tolist() == [2, -1, 0, 1]
    assert positions(np.array([], object), among).tolist() == []
    assert positions(as_strings(["a"]), as_strings([])).tolist() == [-1]


def test_names_are_trimmed_and_kept_once() -> None:
    found = column_of(Feature("x", "categorical", "user"), _column("b ", "a", None, "b", ""))
    assert isinstance(found, Tokens)
    assert found.name.tolist() == ["", "a", "b"] and found.code.tolist() == [2, 1, 0, 2, 0]


def test_numbers_and_what_is_none() -> None:
    feature = Feature("x", "numeric", "user")
    np.testing.assert_array_equal(column_of(feature, _column("1.5", "", " 2 ")), [1.5, np.nan, 2.0])
    np.testing.assert_array_equal(column_of(feature, _column(1, None, 3)), [1, np.nan, 3])
    message = r"f:2: 'c' is 'many', which is not a number \(numeric feature 'x'\)"
    with pytest.raises(RelandError, match=message):
        column_of(feature, _column("1", "many"))


@pytest.mark.parametrize(
    "values", [("a, b", "", "b,,c ", None, "a, b"), (["a", "b"], [], ["b", "c"], None, ["a", "b"])]
)
def test_lists_of_texts_and_of_parquet(values: tuple[object, ...]) -> None:
    found = column_of(Feature("x", "multi", "user", separator=","), _column(*values))
    assert _lists(found) == [["a", "b"], [], ["b", "c"], [], ["a", "b"]]


def test_lists_of_numbers_and_of_nothing() -> None:
    feature = Feature("x", "multi", "user")
    assert _lists(column_of(feature, _column([3, 14], None))) == [["3", "14"], []]
    assert _lists(column_of(feature, _column("", None))) == [[], []]


def test_a_row_that_is_not_there_has_no_value() -> None:
    rows = np.array([1, -1, 0])
    tokens = at_rows(Tokens(np.array([0, 1], np.int32), as_strings(["p", "q"])), rows)
    assert isinstance(tokens, Tokens) and tokens.name[tokens.code].tolist() == ["q", "", "p"]
    np.testing.assert_array_equal(at_rows(np.array([5.0, 6.0]), rows), [6, np.nan, 5])
    lists = column_of(Feature("x", "multi", "user"), _column("a b", "c"))
    assert _lists(at_rows(lists, rows)) == [["c"], [], ["a", "b"]]
