"""MovieLens .dat files: both encodings, features, and faults with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax.config import DataConfig
from reland_jax.data.sources import movielens
from reland_jax.types import RelandError


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_reads_ratings_movies_and_users(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::4.5::300\n2::10::3::100\n", encoding="ascii")
    movies = '10::Café: "La Vie" (1999)::Comedy|Drama\n11::Other (2000)::Sci-Fi\n'
    (tmp_path / "movies.dat").write_text(movies, encoding=encoding)
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n", encoding="ascii")
    table = movielens.read(str(tmp_path / "ratings.dat"), DataConfig(min_rating=1.0))
    assert table.user.name[table.user.code].tolist() == ["1", "2"]
    assert table.item.name[table.item.code].tolist() == ["10", "10"]
    assert table.time is not None and table.time.tolist() == [300, 100]
    assert table.rating is not None and table.rating.tolist() == [4.5, 3]
    assert table.item_features is not None and table.user_features is not None
    assert table.item_features.fields["title"].tolist() == ['Café: "La Vie" (1999)', "Other (2000)"]
    assert table.item_features.fields["genres"].tolist() == ["Comedy, Drama", "Sci-Fi"]
    assert {name: values[0] for name, values in table.user_features.fields.items()} == {
        "gender": "F", "age": "under 18", "occupation": "10", "zip": "48067",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("1::10::4::300\n1::11::x::300\n", r"ratings\.dat:2: 'rating' is 'x', which is not a number"),
        ("1::10::4\n", r"ratings\.dat:1: 3 fields where the columns are 4"),
        ("1::::4::300\n", r"ratings\.dat:1: 'item_id' is empty"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, ratings: str, message: str) -> None:
    (tmp_path / "ratings.dat").write_text(ratings, encoding="ascii")
    with pytest.raises(RelandError, match=message):
        movielens.read(str(tmp_path / "ratings.dat"), DataConfig(min_rating=1.0))


def test_the_hundred_thousand(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("1\t10\t4\t300\n2\t11\t3\t100\n", encoding="ascii")
    flags = ["0"] * 19
    flags[1] = flags[5] = "1"
    movie = "|".join(("10", "Café (1995)", "01-Jan-1995", "", "http://x", *flags))
    (tmp_path / "u.item").write_text(movie + "\n", encoding="latin-1")
    (tmp_path / "u.user").write_text("1|24|M|technician|85711\n", encoding="ascii")
    got = movielens.read(str(tmp_path / "u.data"), DataConfig(text_fields=("title", "genres")))
    assert got.user.name.tolist() == ["1", "2"] and got.time is not None and got.time.tolist() == [300, 100]
    assert got.item_features is not None and got.user_features is not None
    assert {name: list(values) for name, values in got.item_features.fields.items()} == {
        "title": ["Café (1995)"], "genres": ["Action, Comedy"],
    }  # fmt: skip
    assert got.user_features.fields["age"].tolist() == ["24"]
    files = movielens.files(str(tmp_path / "u.data"), DataConfig())
    assert [path.name for path in files] == ["u.data", "u.item", "u.user"]


def test_columns_have_the_names_of_the_format(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::4::300\n", encoding="ascii")
    with pytest.raises(RelandError, match=r"no column 'userId' .*'user_id', 'item_id', 'rating'"):
        movielens.read(str(tmp_path / "ratings.dat"), DataConfig(user_field="userId"))
