"""Interactions from memory are those that a file of the same rows would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from reland_jax.config import Config, DataConfig
from reland_jax.data import data_fingerprint, load_interactions, raw_state
from reland_jax.serve.given import with_data
from reland_jax.types import RelandError

USER = ["b", "a", "a", "b", "c", "c"]
ITEM = ["y", "x", "y", "x", "x", "y"]
TIME = [3, 1, 2, 4, 6, 5]
CONFIG = Config(data=DataConfig(min_interactions=0))


class Foreign:
    """A table of another library, which knows Arrow's protocol alone."""

    def __init__(self, table: pa.Table) -> None:
        """Of an Arrow table."""
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """What Arrow asks for."""
        return self._table.__arrow_c_stream__(requested_schema)


COLUMNS = {"user_id": np.array(USER), "item_id": np.array(ITEM), "timestamp": np.array(TIME)}
TABLE = pa.table({"user_id": USER, "item_id": ITEM, "timestamp": TIME})


@pytest.fixture
def from_file(tmp_path: Path) -> str:
    """The fingerprint of the same rows from a CSV file."""
    rows = zip(USER, ITEM, TIME, strict=True)
    lines = ["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in rows)]
    path = tmp_path / "purchases.csv"
    path.write_text("\n".join(lines) + "\n")
    return data_fingerprint(load_interactions(with_data(CONFIG, tmp_path, path, None, None).data))


@pytest.mark.parametrize("given", [COLUMNS, TABLE, Foreign(TABLE)])
def test_every_kind_of_table_is_the_same(given: Any, from_file: str, tmp_path: Path) -> None:
    config = with_data(CONFIG, tmp_path, given, None, None)
    assert data_fingerprint(load_interactions(config.data)) == from_file


def test_the_same_rows_are_the_same_file_wherever_they_come_from(tmp_path: Path) -> None:
    """So a second fit finds its stages up to date."""
    named = TABLE.replace_schema_metadata({"pandas": "{}"})
    files = [with_data(CONFIG, tmp_path / str(n), each, None, None) for n, each in enumerate((TABLE, named))]
    first, second = (raw_state(config.data) for config in files)
    assert first == second


def test_tables_of_items_and_users(tmp_path: Path) -> None:
    items = {"item_id": np.array(["x", "y"]), "title": np.array(["Rose soap", "Mint tea"])}
    users = {"user_id": np.array(["a", "b", "c"]), "city": np.array(["Bern", "Bonn", ""])}
    found = load_interactions(with_data(CONFIG, tmp_path, COLUMNS, items, users).data)
    assert found.item_features["title"].tolist() == ["", "Rose soap", "Mint tea"]
    assert found.user_features["city"].tolist() == ["Bern", "Bonn", ""]


def test_times_of_numpy(tmp_path: Path) -> None:
    times = np.array(TIME).astype("datetime64[D]")
    found = load_interactions(with_data(CONFIG, tmp_path, COLUMNS | {"timestamp": times}, None, None).data)
    assert found.item.tolist() == [1, 2, 2, 1, 2, 1]


def test_none_leaves_the_settings(tmp_path: Path) -> None:
    assert with_data(CONFIG, tmp_path, None, None, None) == CONFIG
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "interactions: a int is not a table; give a path"),
        ({"user_id": ["a"], "item_id": ["x", "y"]}, "interactions: not a table"),
        ({"user_id": [object()]}, "interactions: not a table"),
    ],
)
def test_what_is_no_table_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=message):
        with_data(CONFIG, tmp_path, given, None, None)
    assert not list(tmp_path.iterdir())


def test_pandas_with_an_index_of_its_own(from_file: str, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({name: list(column) for name, column in COLUMNS.items()}, index=[9, 8, 7, 6, 5, 4])
    config = with_data(CONFIG, tmp_path, frame, None, None)
    assert data_fingerprint(load_interactions(config.data)) == from_file
