"""TensorFlow Datasets ``movielens/*``, such as ``tfds:movielens/100k-ratings``; imported only on use."""

from __future__ import annotations

from typing import Any

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources.raw import FeatureTable, RawTable, feature_table, tokens
from reland_jax.types import RelandError

_SUFFIX = "-ratings"


def read(place: str, config: DataConfig) -> RawTable:
    """Reads the ratings ``place`` ("movielens/NAME-ratings") and the movies that go with them.

    TensorFlow Datasets downloads and prepares them on the first use, in its own folder.

    Raises:
        RelandError: another kind of data set, or TensorFlow Datasets is not installed.
    """
    if not place.startswith("movielens/") or not place.endswith(_SUFFIX):
        raise RelandError(
            f"config.data.name: 'tfds:{place}' is not read here; expected tfds:movielens/NAME{_SUFFIX}, "
            "such as tfds:movielens/100k-ratings"
        )
    library = _import_library()
    ratings = library.as_numpy(library.load(place, split="train", batch_size=-1))
    return RawTable(
        where=f"tfds:{place}",
        user=tokens(_strings(ratings["user_id"])),
        item=tokens(_strings(ratings["movie_id"])),
        time=np.asarray(ratings["timestamp"], dtype=np.float64),
        rating=np.asarray(ratings["user_rating"], dtype=np.float64),
        item_features=_read_movies(library, place.removesuffix(_SUFFIX) + "-movies"),
    )


def _import_library() -> Any:
    """TensorFlow Datasets, with TensorFlow kept off the accelerators that JAX uses."""
    try:
        import tensorflow as tf
        import tensorflow_datasets
    except ImportError as error:
        raise RelandError(
            f"data set names that start with 'tfds:' need TensorFlow Datasets ({error}); "
            "pip install -r requirements-tfds.txt"
        ) from None
    tf.config.set_visible_devices([], "GPU")
    return tensorflow_datasets


def _read_movies(library: Any, name: str) -> FeatureTable:
    """Title and genres of every movie."""
    movies, info = library.load(name, split="train", with_info=True)
    genre_name = info.features["movie_genres"].feature.int2str
    ids, titles, genres = [], [], []
    # Batches would pad the genres with 0, which is a genre; there are few movies, so one at a time.
    for movie in library.as_numpy(movies):
        ids.append(movie["movie_id"])
        titles.append(movie["movie_title"])
        genres.append(", ".join(genre_name(int(code)) for code in movie["movie_genres"]))
    fields = {"title": _strings(titles), "genres": np.array(genres, dtype=object)}
    return feature_table(_strings(ids), fields, f"tfds:{name}", lambda row: f"example {row + 1}")


def _strings(values: Any) -> np.ndarray:
    """``<object>[n]`` of str from bytes."""
    return np.array([value.decode("utf-8") for value in values], dtype=object)
