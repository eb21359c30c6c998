"""RecBole atomic files: what is read, and every fault with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax.config import DataConfig
from reland_jax.data.sources import recbole
from reland_jax.types import RelandError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def _write(folder: Path, name: str, *lines: str) -> str:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_reads_columns_by_name_and_keeps_quotes(tmp_path: Path) -> None:
    place = _write(
        tmp_path, "x.inter", "timestamp:float\titem_id:token\trating:float\tuser_id:token\tsplit:token",
        '3.5\ti"1\t4\tu1\ttrain', "", "1\ti2\t5\tu2\tTest", '2\ti"1\t1\tu2\tvalidation',
    )  # fmt: skip
    _write(tmp_path, "x.item", "item_id:token\ttitle:token_seq\tprice:float",
           'i"1\t6" "nail" brush\t1.5', "i2\tÉclat, 'fine'\t")  # fmt: skip
    _write(tmp_path, "x.user", "user_id:token\tage:token", "u1\t25")
    table = recbole.read(place, DataConfig())
    assert table.user.name[table.user.code].tolist() == ["u1", "u2", "u2"]
    assert table.item.name[table.item.code].tolist() == ['i"1', "i2", 'i"1']
    assert table.time is not None and table.time.tolist() == [3.5, 1, 2]
    assert table.rating is not None and table.rating.tolist() == [4, 5, 1]
    assert table.split is not None and table.split.tolist() == [0, 2, 1]
    assert table.item_features is not None and table.user_features is not None
    assert table.item_features.fields["title"].tolist() == ['6" "nail" brush', "Éclat, 'fine'"]
    assert table.item_features.fields["price"].tolist() == ["1.5", ""]
    assert table.user_features.fields["age"].tolist() == ["25"]


def test_time_rating_split_and_features_are_optional(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", "user_id:token\titem_id:token", "u\ti")
    table = recbole.read(place, DataConfig())
    assert (table.time, table.rating, table.split) == (None, None, None)
    assert (table.item_features, table.user_features) == (None, None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["user_id:token\titem:token", "u\ti"], r"x\.inter:1: no column 'item_id'; .*did you mean 'item'"),
        ([], r"x\.inter:1: no column 'user_id'; .*the file is empty"),
        (["user_id:token\titem_id:text", "u\ti"], r"x\.inter:1: header field 'item_id:text' must be"),
        (["user_id\titem_id:token", "u\ti"], r"x\.inter:1: header field 'user_id' must be"),
        (["user_id:token\titem_id:token\ttimestamp:token"], r"x\.inter:1: .*must have type float"),
        (["user_id:token\titem_id:token\titem_id:token"], r"x\.inter:1: a column name appears twice"),
        ([HEADER, "u\ti\t1", "u\tj\tyesterday"], r"x\.inter:3: 'timestamp' is 'yesterday', .*not a number"),
        ([HEADER, "u\ti\t1", "", "u\tj\tnan"], r"x\.inter:4: 'timestamp' is 'nan'; a finite number"),
        ([HEADER, "u\ti\t"], r"x\.inter:2: 'timestamp' is '', which is not a number"),
        ([HEADER, "u\ti\t1", "u\t\t2"], r"x\.inter:3: 'item_id' is empty"),
        ([HEADER, "u\ti\t1", "u\tj"], r"x\.inter:3: 2 fields where the columns are 3: user_id, item_id"),
        ([HEADER, "u\ti\t1\t9"], r"x\.inter:2: 4 fields where the columns are 3"),
        ([HEADER + "\tsplit:token", "u\ti\t1\ttrain", "u\tj\t2\tdev"], r"x\.inter:3: split 'dev' is not"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        recbole.read(_write(tmp_path, "x.inter", *lines), DataConfig())


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", HEADER, "u\ti\t1")
    with open(place, "ab") as file:
        file.write(b"u\t\xff\t2\n")
    with pytest.raises(RelandError, match=r"x\.inter:3: 'item_id' holds bytes"):
        recbole.read(place, DataConfig())


def test_item_described_twice(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", HEADER, "u\ti\t1")
    header = "item_id:token\ttitle:token_seq"
    _write(tmp_path, "x.item", header, "i\tSoap", "j\tCream", "i\tSoap")
    features = recbole.read(place, DataConfig()).item_features
    assert features is not None and features.ids.tolist() == ["i", "j"]
    _write(tmp_path, "x.item", header, "i\tSoap", "j\tCream", "i\tBrush")
    with pytest.raises(RelandError, match=r"id 'i' is described twice.*x\.item:2 and .*x\.item:4"):
        recbole.read(place, DataConfig())
