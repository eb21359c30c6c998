"""Finding a data set, and the way from a raw table to interactions with dense ids."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.data.loading import load_interactions
from reland_jax.types import RelandError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ROWS = (
    "u2\tb\t5\t20", "u10\ta\t5\t7", "u2\ta\t4\t10", "u10\tb\t2\t7", "u2\tc\t5\t10",
    "u2\ta\t4\t10", "u10\ta\t5\t9", "lone\tz\t5\t1",
)  # fmt: skip


def _folder(root: Path, name: str = "shop", rows: tuple[str, ...] = ROWS) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / f"{name}.inter").write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return folder


def _features(folder: Path, *rows: str) -> None:
    lines = ("item_id:token\ttitle:token_seq", *rows)
    (folder / f"{folder.name}.item").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rows_are_filtered_numbered_and_ordered(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    _features(folder, "b\tBrush", "other\tSoap", "a\tCream")
    got = load_interactions(DataConfig(name="shop", root=str(tmp_path), min_interactions=2))
    # Item c (once), user "lone" and the repeated row u2 a 10 are gone; u10 sorts before u2.
    assert got.ids.users.tolist() == ["u10", "u2"] and got.ids.items.tolist() == ["", "a", "b"]
    assert got.user.tolist() == [0, 0, 0, 1, 1]
    assert got.item.tolist() == [1, 2, 1, 1, 2]
    assert got.time.tolist() == [7, 7, 9, 10, 20]
    assert (got.user.dtype, got.item.dtype, got.time.dtype) == (np.int32, np.int32, np.float64)
    assert got.item_features["title"].tolist() == ["", "Cream", "Brush"]
    assert got.fixed_split is None and got.user_features == {}


def test_ratings_below_the_threshold_are_dropped_before_the_core(tmp_path: Path) -> None:
    _folder(tmp_path, rows=("u\ta\t4\t1", "u\tb\t4\t2", "v\ta\t5\t1", "v\tb\t3\t2"))
    config = DataConfig(name="shop", root=str(tmp_path), min_interactions=1, min_rating=4.0)
    got = load_interactions(config)
    assert got.user.tolist() == [0, 0, 1] and got.item.tolist() == [1, 2, 1]
    # Without v's low rating of b, v has one row and b has one, so the 2-core is empty.
    with pytest.raises(RelandError, match=r"no interaction is left of 4 .*min_rating=4\.0"):
        load_interactions(dataclasses.replace(config, min_interactions=2))


def test_dense_ids_do_not_depend_on_the_order_of_users_in_the_file(tmp_path: Path) -> None:
    rows = tuple(f"u{row % 5}\ti{row * 7 % 11}\t5\t{row}" for row in range(60))
    _folder(tmp_path, "one", rows)
    _folder(tmp_path, "two", rows[::-1])
    one, two = (
        load_interactions(DataConfig(name=name, root=str(tmp_path), min_interactions=0))
        for name in ("one", "two")
    )
    for left, right in zip(one[:3], two[:3], strict=True):
        assert np.array_equal(left, right)


def test_split_column_follows_its_rows_and_file_order_stands_in_for_time(tmp_path: Path) -> None:
    lines = ("user_id:token\titem_id:token\tsplit:token", "b\tx\ttest", "a\ty\ttrain", "b\ty\ttrain")
    (tmp_path / "s.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    got = load_interactions(DataConfig(name=str(tmp_path / "s.inter"), min_interactions=0))
    assert got.user.tolist() == [0, 1, 1] and got.item.tolist() == [2, 1, 2]
    assert got.fixed_split is not None and got.fixed_split.tolist() == [0, 2, 0]


def test_items_without_a_description_have_an_empty_one(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    config = DataConfig(name="shop", root=str(tmp_path), min_interactions=0)
    _features(folder, "b\tBrush")
    assert load_interactions(config).item_features["title"].tolist() == ["", "", "Brush", "", ""]
    _features(folder, "B\tBrush")
    with pytest.raises(RelandError, match=r"shop\.inter: the features .* describe none of its 4 items"):
        load_interactions(config)


def test_nothing_left_after_filtering(tmp_path: Path) -> None:
    _folder(tmp_path)
    config = DataConfig(name="shop", root=str(tmp_path), min_interactions=50)
    with pytest.raises(RelandError, match=r"no interaction is left of 8 .*min_interactions=50"):
        load_interactions(config)
    _folder(tmp_path, "empty", ())
    with pytest.raises(RelandError, match=r"empty\.inter: no interaction is left of 0"):
        load_interactions(DataConfig(name="empty", root=str(tmp_path)))


def test_amazon_files_end_to_end(tmp_path: Path) -> None:
    reviews = [
        {"reviewerID": user, "asin": item, "overall": 5, "unixReviewTime": time}
        for time, (user, item) in enumerate([("u", "B"), ("v", "B"), ("u", "A"), ("v", "A")])
    ]
    text = "".join(json.dumps(review) + "\n" for review in reversed(reviews))
    (tmp_path / "reviews_Toys_5.json.gz").write_bytes(gzip.compress(text.encode()))
    got = load_interactions(DataConfig(name=str(tmp_path), min_interactions=2))
    assert got.item.tolist() == [2, 1, 2, 1] and got.time.tolist() == [0, 2, 1, 3]
