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
    table = recbole.read(place, DataConfig(min_rating=0.0))
    assert table.user.name[table.user.code].tolist() == ["u1", "u2", "u2"]
    assert table.item.name[table.item.code].tolist() == ['i"1', "i2", 'i"1']
    assert table.time is not None and table.time.tolist() == [3.5, 1, 2]
    assert table.rating is not None and table.rating.tolist() == [4, 5, 1]
    assert table.split is not None and table.split.tolist() == [0, 2, 1]
    assert table.item_features is not None and table.user_features is not None
    assert table.item_features.fields["title"].tolist() == ['6" "nail" brush', "Éclat, 'fine'"]
    assert table.item_features.fields["price"].tolist() == ["1.5", ""]
    assert table.user_features.fields["age"].tolist() == ["25"]


def test_the_column_of_a_fixed_split_can_be_named(tmp_path: Path) -> None:
    """It is read by the protocol "fixed"; another protocol does not need it."""
    header = "user_id:token\titem_id:token\tpart:token"
    place = _write(tmp_path, "x.inter", header, "u\ti\ttest", "u\tj\ttrain")
    table = recbole.read(place, DataConfig(split_field="part", protocol="fixed"))
    assert table.split is not None and table.split.tolist() == [2, 0]
    assert recbole.read(place, DataConfig(split_field="part")).split is None
    with pytest.raises(RelandError, match=r"no column 'parts' .*split_field.*did you mean 'part'"):
        recbole.read(place, DataConfig(split_field="parts", protocol="fixed"))


def test_time_rating_split_and_features_are_optional(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", "user_id:token\titem_id:token", "u\ti")
    table = recbole.read(place, DataConfig())
    assert (table.time, table.rating, table.split) == (None, None, None)
    assert (table.item_features, table.user_features) == (None, None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["user_id:token\titem:token", "u\ti"], r"x\.inter:1: no column 'item_id'; .*'item'; .*item_field"),
        ([], r"x\.inter:1: no column 'user_id'; the file is empty"),
        (["user_id:token\titem_id:text", "u\ti"], r"x\.inter:1: header field 'item_id:text' must be"),
        (["user_id\titem_id:token", "u\ti"], r"x\.inter:1: header field 'user_id' must be"),
        (["user_id:token\titem_id:token\ttimestamp"], r"x\.inter:1: header field 'timestamp' must be"),
        (["user_id:token\titem_id:token\titem_id:token"], r"x\.inter:1: a column name appears twice"),
        ([HEADER, "u\ti\t1", "u\tj\tyesterday"], r"x\.inter:3: 'timestamp' is 'yesterday', .*not a number"),
        ([HEADER, "u\ti\t1", "", "u\tj\tnan"], r"x\.inter:4: 'timestamp' is 'nan', which is not a number"),
        ([HEADER, "u\ti\t"], r"x\.inter:2: 'timestamp' is empty"),
        ([HEADER, "u\ti\t1", "u\t\t2"], r"x\.inter:3: 'item_id' is empty"),
        ([HEADER, "u\ti\t1", "u\tj"], r"x\.inter:3: 2 fields where the columns are 3: user_id, item_id"),
        ([HEADER, "u\ti\t1\t9"], r"x\.inter:2: 4 fields where the columns are 3"),
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
    _write(tmp_path, "x.item", header + "\tprice:float", "i\tSoap\t1", "j\tCream\t2", "i\tSoap\t3")
    got = recbole.read(place, DataConfig())
    assert got.item_features is not None and list(got.item_features.fields) == ["title"]
    assert any("left out: " in note and "'price' differs" in note for note in got.notes)
    _write(tmp_path, "x.item", header, "i\tSoap", "j\tCream", "i\tBrush")
    with pytest.raises(RelandError, match=r"'i' is described twice.*x\.item:2\) and .*x\.item:4"):
        recbole.read(place, DataConfig())


def test_the_settings_name_the_columns(tmp_path: Path) -> None:
    header = "session:token\tartist:token\tplayed:float\tstars:float\tlabel:token_seq"
    place = _write(tmp_path, "x.inter", header, "s\ta\t9\t1\tSoul", "s\tb\t3\t5\tJazz")
    fields = {
        "user_field": "session",
        "item_field": "artist",
        "time_field": "played",
        "rating_field": "stars",
    }
    got = recbole.read(place, DataConfig(**fields, min_rating=1.0, text_fields=("label",)))
    assert got.item.name.tolist() == ["a", "b"] and got.time is not None and got.time.tolist() == [9, 3]
    assert got.rating is not None and got.rating.tolist() == [1, 5]
    assert got.item_features is not None and got.item_features.fields["label"].tolist() == ["Soul", "Jazz"]
    for name, value in fields.items():
        with pytest.raises(RelandError, match=rf"no column '{value}x' \(config.data.{name}\); .*'session'"):
            recbole.read(place, DataConfig(**{**fields, name: value + "x"}))


@pytest.mark.parametrize("name", ["time", "date", "timestamp_ms", "added_at"])
def test_a_column_like_a_time_is_not_passed_over(tmp_path: Path, name: str) -> None:
    place = _write(tmp_path, "x.inter", f"user_id:token\titem_id:token\t{name}:float", "u\ti\t1")
    with pytest.raises(RelandError, match=rf"no column 'timestamp' .*'{name}' looks like one.*time_field="):
        recbole.read(place, DataConfig())
    assert recbole.read(place, DataConfig(time_field="")).time is None


def test_a_threshold_needs_a_rating_and_a_gap_matters_with_one_alone(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", HEADER + "\trating:float", "u\ti\t1\t", "u\tj\t2\t-1")
    assert recbole.read(place, DataConfig()).rating is None
    got = recbole.read(place, DataConfig(min_rating=0.0)).rating
    assert got is not None and str(got.tolist()) == "[nan, -1.0]"
    place = _write(tmp_path, "y.inter", HEADER, "u\ti\t1")
    with pytest.raises(RelandError, match=r"min_rating=0.0 needs a column 'rating'; .*rating_field"):
        recbole.read(place, DataConfig(min_rating=0.0))


def test_the_files_of_a_benchmark_are_one_data_set_with_a_split(tmp_path: Path) -> None:
    for part, item in (("train", "a"), ("valid", "b"), ("test", "c")):
        _write(tmp_path, f"x.{part}.inter", HEADER, f"u\t{item}\t1")
    _write(tmp_path, "x.item", "item_id:token\ttitle:token_seq", "a\tSoap")
    for name in ("x.train.inter", "x.test.inter"):
        got = recbole.read(str(tmp_path / name), DataConfig())
        assert got.split is not None
        parts = dict(zip(got.item.name[got.item.code], got.split.tolist(), strict=True))
        assert parts == {"a": 0, "b": 1, "c": 2}
        assert "3 files were read as one data set" in got.notes[0]
    assert len(recbole.files(str(tmp_path / "x.test.inter"), DataConfig())) == 4
    (tmp_path / "x.test.inter").unlink()
    with pytest.raises(RelandError, match=r"x\.train\.inter: a part of a split by its name, .*x\.test"):
        recbole.read(str(tmp_path / "x.train.inter"), DataConfig())


def test_another_delimiter(tmp_path: Path) -> None:
    place = _write(tmp_path, "x.inter", HEADER.replace("\t", ","), "u,i,1")
    with pytest.raises(RelandError, match=r"x\.inter:1: header field .*config\.data\.delimiter"):
        recbole.read(place, DataConfig())
    assert recbole.read(place, DataConfig(delimiter=",")).item.name.tolist() == ["i"]


def test_what_is_not_used_does_not_stop_the_load(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:token\trating:token\tsplit:token"
    place = _write(tmp_path, "x.inter", header, "u\ti\t2024-01-02\tPG-13\tfold 3", "u\tj\t2024-01-01\t\t")
    got = recbole.read(place, DataConfig())
    assert got.time is not None and got.time.argsort().tolist() == [1, 0]
    assert (got.rating, got.split) == (None, None) and "column 'split' is not looked at" in got.notes[0]
    with pytest.raises(RelandError, match=r"x\.inter:2: 'rating' is 'PG-13', which is not a number"):
        recbole.read(place, DataConfig(min_rating=1.0))
    with pytest.raises(RelandError, match=r"x\.inter:2: split 'fold 3' is not one of train"):
        recbole.read(place, DataConfig(protocol="fixed"))
