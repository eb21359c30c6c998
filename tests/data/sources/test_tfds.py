"""The TFDS reader with stand-ins for TensorFlow and TensorFlow Datasets; no network."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import DataConfig
from reland_jax.data.finding import raw_state
from reland_jax.data.sources import tfds
from reland_jax.types import RelandError

GENRES = ("Action", "Comedy", "Drama")
RATINGS = {
    "user_id": np.array([b"7", b"8", b"7"], dtype=object),
    "movie_id": np.array([b"50", b"50", b"51"], dtype=object),
    "user_rating": np.array([4, 2, 5], np.float32),
    "timestamp": np.array([30, 10, 20], np.int64),
}
MOVIES = [
    {"movie_id": b"50", "movie_title": "Café (1999)".encode(), "movie_genres": np.array([0, 2])},
    {"movie_id": b"51", "movie_title": b"Other (2000)", "movie_genres": np.array([], np.int64)},
]


def _load(name: str, split: str, batch_size: int | None = None, with_info: bool = False) -> Any:
    assert split == "train"
    if name == "movielens/tiny-ratings":
        assert batch_size == -1
        return RATINGS
    assert name == "movielens/tiny-movies" and with_info and batch_size is None
    feature = types.SimpleNamespace(int2str=lambda code: GENRES[code])
    features = {"movie_genres": types.SimpleNamespace(feature=feature)}
    return MOVIES, types.SimpleNamespace(features=features)


def test_reads_ratings_and_movies(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: list[Any] = []
    config = types.SimpleNamespace(set_visible_devices=lambda *arguments: hidden.append(arguments))
    library = types.SimpleNamespace(load=_load, as_numpy=lambda values: values)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    table = tfds.read("movielens/tiny-ratings", DataConfig(min_rating=1.0))
    assert hidden == [([], "GPU")]
    assert table.user.name[table.user.code].tolist() == ["7", "8", "7"]
    assert table.item.name[table.item.code].tolist() == ["50", "50", "51"]
    assert table.time is not None and table.time.tolist() == [30, 10, 20]
    assert table.rating is not None and table.rating.tolist() == [4, 2, 5]
    assert table.item_features is not None
    assert table.item_features.fields["title"].tolist() == ["Café (1999)", "Other (2000)"]
    assert table.item_features.fields["genres"].tolist() == ["Action, Drama", ""]


def test_its_files_and_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Builder:
        def __init__(self, name: str) -> None:
            self.data_dir = str(tmp_path / name)

        def download_and_prepare(self) -> None:
            Path(self.data_dir).mkdir(parents=True, exist_ok=True)
            (Path(self.data_dir) / "part-0").write_text("x")

    config = types.SimpleNamespace(set_visible_devices=lambda *arguments: None)
    library = types.SimpleNamespace(load=_load, as_numpy=lambda values: values, builder=Builder)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    data = DataConfig(name="tfds:movielens/tiny-ratings")
    before = raw_state(data)
    assert [name for name, _, _ in before] == ["part-0", "part-0"]
    (tmp_path / "movielens/tiny-movies/part-0").write_text("y")
    monkeypatch.setattr(Builder, "download_and_prepare", lambda self: None)
    assert raw_state(data) != before
    with pytest.raises(RelandError, match=r"no column 'item' .*'user_id', 'movie_id', 'user_rating'"):
        tfds.read("movielens/tiny-ratings", DataConfig(item_field="item"))


def test_missing_package_names_the_requirements_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(RelandError, match=r"pip install -r requirements-tfds\.txt"):
        tfds.read("movielens/tiny-ratings", DataConfig())


@pytest.mark.parametrize("place", ["movielens/100k-movies", "imdb_reviews"])
def test_other_data_sets_are_refused(place: str) -> None:
    with pytest.raises(RelandError, match=rf"'tfds:{place}' is not read here; .*100k-ratings"):
        tfds.read(place, DataConfig())
