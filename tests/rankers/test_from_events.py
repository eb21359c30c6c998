"""Columns side by side, and the same by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.rankers.from_events import field_schema, named_columns
from reland_jax.rankers.schema import Field, check_batch


class Encoding:
    """An encoded log with features of every kind."""

    lengths = {"tags": 2, "history": 3}

    def names(self, kind: str) -> list[str]:
        return {"categorical": ["item_id", "brand"], "numeric": ["age"], "multi": ["tags", "history"]}[kind]

    def rows_of(self, name: str) -> int:
        return {"item_id": 9, "brand": 4, "tags": 5}[name]

    def vocabulary(self, name: str) -> str:
        return "item_id" if name == "history" else name


class Columns(NamedTuple):
    """Its rows."""

    categorical: np.ndarray
    numeric: np.ndarray
    multi: tuple[np.ndarray, ...]
    labels: np.ndarray
    user: np.ndarray
    item: np.ndarray
    weight: np.ndarray


def test_columns_get_their_names() -> None:
    schema = field_schema(Encoding(), ("click", "conversion"))
    assert schema.features == (
        Field("item_id", "categorical", 9),
        Field("brand", "categorical", 4),
        Field("age", "numeric"),
        Field("tags", "multi", 5, length=2),
        Field("history", "sequence", length=3, shares="item_id"),
    )
    rows = np.arange(4, dtype=np.int32)
    columns = Columns(
        np.stack([2 * rows, rows], 1), np.full((4, 1), 0.5, np.float32),
        (np.ones((4, 2), np.int32), np.full((4, 3), 8, np.int32)),
        np.array([[1, 0]] * 4, np.float32), rows + 10, rows + 20, np.ones(4, np.float32),
    )  # fmt: skip
    batch = named_columns(schema, columns)
    check_batch(schema, batch)
    for name, expected in (
        ("item_id", 2 * rows), ("brand", rows), ("age", np.full(4, 0.5)), ("tags", np.ones((4, 2))),
        ("history", np.full((4, 3), 8)), ("click", np.ones(4)), ("conversion", np.zeros(4)),
        ("user_row", rows + 10), ("item_row", rows + 20), ("weight", np.ones(4)),
    ):  # fmt: skip
        np.testing.assert_array_equal(batch[name], expected)
