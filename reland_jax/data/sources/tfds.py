"""TensorFlow Datasets ``movielens/*``, such as ``tfds:movielens/100k-ratings``; imported only on use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources import table
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Usual
from reland_jax.data.sources.raw import RawTable
from reland_jax.types import RelandError

_SUFFIX = "-ratings"
_USUAL = Usual(user=("user_id",), item=("movie_id",), time=("timestamp",), rating=("user_rating",))


def read(place: str, config: DataConfig) -> RawTable:
    """Reads the ratings ``place`` ("movielens/NAME-ratings") and the movies that go with them.

    TensorFlow Datasets downloads and prepares them on the first use, in its own folder.

    Raises:
        RelandError: another kind of data set, or TensorFlow Datasets is not installed.
    """
    library = _import_library(place)
    ratings = library.as_numpy(library.load(place, split="train", batch_size=-1))
    frame = _frame(f"tfds:{place}", ratings)
    named = table.described(config, Path())
    items, users = (table.of_file(path, config) if path else None for path in named)
    return assemble(frame, config, _USUAL, items or _read_movies(library, _movies(place)), users)


def files(place: str, config: DataConfig) -> list[Path]:
    """The prepared files of the ratings and the movies, and the tables that the settings name.

    Raises:
        RelandError: see `read`.
    """
    library = _import_library(place)
    found = []
    for name in (place, _movies(place)):
        builder = library.builder(name)
        builder.download_and_prepare()
        folder = Path(builder.data_dir)
        found += sorted(path for path in folder.rglob("*") if path.is_file())
    return [*found, *filter(None, table.described(config, Path()))]


def _movies(place: str) -> str:
    return place.removesuffix(_SUFFIX) + "-movies"


def _import_library(place: str) -> Any:
    """TensorFlow Datasets, with TensorFlow kept off the accelerators that JAX uses."""
    if not place.startswith("movielens/") or not place.endswith(_SUFFIX):
        raise RelandError(
            f"config.data.name: 'tfds:{place}' is not read here; expected tfds:movielens/NAME{_SUFFIX}, "
            "such as tfds:movielens/100k-ratings"
        )
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


def _read_movies(library: Any, name: str) -> Frame:
    """Title and genres of every movie."""
    movies, info = library.load(name, split="train", with_info=True)
    genre_name = info.features["movie_genres"].feature.int2str
    columns: dict[str, list[Any]] = {"movie_id": [], "title": [], "genres": []}
    # Batches would pad the genres with 0, which is a genre; there are few movies, so one at a time.
    for movie in library.as_numpy(movies):
        columns["movie_id"].append(movie["movie_id"])
        columns["title"].append(movie["movie_title"])
        columns["genres"].append(", ".join(genre_name(int(code)) for code in movie["movie_genres"]))
    return _frame(f"tfds:{name}", columns)


def _frame(where: str, columns: Mapping[str, Any]) -> Frame:
    """Arrays of bytes, texts or numbers as a frame."""
    import pyarrow as pa

    def read(used: Sequence[str]) -> Any:
        arrays = {name: pa.array(np.asarray(columns[name]).tolist()) for name in used}
        return pa.table(arrays)

    return Frame(where, list(columns), read, lambda row: f"{where}: example {row + 1}")
