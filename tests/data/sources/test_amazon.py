"""Amazon 2014 reviews and metadata: what is read, and every fault with its file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.data.sources import amazon
from reland_jax.types import RelandError

DEEP = ("-" * 300_000 + "1", "1" + "+1j" * 50_000, "[" * 100_000, "9" * 5000 + "**9")


def _review(user: str, item: str, time: int, **changes: Any) -> dict[str, Any]:
    review = {"reviewerID": user, "asin": item, "helpful": [0, 1], "reviewText": "ok \"so\"",
              "overall": 4.0, "unixReviewTime": time}  # fmt: skip
    return {**review, **changes}


def _write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    return path


def _write_reviews(folder: Path, *reviews: dict[str, Any]) -> str:
    return str(_write(folder, "reviews_Toys_5.json.gz", *map(json.dumps, reviews)))


def test_reads_reviews_and_the_metadata_of_their_products(tmp_path: Path) -> None:
    place = _write_reviews(tmp_path, _review("u", "A1", 30), _review("v", "B2", 20, overall=1))
    literal = {"asin": "B2", "title": "Kid's &amp; \"Co\"\n set", "price": 2.5,
               "categories": [["Toys", "Games"], ["Toys", "Puzzles", "3D &amp; More"]]}  # fmt: skip
    _write(
        tmp_path, "meta_Toys.json.gz", "{'asin': 'Z9', 'title': broken but not wanted",
        repr(literal), json.dumps({"asin": "A1", "brand": "Quellin", "categories": [["Toys"]]}),
    )  # fmt: skip
    table = amazon.read(place, DataConfig(min_rating=1.0))
    assert table.user.name[table.user.code].tolist() == ["u", "v"]
    assert table.item.name[table.item.code].tolist() == ["A1", "B2"]
    assert table.time is not None and table.time.tolist() == [30, 20]
    assert table.rating is not None and table.rating.tolist() == [4, 1]
    features = table.item_features
    assert features is not None and features.ids.tolist() == ["B2", "A1"]
    assert features.fields["title"].tolist() == ['Kid\'s & "Co" set', ""]
    assert features.fields["brand"].tolist() == ["", "Quellin"]
    assert features.fields["categories"].tolist() == ["Puzzles > 3D & More", "Toys"]


def test_metadata_is_optional(tmp_path: Path) -> None:
    assert amazon.read(_write_reviews(tmp_path, _review("u", "A", 1)), DataConfig()).item_features is None


@pytest.mark.parametrize(
    ("review", "message"),
    [
        (_review("u", "", 1), r":2: 'asin' is empty; every interaction needs"),
        (_review("u", "A", 1, reviewerID=7), r":2: 'reviewerID' is 7; a nonempty string"),
        (_review("u", "A", 1, unixReviewTime="soon"), r":2: 'unixReviewTime' is 'soon', which is not"),
        (_review("u", "A", 1, unixReviewTime=None), r":2: 'unixReviewTime' is empty; every"),
        (_review("u", "A", 1, overall="good"), r":2: 'overall' is 'good', which is not a finite number"),
    ],
)
def test_review_that_cannot_be_used(tmp_path: Path, review: dict[str, Any], message: str) -> None:
    with pytest.raises(RelandError, match=r"reviews_Toys_5\.json\.gz" + message):
        amazon.read(_write_reviews(tmp_path, _review("u", "A", 1), review), DataConfig(min_rating=1.0))


def test_review_line_that_is_no_json(tmp_path: Path) -> None:
    place = _write(tmp_path, "reviews_Toys_5.json.gz", json.dumps(_review("u", "A", 1)), "{'asin': 3}")
    with pytest.raises(RelandError, match=r"reviews_Toys_5\.json\.gz:2: not a line of JSON"):
        amazon.read(str(place), DataConfig())


def test_truncated_gzip_names_the_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 10**12, size=20000)
    place = _write_reviews(tmp_path, *(_review("u", f"A{number}", 1) for number in noise))
    path = Path(place)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RelandError, match=r"5\.json\.gz:(\d+): the packed file ends in the middle") as caught:
        amazon.read(place, DataConfig())
    assert 5000 < int(str(caught.value).split(":")[1]) < 15000
    path.write_bytes(b"plain text\n")
    with pytest.raises(RelandError, match=r"5\.json\.gz:1: not a line of JSON"):
        amazon.read(place, DataConfig())


def test_metadata_faults(tmp_path: Path) -> None:
    place = _write_reviews(tmp_path, _review("u", "A", 1))
    meta = _write(tmp_path, "meta_Toys.json.gz", "{'asin': 'Q'}", "{'asin': 'A', 'title': open")
    with pytest.raises(RelandError, match=r"meta_Toys\.json\.gz:2: neither JSON nor a Python literal"):
        amazon.read(place, DataConfig())
    _write(tmp_path, "meta_Toys.json.gz", "{'title': 'no id'}")
    with pytest.raises(RelandError, match=r"meta_Toys\.json\.gz:1: no product with an 'asin'"):
        amazon.read(place, DataConfig())
    _write(tmp_path, "meta_Toys.json.gz", "{'asin': 'A', 'title': 'x'}", "", "{'asin': 'A', 'title': 'y'}")
    with pytest.raises(RelandError, match=r"'A' is described twice: 'x' \(.*gz:1\) and 'y' \(.*gz:3\)"):
        amazon.read(place, DataConfig())
    whole = meta.read_bytes()
    meta.write_bytes(whole[:-9])
    with pytest.raises(RelandError, match=r"meta_Toys\.json\.gz:\d+: the packed file ends in the middle"):
        amazon.read(place, DataConfig())


@pytest.mark.parametrize("line", DEEP)
def test_a_product_that_no_parser_can_take_is_reported_with_its_line(tmp_path: Path, line: str) -> None:
    place = _write_reviews(tmp_path, _review("u", "A", 1))
    _write(tmp_path, "meta_Toys.json.gz", "{'asin': 'A'}", "{'asin': 'A', 'price': " + line + "}")
    with pytest.raises(RelandError, match=r"meta_Toys\.json\.gz:2: neither JSON nor a Python literal"):
        amazon.read(place, DataConfig())


def test_columns_are_those_of_the_reviews(tmp_path: Path) -> None:
    place = _write_reviews(tmp_path, _review("u", "A1", 30, parent="P"), _review("v", "B2", 20, parent="P"))
    _write(tmp_path, "meta_Toys.json.gz", "{'asin': 'P', 'title': 'Puzzle'}")
    table = amazon.read(place, DataConfig(item_field="parent", time_field="", text_fields=("title",)))
    assert table.item.name.tolist() == ["P"] and table.time is None
    assert table.item_features is not None and table.item_features.fields["title"].tolist() == ["Puzzle"]
    with pytest.raises(RelandError, match=r"no column 'who' .*user_field.*'reviewerID', 'asin'"):
        amazon.read(place, DataConfig(user_field="who"))
    with pytest.raises(RelandError, match=r"'plot' of .*text_fields is not there; .*'title', 'brand'"):
        amazon.read(place, DataConfig(text_fields=("plot",)))


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reviews_Toys_5.json.gz"
    review = json.dumps(_review("u", "A", 1)).encode() + b"\n"
    path.write_bytes(gzip.compress(review + b" " * (80 << 20)))
    with pytest.raises(RelandError, match=r"5\.json\.gz:2: (a line of more|unpacks to more)"):
        amazon.read(str(path), DataConfig())
