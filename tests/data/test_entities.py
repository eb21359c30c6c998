"""Entities of items, numbered by hand."""

from __future__ import annotations

import numpy as np

from reland_jax.data import item_entities
from reland_jax.types import IdMap, Interactions


def interactions(features: dict[str, list[str]]) -> Interactions:
    """Four items and no users."""
    none = np.zeros(0, np.int32)
    columns = {name: np.array(values, dtype=object) for name, values in features.items()}
    return Interactions(none, none, none, IdMap(none, np.array(["", *"abcd"])), columns, {})


def test_values_are_numbered_column_by_column() -> None:
    """"B" the brand and "B" the category are two entities; a value that is not known is none."""
    data = interactions({"brand": ["", "B", "", "A", "B"], "categories": ["", "B", "X > Y", "", "X > Y"]})
    found = item_entities(data, ("brand", "categories"))
    np.testing.assert_array_equal(found, [[-1, 1, -1, 0, 1], [-1, 2, 3, -1, 3]])
    np.testing.assert_array_equal(item_entities(data, ("categories",)), [[-1, 0, 1, -1, 1]])
    assert found.dtype == np.int32


def test_columns_that_say_nothing_are_left_out() -> None:
    data = interactions({"brand": [""] * 5, "categories": ["", "x", "x", "x", "x"]})
    found = item_entities(data, ("brand", "genres", "categories"))
    np.testing.assert_array_equal(found, [[-1, 0, 0, 0, 0]])
    assert item_entities(data, ()).shape == item_entities(data, ("brand",)).shape == (0, 5)
