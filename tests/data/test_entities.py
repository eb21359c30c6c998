"""Entities of items, numbered by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.data import item_entities
from reland_jax.types import IdMap, Interactions, RelandError


def interactions(features: dict[str, list[str]]) -> Interactions:
    """Four items and no users."""
    none = np.zeros(0, np.int32)
    columns = {name: np.array(values, dtype=object) for name, values in features.items()}
    return Interactions(none, none, none, IdMap(none, np.array(["", *"abcd"])), columns, {})


def test_values_are_numbered_column_by_column() -> None:
    """ "B" the brand and "B" the category are two entities; a value that is not known is none."""
    data = interactions({"brand": ["", "B", "", "A", "B"], "categories": ["", "B", "X > Y", "", "X > Y"]})
    found = item_entities(data, ("brand", "categories"))
    np.testing.assert_array_equal(found, [[-1, 1, -1, 0, 1], [-1, 2, 3, -1, 3]])
    np.testing.assert_array_equal(item_entities(data, ("categories",)), [[-1, 0, 1, -1, 1]])
    assert found.dtype == np.int32


def test_columns_that_say_nothing_are_left_out() -> None:
    data = interactions({"brand": [""] * 5, "categories": ["", "x", "x", "x", "x"]})
    found = item_entities(data, ("brand", "categories"))
    np.testing.assert_array_equal(found, [[-1, 0, 0, 0, 0]])
    assert item_entities(data, ()).shape == item_entities(data, ("brand",)).shape == (0, 5)
    assert item_entities(interactions({}), ("brand", "categories")).shape == (0, 5), "the default ones"


def test_a_column_that_is_not_there_is_refused() -> None:
    data = interactions({"genre": ["", "x", "x", "x", "x"]})
    message = "config.model.entities: .* no column 'genres'; .* did you mean 'genre'"
    with pytest.raises(RelandError, match=message):
        item_entities(data, ("genres", "brand"))


def test_values_are_read_as_what_they_say() -> None:
    """A list is what it holds, "nan" is not a value, and the case of a name does not matter."""
    data = interactions({"Brand": ["", "nan", "['X']", "X", "x" * 100_000]})
    np.testing.assert_array_equal(item_entities(data, ("brand",)), [[-1, -1, 0, 0, 1]])
