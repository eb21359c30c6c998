"""What a person is told about the loading, counted by hand; and that it is kept and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax.config import DataConfig
from reland_jax.data import load_interactions, report_line, report_lines, report_text
from reland_jax.storage import load_interactions as load_stored
from reland_jax.storage import save_interactions
from reland_jax.types import Interactions, RelandError

ROWS = (
    "u,a,10,5,Soap", "u,b,10,4,nan", "u,a,10,5,Soap", "u,c,30,,", "v,a,20,-1,Soap", "v,b,40,3,", "v,a,50,2,",
    "w,a,20,4,", "w,b,20,4,", "w,d,60,4,['x']",
)  # fmt: skip


def _load(folder: Path, **settings: object) -> Interactions:
    (folder / "x.csv").write_text("user_id,item_id,timestamp,rating,title\n" + "\n".join(ROWS) + "\n")
    return load_interactions(DataConfig(name=str(folder / "x.csv"), **settings))  # type: ignore[arg-type]


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    told = _load(tmp_path, min_interactions=2, min_rating=2.0).report
    assert told is not None
    assert (told.rows, told.left) == (10, 6)
    assert [count for _, count in told.dropped] == [1, 1, 1, 1]
    reasons = [
        "without a rating",
        "rated below 2",
        "repeated rows: same user, item and time",
        "outside of the 2-core",
    ]
    assert all(why.startswith(reason) for (why, _), reason in zip(told.dropped, reasons, strict=True))
    assert (told.users, told.items, told.evaluated_users) == (3, 2, 0)
    assert (told.users_read, told.items_read) == (3, 4)
    assert (told.ties, told.repeats) == (4, 0)
    assert dict(told.columns) == {
        "user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating",
    }  # fmt: skip
    assert (told.items_with_text, told.text_fields, told.matched_items) == (1, ("title",), None)


def test_by_default_nothing_is_filtered_but_repeated_rows_and_the_core(tmp_path: Path) -> None:
    told = _load(tmp_path, min_interactions=0).report
    assert told is not None and (told.rows, told.left, told.repeats) == (10, 9, 1)
    assert [count for _, count in told.dropped] == [1]
    assert "rating" not in told.columns and (told.items, told.items_with_text) == (4, 2)
    assert any("1 texts only say that there is none" in note for note in told.notes)
    assert any("1 texts are lists or the like written out" in note for note in told.notes)


def test_the_order_of_the_file_tells_repeats_apart(tmp_path: Path) -> None:
    counts = {}
    for repeats in ("auto", "keep", "drop"):
        for time in (None, ""):
            told = _load(tmp_path, min_interactions=0, repeats=repeats, time_field=time).report
            assert told is not None
            counts[repeats, time] = told.left
    assert counts == {
        ("auto", None): 9, ("auto", ""): 10, ("keep", None): 10, ("keep", ""): 10,
        ("drop", None): 9, ("drop", ""): 8,
    }  # fmt: skip


def test_lines_say_it_in_words(tmp_path: Path) -> None:
    interactions = _load(tmp_path, min_interactions=0)
    assert interactions.report is not None
    lines = dict(report_lines(interactions.report))
    assert lines["rows read"] == "10" and lines["interactions left"] == "9"
    assert lines["times"] == "10 to 60 (of no known unit; only their order counts)"
    assert lines["- with a text (title)"] == "2 of 4 (50.0%)"
    assert lines["column of the time"] == "timestamp" and lines["- to be evaluated"] == "3"
    text = report_text(interactions.report)
    assert all(label in text and value in text for label, value in report_lines(interactions.report))
    assert report_line(interactions.report).startswith("data: 9 of 10 interactions, ")
    told = _load(tmp_path, min_interactions=0, time_field="").report
    assert told is not None
    assert dict(report_lines(told))["times"] == "none; the order of the file is the order of time"


def test_it_is_kept_with_the_data(tmp_path: Path) -> None:
    interactions = _load(tmp_path, min_interactions=0)
    (tmp_path / "kept").mkdir()
    save_interactions(interactions, tmp_path / "kept")
    assert load_stored(tmp_path / "kept").report == interactions.report


def test_a_table_of_items_that_matches_in_part_is_counted(tmp_path: Path) -> None:
    (tmp_path / "about.csv").write_text("item_id,title\na,Soap\nB,Comb\nz,Jar\n")
    told = _load(tmp_path, min_interactions=0, item_table="about.csv", text_fields=("title",)).report
    assert told is not None and (told.matched_items, told.items_with_text) == (1, 1)
    assert dict(report_lines(told))["- in the table of items"] == "1 of 4 (25.0%)"
    (tmp_path / "about.csv").write_text("item_id,title\nA,Soap\n")
    with pytest.raises(RelandError, match=r"describe none of its 4 items"):
        _load(tmp_path, min_interactions=0, item_table="about.csv")


def test_when_nothing_is_left_each_filter_says_what_it_took(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=r"of 10 .*1 without a rating; 9 rated below 9.*min_rating=9"):
        _load(tmp_path, min_rating=9.0)


def test_a_split_that_is_not_used_is_reported(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"x.{part}.inter").write_text("user_id:token\titem_id:token\nu\ta\n")
    name = str(tmp_path / "x.train.inter")
    told = load_interactions(DataConfig(name=name, min_interactions=0)).report
    assert told is not None and any("'fixed' uses theirs" in note for note in told.notes)
    told = load_interactions(DataConfig(name=name, min_interactions=0, protocol="fixed")).report
    assert told is not None and told.evaluated_users == 1 and not any("theirs" in note for note in told.notes)


def test_what_a_split_cannot_teach_is_reported(tmp_path: Path) -> None:
    rows = ["u,a,1,train", "u,b,2,train", "u,c,3,test", "v,a,4,test", "w,a,5,train"]
    (tmp_path / "x.csv").write_text("user_id,item_id,timestamp,split\n" + "\n".join(rows), encoding="utf-8")
    config = DataConfig(name=str(tmp_path / "x.csv"), min_interactions=0, protocol="fixed")
    report = load_interactions(config).report
    assert report is not None
    told = " ".join(report.notes)
    assert "one training item of every user with at least two is held out" in told
    assert "1 of the users to be evaluated have no training item" in told
    assert "1 of 2 test interactions are with items that nobody has in training" in told
