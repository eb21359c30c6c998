"""Logs from atomic files, CSV, Parquet, MovieLens and KuaiRand, each value against what was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.data.sources.raw import Tokens
from reland_jax.events import (
    FUNNEL,
    Events,
    Feature,
    Label,
    Multi,
    Schema,
    encode,
    fit,
    kuairand,
    read,
    refuse_leaks,
    schema_of_atomic,
    split_days,
    unseen_shares,
)  # fmt: skip
from reland_jax.types import RelandError
from tests.events.toys import DAY, LABELS, ROWS, SCHEMA, START, USERS, read_toy, write_lines, write_log


def _tokens(events: Events, name: str) -> list[str]:
    values = events.features[name]
    assert isinstance(values, Tokens)
    return values.name[values.code].tolist()


def _lists(events: Events, name: str) -> list[list[str]]:
    values = events.features[name]
    assert isinstance(values, Multi)
    return [values.name[values.rows.row(row)].tolist() for row in range(values.rows.num_rows)]


def _numbers(events: Events, name: str) -> list[float]:
    values = events.features[name]
    assert isinstance(values, np.ndarray)
    return values.tolist()


def test_every_column_of_atomic_files(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    assert events.ids.users[events.user].tolist() == ["b", "a", "a", "c", "a", "d"]
    assert events.ids.items[events.item].tolist() == ["y", "x", "y", "x", "z", "z"]
    assert events.ids.items[0] == "" and events.item.min() == 1
    assert events.time.tolist() == [START + row[2] * DAY + place for place, row in enumerate(ROWS)]
    assert events.scenario.name[events.scenario.code].tolist() == ["1", "1", "2", "1", "2", "3"]
    assert events.labels["click"].tolist() == [1, 1, 0, 0, 1, 1]
    assert events.labels["buy"].tolist() == [1, 0, 0, 0, 1, 0]  # not without a click
    users = events.ids.users.tolist()
    assert dict(zip(users, _tokens(events, "age"), strict=True)) == {"a": "30", "b": "", "c": "", "d": "40"}
    fans = dict(zip(users, _numbers(events, "fans"), strict=True))
    assert (fans["a"], fans["b"]) == (0, 9) and np.isnan(fans["c"]) and np.isnan(fans["d"])
    items = events.ids.items.tolist()
    assert dict(zip(items, _lists(events, "tags"), strict=True)) == {
        "": [], "x": ["red", "big"], "y": [], "z": ["big", "new", "big"],
    }  # fmt: skip
    assert _tokens(events, "hour") == ["8", "9", "8", "7", "", "8"]


def test_what_was_changed_or_left_out_is_told(tmp_path: Path) -> None:
    notes = " / ".join(read_toy(tmp_path).notes)
    assert "1 rows have 'buy' without 'click'" in notes
    assert "'seconds'" in notes and "not read" in notes
    assert "1 of the log's users are not in" in notes


def test_a_log_out_of_order_is_sorted_and_told(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    events = read(DataConfig(name=str(path)), SCHEMA)
    assert events.ids.users[events.user].tolist() == ["b", "a", "a", "c", "a", "d"]
    assert _tokens(events, "hour") == ["8", "9", "8", "7", "", "8"]
    assert any("5 rows are earlier" in note for note in events.notes)


def test_the_schema_of_atomic_headers(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    schema = schema_of_atomic(path, LABELS, time="time", scenario="tab", context=["hour"], without=["price"])
    kinds = {each.name: (each.kind, each.side) for each in schema.features}
    assert kinds == {
        "hour": ("categorical", "context"), "age": ("categorical", "user"), "fans": ("numeric", "user"),
        "tags": ("multi", "item"),
    }  # fmt: skip
    assert read(DataConfig(name=str(path)), schema).num_rows == 6
    with pytest.raises(RelandError, match="'prise' are to be left out and not there"):
        schema_of_atomic(path, LABELS, time="time", without=["prise"])
    with pytest.raises(RelandError, match="no column 'minute'"):
        schema_of_atomic(path, LABELS, time="time", context=["minute"])


def test_csv_and_parquet_in_several_files(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    expected = read_toy(tmp_path / "atomic")
    columns = ("user_id", "item_id", "time", "tab", "click", "buy", "hour")
    rows = [
        (user, item, START + day * DAY + place, tab, click, buy, hour)
        for place, (user, item, day, tab, click, buy, hour) in enumerate(ROWS)
    ]
    texts = [",".join(map(str, row)) for row in rows]
    write_lines(tmp_path / "csv" / "part-0.csv", ",".join(columns), *texts[:2])
    write_lines(tmp_path / "csv" / "part-1.csv", ",".join(columns), *texts[2:])
    (tmp_path / "parquet").mkdir()
    for place, part in enumerate((rows[:4], rows[4:])):
        table = pa.table(dict(zip(columns, map(list, zip(*part, strict=True)), strict=True)))
        parquet.write_table(table, tmp_path / "parquet" / f"part-{place}.parquet")
    users = [line.replace("\t", ",") for line in USERS]
    write_lines(tmp_path / "users.csv", "user_id,age,fans", *users)
    items = pa.table({"item_id": ["x", "y", "z"], "tags": [["red", "big"], None, ["big", "new", "big"]],
                      "price": [1.0, 2.5, None]})  # fmt: skip
    parquet.write_table(items, tmp_path / "items.parquet")
    for form in ("csv", "parquet"):
        config = DataConfig(
            name=str(tmp_path / form),
            user_table=str(tmp_path / "users.csv"),
            item_table=str(tmp_path / "items.parquet"),
        )
        events = read(config, SCHEMA)
        for name in ("user", "item", "time"):
            np.testing.assert_array_equal(getattr(events, name), getattr(expected, name))
        assert events.labels["buy"].tolist() == expected.labels["buy"].tolist()
        assert _lists(events, "tags") == _lists(expected, "tags")
        assert _tokens(events, "age") == _tokens(expected, "age")
        np.testing.assert_array_equal(_numbers(events, "price"), _numbers(expected, "price"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("\t1\t1\t8\t", "\t2\t1\t8\t"), r"toy.inter:2: 'click' is 2; label 'click' needs 0 or 1"),
        (("\t1\t1\t8\t", "\t\t1\t8\t"), r"toy.inter:2: 'click' is empty"),
        (("\t1\t1\t8\t", "\tyes\t1\t8\t"), r"toy.inter:2: 'click' is 'yes', which is not a number"),
        (("buy:float", "by:float"), r"no column 'buy' \(label 'buy'\); the columns are"),
        (("b\ty\t", "b\t\t"), r"toy.inter:2: 'item_id' is empty"),
        (("16513632", "46513632"), r"toy.inter:2: 'time' is not between 1990 and 2100"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write_log(tmp_path)
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(RelandError, match=message):
        read(DataConfig(name=str(path)), SCHEMA)


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    config = DataConfig(name=str(path))
    more = replace(SCHEMA, features=(*SCHEMA.features, Feature("city", "categorical", "user")))
    with pytest.raises(RelandError, match="'city': no column 'city' in a table of users .*side 'context'"):
        read(config, more)
    write_lines(
        tmp_path / "toy.user", "user_id:token\tage:token\tfans:float", "a\t1\t1", "b\t1\t1", "a\t1\t1"
    )
    with pytest.raises(RelandError, match=r"toy.user:4: user_id 'a' is described a second time"):
        read(config, SCHEMA)
    write_lines(tmp_path / "toy.user", "user_id:token\tage:token\tfans:float", "A\t1\t1")
    with pytest.raises(RelandError, match="describes none of the log's 4 ids"):
        read(config, SCHEMA)


def test_one_class_is_told_and_no_rows_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path, tuple((*row[:4], 0, 0, row[6]) for row in ROWS))
    assert any("'click' is 0 in every row" in note for note in read(DataConfig(name=str(path)), SCHEMA).notes)
    with pytest.raises(RelandError, match="the log has no rows"):
        read(DataConfig(name=str(write_log(tmp_path, ()))), SCHEMA)


def test_unknown_units_need_a_declaration(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.csv", "user_id,item_id,time,click", "u,i,3,1", "u,j,1,0")
    config = DataConfig(name=str(tmp_path / "log.csv"))
    schema = Schema("user_id", "item_id", "time", (Label("click"),))
    with pytest.raises(RelandError, match=r"unit of the times in 'time' is not known; set time_unit"):
        read(config, schema)
    events = read(config, replace(schema, time_unit="days"))
    assert events.time.tolist() == [DAY, 3 * DAY] and events.labels["click"].tolist() == [0, 1]
    assert events.scenario.name.tolist() == ["all"]


def test_ratings_as_a_funnel(tmp_path: Path) -> None:
    seconds = START // 1000
    write_lines(
        tmp_path / "ratings.dat",
        f"1::10::5::{seconds}",
        f"1::11::3::{seconds + 1}",
        f"2::10::4::{seconds + 2}",
    )
    write_lines(tmp_path / "movies.dat", "10::Toy (1995)::Comedy|Drama", "11::War (1990)::War")
    features = (Feature("genres", "multi", "item", separator=","),)
    schema = Schema("user_id", "item_id", "timestamp", FUNNEL, features)
    events = read(DataConfig(name=str(tmp_path)), schema)
    assert events.labels["click"].tolist() == [1, 0, 1] and events.labels["conversion"].tolist() == [1, 0, 0]
    assert events.time.tolist() == [START, START + 1000, START + 2000]
    assert _lists(events, "genres") == [[], ["Comedy", "Drama"], ["War"]]


_USER_COLUMNS = (*kuairand._CATEGORICAL_OF_USERS, *kuairand._NUMERIC_OF_USERS)
_VIDEO_COLUMNS = kuairand._CATEGORICAL_OF_ITEMS


def _write_kuairand(folder: Path) -> None:
    """The publisher's four files, with two rows of each."""
    log = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
    log += (
        "long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )
    tail = "0,0,0,0,0,{long},900,1000,0,0,0,0,1"
    for name, rows in {
        "log_standard_4_08_to_4_21_pure.csv": [("0", "5", 1, 1)],
        "log_standard_4_22_to_5_08_pure.csv": [("1", "5", 0, 1), ("0", "6", 1, 0)],
        "log_random_4_22_to_5_08_pure.csv": [("0", "6", 1, 1)],
    }.items():
        lines = [
            f"{user},{video},20220501,800,{START + place},{click},{tail.format(long=long)}"
            for place, (user, video, click, long) in enumerate(rows)
        ]
        write_lines(folder / "data" / name, log, *lines)
    write_lines(folder / "data" / "user_features_pure.csv", ",".join(("user_id", *_USER_COLUMNS)),
                *(",".join([user, *["7"] * len(_USER_COLUMNS)]) for user in "012"))  # fmt: skip
    values = ",".join([*["v"] * len(_VIDEO_COLUMNS), "1000.0", '"3,14"'])
    header = ",".join(("video_id", *_VIDEO_COLUMNS, "video_duration", "tag"))
    write_lines(folder / "data" / "video_features_basic_pure.csv", header, f"5,{values}", f"6,{values}")


def test_kuairand_as_published(tmp_path: Path) -> None:
    _write_kuairand(tmp_path)
    events = kuairand.read(tmp_path)
    assert events.num_rows == 3 and set(events.labels) == {"click", "long_view"}
    users, viewed = events.ids.users[events.user].tolist(), events.labels["long_view"].tolist()
    assert sorted(zip(users, viewed, strict=True)) == [("0", 0), ("0", 1), ("1", 0)]
    assert _lists(events, "tag")[1] == ["3", "14"] and _numbers(events, "duration_ms") == [1000.0] * 3
    names = set(events.features)
    assert not names & {"play_time_ms", "is_like", "profile_stay_time", "counts", "is_rand"}
    assert kuairand.read(tmp_path, random_exposure=True).num_rows == 1
    assert set(kuairand.read(tmp_path, conversion="like").labels) == {"click", "like"}
    with pytest.raises(RelandError, match="conversion='likes' is not one of"):
        kuairand.read(tmp_path, conversion="likes")
    with pytest.raises(RelandError, match=r"no file log_standard_\*.csv"):
        kuairand.read(tmp_path / "elsewhere")


@pytest.mark.shared_data
def test_kuairand_as_atomic_files(shared_data: Path) -> None:
    events = kuairand.read(shared_data / "kuairand-pure")
    assert (events.num_rows, events.num_users, events.num_items) == (222_451, 25_156, 6_361)
    assert events.labels["click"].mean() == pytest.approx(0.450, abs=5e-4)
    # By the clock of Beijing, but for rows of the first hour, the log has 14 days.
    days = np.unique(events.day()).astype("M8[D]").astype(str).tolist()
    assert days[-1] == "2022-05-08" and "2022-04-25" in days and len(days) <= 15
    assert len(events.schema.of_side("user")) == 33 and len(events.schema.of_side("item")) == 8
    split = split_days(events, kuairand.DAYS)
    assert split.left_out == 0 and len(split.train) > len(split.test) > 0
    encoding = fit(events, split.train)
    shares = unseen_shares(encoding, encode(encoding, events), split.test)
    assert 0 < shares["user_id"] < 0.5 and shares["scenario"] < 0.01
    assert max(each.auc or 0 for each in refuse_leaks(events, split.train)) < 0.9
