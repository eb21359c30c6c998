"""CSV and Parquet tables with named columns."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited, table
from reland_jax.data.sources.raw import RawTable
from reland_jax.types import RelandError

CONFIG = DataConfig(user_field="who", item_field="what", time_field="when", text_fields=("title",))
CONFIG_WITHOUT_TEXTS = dataclasses.replace(CONFIG, text_fields=())
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
        (CSV + CSV, r"sales\.csv:7: the names of the columns stand here again.*remove this line"),
        (CSV + "\ufeff" + CSV.replace("wh", "WH"), r"sales\.csv:7: the names of the columns stand here"),
        (CSV + 'w,j,4,"Soap,c\nx,j,5,,c\n', r'sales\.csv:7: a quote \("\) opens in this row and is never'),
        (
            'who,what,when,title\nu,i,1600000000,Hat\nu,j,1600000010,"Pin\nv,k,1600000020,Cap\nv,l,1600000030,"A"',
            r"sales\.csv:5: .*has a quote.*so that the row 'v,k,1600000020,Cap' is part of its text",
        ),
        ("u7,i3,5.0,1600000000\n", r"'1600000000', which looks like a row; a first line with"),
        ("x" * 9_000 + "\ny\n", r"no column 'who' .*; the columns are 'x{60}\.\.\.', in which no delimiter"),
        ("who^what^when\nu^i^1\n", r"sales\.csv:1: .*no delimiter was found \(config.data.delimiter names"),
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
        ({"when": [datetime.time(1), datetime.time(2)]}, r"row 1: column 'when' holds time64.*not a time"),
        ({"when": [True, False]}, r"row 1: column 'when' holds bool, which is not a time"),
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


def _names(raw: RawTable) -> tuple[list[str], list[str]]:
    return raw.user.name[raw.user.code].tolist(), raw.item.name[raw.item.code].tolist()


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [*((name, mark) for name in ("a.csv", "A.CSV", "a.txt") for mark in ",;\t|"), ("a.tsv", "\t")],
)
def test_the_delimiter_is_found_by_the_header_or_the_name(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = (("user_id", "item_id", "timestamp", "a,b;c|d"), ("u", "i", "1", "x"))
    text = "\n".join(delimiter.join(f'"{field}"' for field in line) for line in lines)
    (tmp_path / name).write_text(text + "\n")
    assert _names(table.read(str(tmp_path / name), DataConfig())) == (["u"], ["i"])


@pytest.mark.parametrize(
    ("setting", "delimiter"), [("::", "::"), ("tab", "\t"), ("\\t", "\t"), ("~", "~"), ("§", "§")]
)
def test_the_delimiter_that_a_setting_names(tmp_path: Path, setting: str, delimiter: str) -> None:
    place = _csv(
        tmp_path, delimiter.join(("user_id", "item_id", "timestamp")) + "\n" + delimiter.join("ui1") + "\n"
    )
    assert _names(table.read(place, DataConfig(delimiter=setting))) == (["u"], ["i"])


def test_a_column_that_differs_in_case_alone_is_taken_and_reported(tmp_path: Path) -> None:
    place = _csv(tmp_path, "User_ID,item_id, TimeStamp,Title\nu,i,1,Soap\n")
    got = table.read(place, DataConfig())
    assert got.item_features is not None and got.item_features.fields["title"].tolist() == ["Soap"]
    assert [note.split("'")[1] for note in got.notes if "was taken for" in note] == [
        "User_ID",
        " TimeStamp",
        "Title",
    ]
    place = _csv(tmp_path, "user_id,item_id,Time,TIME\nu,i,1,2\n")
    with pytest.raises(RelandError, match=r"no column 'time', and 'Time', 'TIME' are like it"):
        table.read(place, DataConfig(time_field="time"))
    assert table.read(place, DataConfig(time_field="TIME")).columns["time"] == "TIME"


def test_columns_without_a_name_and_names_that_stand_twice_unused(tmp_path: Path) -> None:
    got = table.read(
        _csv(tmp_path, ",who,what,when,,,x,x\n0,u,i,1,,,2,3\n1,v,j,2,,,2,3\n"), CONFIG_WITHOUT_TEXTS
    )
    assert _names(got) == (["u", "v"], ["i", "j"])
    twice = pa.Table.from_arrays([pa.array(["u"])] * 4, names=["who", "what", "when", "when"])
    parquet.write_table(twice, tmp_path / "x.parquet")
    with pytest.raises(RelandError, match=r"x\.parquet: a column name appears twice: 'when'; rename"):
        table.read(str(tmp_path / "x.parquet"), CONFIG_WITHOUT_TEXTS)


@pytest.mark.parametrize("end", ["", '"x"\n'])
def test_a_quote_that_makes_one_text_of_very_many_rows(tmp_path: Path, end: str) -> None:
    rows = "".join(f"u{n % 9},i{n},{1_600_000_000 + n},Hat\n" for n in range(8_000))
    text = 'who,what,when,title\nu,i,1600000000,"Pin\n' + rows + "v,j,1600000001," + end
    limit = csv.field_size_limit()
    with pytest.raises(RelandError, match=r"sales\.csv:(2|8003): .* a quote|sales\.csv:8003: .*'u0,i0,16"):
        table.read(_csv(tmp_path, text), CONFIG)
    assert csv.field_size_limit() == limit


def test_texts_of_many_lines_are_no_rows(tmp_path: Path) -> None:
    text = 'who,what,when,title\nu,i,1600000000,"good, 5, soap, yes\n1, 2, 3, 4\n\n"\nv,i,1600000001,\n'
    assert table.read(_csv(tmp_path, text), CONFIG).user.code.tolist() == [0, 1]


def test_text_columns_that_are_named_must_be_there(tmp_path: Path) -> None:
    place = _csv(tmp_path, "user_id,item_id,timestamp,title,maker\nu,i,1,Soap,Quellin\n")
    got = table.read(place, DataConfig(text_fields=("maker,title",))).item_features
    assert got is not None and list(got.fields) == ["maker", "title"]
    with pytest.raises(
        RelandError, match=r"column 'makr' of .* is not there; .*'title', 'maker'; did you mean 'maker'"
    ):
        table.read(place, DataConfig(text_fields=("title", "makr")))
    with pytest.raises(
        RelandError, match=r"column 'timestamp' of config.data.text_fields is not a text of an item"
    ):
        table.read(place, DataConfig(text_fields=("title", "timestamp")))
    assert table.read(place, DataConfig(text_fields=("",))).item_features is None


def test_rows_of_an_item_may_lack_its_text_but_not_contradict_it(tmp_path: Path) -> None:
    head = "user_id,item_id,timestamp,title\n"
    got = table.read(_csv(tmp_path, head + "u,i,1,\nv,i,2,Soap\nw,i,3,\n"), DataConfig()).item_features
    assert got is not None and got.fields["title"].tolist() == ["Soap"]
    place = _csv(tmp_path, head + "u,i,1,Great\nv,i,2,Bad\nu,j,3,Fine\nv,j,4,So so\nu,k,5,Soap\n")
    with pytest.raises(RelandError, match=r"'title' differs between the rows of 2 of 3 ids.*_fields=; if"):
        table.read(place, DataConfig())


def test_marks_and_spaces_are_no_contradiction(tmp_path: Path) -> None:
    text = "who,what,when,title\nu,i,1,nan\nu,j,2,N/A\nv,i,3,Red  hat\nv,j,4,\nw,i,5,Red hat \n"
    got = table.read(_csv(tmp_path, text), CONFIG)
    assert got.item_features is not None and got.item_features.fields["title"].tolist() == ["Red  hat", "N/A"]


def test_columns_of_single_rows_are_told_to_be_beyond_checking(tmp_path: Path) -> None:
    place = _csv(tmp_path, "user_id,item_id,timestamp,title\nu,i,1,Great\nv,j,2,Bad\n")
    assert "no item has two rows" in table.read(place, DataConfig()).notes[0]


def test_one_column_cannot_be_two_things(tmp_path: Path) -> None:
    place = _csv(tmp_path, "user_id,item_id,timestamp\nu,i,1\n")
    with pytest.raises(RelandError, match=r"column 'item_id' cannot be two things"):
        table.read(place, DataConfig(user_field="item_id"))


def test_items_and_users_have_tables_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "sales.csv").write_text("user_id,item_id,timestamp,colour\nu,i,1,red\nv,j,2,blue\n")
    parquet.write_table(
        pa.table({"Title": ["Soap", "Comb"], "item_id": ["i", "z"]}), folder / "about.parquet"
    )
    (folder / "people.tsv").write_text("user_id\tage\nu\t30\n")
    items = str(folder / "about.parquet")
    config = DataConfig(item_table=items, user_table="people.tsv", text_fields=("title", "colour"))
    got = table.read(str(folder), config)
    assert got.item_features is not None and got.user_features is not None and got.item_table is not None
    rows = zip(got.item_features.ids, *got.item_features.fields.values(), strict=True)
    assert list(rows) == [("i", "Soap", "red"), ("z", "Comb", ""), ("j", "", "blue")]
    assert list(got.item_features.fields) == ["title", "colour"] and got.item_table.tolist() == ["i", "z"]
    assert got.user_features.fields["age"].tolist() == ["30"]
    with pytest.raises(RelandError, match=r"people\.tsv:1: no column 'item_id', by which .*'user_id', 'age'"):
        table.read(
            str(folder / "sales.csv"), dataclasses.replace(config, item_table="people.tsv", user_table="")
        )


def test_later_editions_of_movielens(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,7\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n10,"Up, up (1999)",Drama|War\n11,B,(no genres listed)\n'
    )
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,fun,7\n")
    got = table.read(str(tmp_path), DataConfig(text_fields=("title", "genres")))
    assert _names(got) == (["1"], ["10"]) and got.item_features is not None
    assert got.item_features.fields["genres"].tolist() == ["Drama, War", ""]
    assert [path.name for path in table.files(str(tmp_path), DataConfig())] == ["ratings.csv", "movies.csv"]


def test_parts_of_a_table(tmp_path: Path) -> None:
    for day in (1, 2):
        folder = tmp_path / f"day={day}" / "shop=a%2Fb"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"user_id": [day], "item_id": ["i"]}), folder / "0.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    got = table.read(str(tmp_path), DataConfig(time_field="day", text_fields=("shop",)))
    assert _names(got) == (["1", "2"], ["i", "i"]) and got.time is not None and got.time.tolist() == [1, 2]
    assert got.item_features is not None and got.item_features.fields["shop"].tolist() == ["a/b"]
    assert "day=" not in got.notes[0] and "2 files were read as one table" in got.notes[0]
    parquet.write_table(pa.table({"user_id": [3], "item_id": [None]}), folder / "1.parquet")
    with pytest.raises(RelandError, match=r"1\.parquet: row 1: 'item_id' is empty"):
        table.read(str(tmp_path), DataConfig(time_field="day"))


def test_folders_that_say_nothing_or_keep_what_was_deleted(tmp_path: Path) -> None:
    for name in ("u", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "a" / f"who={name}").mkdir(parents=True)
        parquet.write_table(
            pa.table({"what": ["i"], "when": [1]}), tmp_path / "a" / f"who={name}" / "x.parquet"
        )
    with pytest.raises(RelandError, match=r"'who' is empty; every interaction needs"):
        table.read(str(tmp_path / "a"), CONFIG_WITHOUT_TEXTS)
    (tmp_path / "a" / "_delta_log").mkdir()
    with pytest.raises(RelandError, match=r"a: a Delta table.*rows that were changed or deleted"):
        table.read(str(tmp_path / "a"), CONFIG_WITHOUT_TEXTS)


def test_times_of_96_bits_beyond_what_nanoseconds_hold(tmp_path: Path) -> None:
    for last, order in ((datetime.datetime(9999, 12, 31), [0, 1]), (datetime.datetime(2019, 1, 1), [1, 0])):
        when = pa.array([datetime.datetime(2020, 1, 1), last], pa.timestamp("us"))
        rows = pa.table({"who": ["u", "v"], "what": ["i", "j"], "when": when})
        parquet.write_table(rows, tmp_path / "x.parquet", use_deprecated_int96_timestamps=True)
        got = table.read(str(tmp_path / "x.parquet"), CONFIG_WITHOUT_TEXTS)
        assert got.time is not None and got.time.argsort().tolist() == order


def test_files_that_are_not_parts_of_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,tag\nu,i,fun\n")
    with pytest.raises(
        RelandError, match=r"several files to choose from, .*'tag', 'timestamp' is not in both of"
    ):
        table.read(str(tmp_path), DataConfig())
    assert _names(table.read(str(tmp_path / "a.csv"), DataConfig())) == (["u"], ["i"])


def test_parts_of_a_split_and_a_split_column(tmp_path: Path) -> None:
    for part, item in (("train", "a"), ("test", "b")):
        (tmp_path / f"{part}.csv").write_text(f"user_id,item_id\nu,{item}\n")
    assert "'fixed' uses that split" in table.read(str(tmp_path), DataConfig(time_field="")).notes[1]
    got = table.read(str(tmp_path), DataConfig(time_field="", protocol="fixed"))
    assert got.split is not None and dict(zip(_names(got)[1], got.split.tolist(), strict=True)) == {
        "a": 0,
        "b": 2,
    }
    place = _csv(tmp_path, "user_id,item_id,split\nu,a,test\n")
    assert table.read(place, DataConfig(time_field="")).split is None
    got = table.read(place, DataConfig(time_field="", protocol="fixed"))
    assert got.split is not None and got.split.tolist() == [2]


def test_a_table_of_many_columns(tmp_path: Path) -> None:
    many = [f"c{number}" for number in range(50_000)]
    place = _csv(
        tmp_path, ",".join(("user_id", "item_id", "timestamp", *many)) + "\nu,i,1" + "," * 50_000 + "\n"
    )
    assert _names(table.read(place, DataConfig())) == (["u"], ["i"])
    with pytest.raises(RelandError, match=r"no column 'who' .*'c16' and 49,983 more$"):
        table.read(place, DataConfig(user_field="who"))


def test_a_field_longer_than_a_block(tmp_path: Path) -> None:
    long = "a" * 3_000_000
    place = _csv(tmp_path, f"user_id,item_id,timestamp,title\nu,i,1,{long}\nu,j,2,b\n")
    got = table.read(place, DataConfig()).item_features
    assert got is not None and got.fields["title"].tolist() == [long, "b"]


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RelandError, match=r"empty: no table in this folder \(\.csv, \.tsv"):
        table.read(str(tmp_path / "empty"), DataConfig())
    with pytest.raises(RelandError, match=r"x\.csv: there is no such file"):
        table.read(str(tmp_path / "x.csv"), DataConfig())
    place = _csv(tmp_path, "user_id,item_id,timestamp,title\nu,i,1,caf\xe9\n")
    Path(place).write_bytes(Path(place).read_text("utf-8").encode("latin-1"))
    with pytest.raises(
        RelandError, match=r"sales\.csv:2: 'title' holds bytes .*config.data.encoding, such as cp1252"
    ):
        table.read(place, DataConfig())
    got = table.read(place, DataConfig(encoding="latin-1")).item_features
    assert got is not None and got.fields["title"].tolist() == ["café"]


def test_a_text_beside_tables_is_no_part_and_a_named_one_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    (tmp_path / "README.txt").write_text("Read me, please\n")
    assert _names(table.read(str(tmp_path), DataConfig())) == (["u"], ["i"])
    (tmp_path / "a.csv").rename(tmp_path / "b.txt")
    assert _names(table.read(str(tmp_path / "b.txt"), DataConfig())) == (["u"], ["i"])


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet"])
def test_a_damaged_file_is_read_or_told_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = (f"u{n % 5},i{n % 7},{n},é {n % 7}\n" for n in range(40))
    text = "user_id,item_id,timestamp,title\n" + "".join(lines)
    if name.endswith("parquet"):
        rows = [line.split(",") for line in text.splitlines()]
        parquet.write_table(pa.table(dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))), path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    whole, rng, told = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 5))):
            place = rng.randrange(len(damaged))
            match rng.randrange(3):
                case 0:
                    damaged[place] = rng.randrange(256)
                case 1:
                    del damaged[place : place + rng.choice((1, 40))]
                case _:
                    damaged[place:place] = rng.choice((b'"', b"\0", b"\n", b"\xff\xfe", b"nan"))
        path.write_bytes(damaged or b"x")
        try:
            table.read(str(path), DataConfig())
        except RelandError as error:
            told += str(path) in str(error)
    assert told > 30


def test_rows_for_messages_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"x\ny"\n\n2,z', encoding="utf-8")
    layout = delimited.Layout(["a", "b"], ",", quoted=True)
    assert list(delimited.rows(path, layout)) == [(3, ["1", "x\ny"]), (5, ["2", "z"])]


def test_all_columns_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    place = _csv(tmp_path, "customer,sku,bought_at\nc,s,2024-05-31\n")
    both = (
        r"user_field=COLUMN; likewise .*item_field=COLUMN for 'item_id' and .*time_field=COLUMN for 'timest"
    )
    with pytest.raises(RelandError, match=both):
        table.read(place, DataConfig())
    with pytest.raises(RelandError, match="item_field=COLUMN$"):
        table.read(place, DataConfig(user_field="customer", time_field=""))
