"""Settings that name columns work for every format, or are an error that names the columns there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from reland_jax.config import DataConfig
from reland_jax.data import load_interactions
from reland_jax.types import RelandError

Columns = Mapping[str, list[Any]]


def _rows(columns: Columns) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in zip(*columns.values(), strict=True)]


def _text(path: Path, columns: Columns, delimiter: str, header: bool = True) -> Path:
    lines = ([tuple(columns)] if header else []) + _rows(columns)
    path.write_text("".join(delimiter.join(line) + "\n" for line in lines), "utf-8")
    return path


def _csv(folder: Path, columns: Columns) -> Path:
    return _text(folder / "x.csv", columns, ",")


def _parquet(folder: Path, columns: Columns) -> Path:
    parquet.write_table(pa.table(dict(columns)), folder / "x.parquet")
    return folder / "x.parquet"


def _inter(folder: Path, columns: Columns) -> Path:
    return _text(folder / "x.inter", {f"{name}:token": values for name, values in columns.items()}, "\t")


def _dat(folder: Path, columns: Columns) -> Path:
    return _text(folder / "ratings.dat", columns, "::", header=False)


def _data(folder: Path, columns: Columns) -> Path:
    return _text(folder / "u.data", columns, "\t", header=False)


def _amazon(folder: Path, columns: Columns) -> Path:
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    (folder / "reviews_X_5.json").write_text("\n".join(lines) + "\n")
    return folder / "reviews_X_5.json"


OWN = ("user_id", "item_id", "rating", "timestamp")
FORMATS: Mapping[str, tuple[Callable[[Path, Columns], Path], tuple[str, ...]]] = {
    "csv": (_csv, OWN),
    "parquet": (_parquet, OWN),
    "inter": (_inter, OWN),
    "ratings.dat": (_dat, OWN),
    "u.data": (_data, OWN),
    "amazon": (_amazon, ("reviewerID", "asin", "overall", "unixReviewTime")),
}
VALUES = (["u", "u", "v"], ["i", "j", "i"], [5, -1, 2], [30, 20, 10])


@pytest.mark.parametrize("name", FORMATS)
def test_columns_are_found_by_their_own_names_and_by_the_settings(tmp_path: Path, name: str) -> None:
    write, names = FORMATS[name]
    place = write(tmp_path, dict(zip(names, VALUES, strict=True)))
    fields = dict(zip(("user_field", "item_field", "rating_field", "time_field"), names, strict=True))
    base: dict[str, Any] = {"name": str(place), "min_interactions": 0}
    for asked in ({}, fields):
        got = load_interactions(DataConfig(**base, **asked))
        assert got.item.tolist() == [2, 1, 1] and got.time.tolist() == [20, 30, 10]
        kept = load_interactions(DataConfig(**base, **asked, min_rating=2.0))
        assert kept.report is not None
        assert kept.report.dropped[:2] == (("without a rating", 0), ("rated below 2", 1))
    in_order = load_interactions(DataConfig(**base, time_field=""))
    assert in_order.item.tolist() == [1, 2, 1] and in_order.report is not None
    assert "time" not in in_order.report.columns


@pytest.mark.parametrize("setting", ["user_field", "item_field", "time_field", "rating_field", "text_fields"])
@pytest.mark.parametrize("name", [*FORMATS, "demo"])
def test_a_column_that_is_not_there_is_an_error_with_those_that_are(
    tmp_path: Path, name: str, setting: str
) -> None:
    write, names = FORMATS.get(name, (None, ("user_id", "item_id", "timestamp")))
    place = "demo" if write is None else write(tmp_path, dict(zip(names, VALUES, strict=True)))
    wrong = ("nowhere",) if setting == "text_fields" else "nowhere"
    # All others are taken for something, so that no column is left to describe an item.
    listed = "" if setting == "text_fields" else re.escape(repr(names[0]))
    with pytest.raises(RelandError, match=rf"column 'nowhere'.*{setting}.*{listed}"):
        load_interactions(DataConfig(name=str(place), min_interactions=0, **{setting: wrong}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_items_and_users_may_have_tables_in_every_format(tmp_path: Path, name: str) -> None:
    write, names = FORMATS[name]
    place = write(tmp_path, dict(zip(names, VALUES, strict=True)))
    for table, column, value in (("items.csv", names[1], "i"), ("users.csv", names[0], "v")):
        (tmp_path / table).write_text(f"colour,{column}\nred,{value}\n")
    config = DataConfig(
        name=str(place), min_interactions=0, item_table="items.csv", user_table="users.csv",
        text_fields=("colour",),
    )  # fmt: skip
    got = load_interactions(config)
    assert got.item_features["colour"].tolist() == ["", "red", ""]
    assert got.user_features["colour"].tolist() == ["", "red"]
    assert got.report is not None and (got.report.matched_items, got.report.items_with_text) == (1, 1)
