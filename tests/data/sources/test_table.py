"""CSV and Parquet tables with named columns."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from reland_jax.config import DataConfig
from reland_jax.data.sources import table
from reland_jax.types import RelandError

CONFIG = DataConfig(user_field="who", item_field="what", time_field="when", text_fields=("title",))
CSV = 'who,what,when,title,note\nu,i,3,"Soap, ""fine""\nbar",a\nv,i,1,"Soap, ""fine""\nbar",b\nv,j,2,,c\n'


def _csv(folder: Path, text: str) -> str:
    path = folder / "sales.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _parquet(folder: Path, **columns: Any) -> str:
    path = folder / "sales.parquet"
    parquet.write_table(pa.table(columns), path)
    return str(path)


def test_reads_a_quoted_csv(tmp_path: Path) -> None:
    got = table.read(_csv(tmp_path, CSV), CONFIG)
    assert got.user.name[got.user.code].tolist() == ["u", "v", "v"]
    assert got.item.name[got.item.code].tolist() == ["i", "i", "j"]
    assert got.time is not None and got.time.tolist() == [3, 1, 2]
    assert got.rating is None and got.item_features is not None
    assert got.item_features.ids.tolist() == ["i", "j"]
    assert {name: list(value) for name, value in got.item_features.fields.items()} == {
        "title": ['Soap, "fine"\nbar', ""]
    }


def test_reads_the_same_from_parquet(tmp_path: Path) -> None:
    when = [datetime.datetime(2020, 1, 1, 0, 0, second) for second in (3, 1)]
    place = _parquet(tmp_path, who=[7, 8], what=["i", "j"], when=when, rating=[4, 5], title=["Soap", None])
    got = table.read(place, dataclasses.replace(CONFIG, min_rating=1.0))
    assert got.user.name[got.user.code].tolist() == ["7", "8"]
    assert got.time is not None and got.time[0] - got.time[1] == 2_000_000
    assert got.rating is not None and got.rating.tolist() == [4, 5]
    assert got.item_features is not None
    assert got.item_features.fields["title"].tolist() == ["Soap", ""]


def test_no_time_field_means_file_order(tmp_path: Path) -> None:
    config = DataConfig(user_field="who", item_field="what", time_field="")
    assert table.read(_csv(tmp_path, "who,what\nu,i\n"), config).time is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,what,wen\nu,i,1\n", r"sales\.csv:1: no column 'when' .*did you mean 'wen'"),
        ("", r"sales\.csv: no column 'who' .*the file is empty"),
        ("who,what,when,who\nu,i,1,u\n", r"sales\.csv:1: a column name appears twice"),
        (CSV + "w,j,late,,c\n", r"sales\.csv:7: 'when' is 'late', which is not a number"),
        (CSV + "w,,4,,c\n", r"sales\.csv:7: 'what' is empty"),
        (CSV + "w,j,4\n", r"sales\.csv:7: 3 fields where the columns are 5"),
        (CSV + "w,i,4,Brush,c\n", r"'i' is described twice.*sales\.csv:3\) and .*sales\.csv:7"),
    ],
)
def test_csv_faults_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        table.read(_csv(tmp_path, text), CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"who": ["u", None]}, r"row 2: 'who' is empty; every interaction needs"),
        ({"who": [1.0, float("nan")]}, r"row 2: 'who' is nan, a missing value"),
        ({"who": [1.0, 2.0**53]}, r"row 2: 'who' is 9007199254740992.0: .*store them as integers"),
        ({"who": [["a"], ["b"]]}, r"row 1: column 'who' holds list<.*ids are texts or numbers"),
        ({"what": ["", "j"]}, r"row 1: 'what' is empty"),
        ({"what": ["i", "NaN"]}, r"row 2: 'what' is 'NaN', a missing value"),
        ({"when": [1.0, float("nan")]}, r"row 2: 'when' is nan; every interaction needs a time"),
        ({"when": [None, 1.0]}, r"row 1: 'when' is empty; every interaction needs a time"),
        ({"when": ["1", "x"]}, r"row 2: 'when' is 'x', which is not a number"),
        ({"when": [datetime.time(1), datetime.time(2)]}, r"row 1: column 'when' holds time64.*no time"),
        ({"when": [True, False]}, r"row 1: column 'when' holds bool, which is no time"),
    ],
)
def test_parquet_faults_name_the_row(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    columns = {"who": ["u", "v"], "what": ["i", "j"], "when": [1.0, 2.0], "title": ["a", "b"], **changes}
    with pytest.raises(RelandError, match=message):
        table.read(_parquet(tmp_path, **columns), CONFIG)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(RelandError, match=r"x\.parquet: not a readable Parquet file"):
        table.read(str(tmp_path / "x.parquet"), CONFIG)
    with pytest.raises(RelandError, match=r"no column 'what'"):
        table.read(_parquet(tmp_path, who=["u"], when=[1]), CONFIG)
