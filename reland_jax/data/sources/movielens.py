"""MovieLens ``.dat`` files (``::`` between fields, no header): ratings, and movies and users beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited
from reland_jax.data.sources.raw import FeatureTable, RawTable, feature_table, tokens

_RATINGS = {
    "user_id": delimited.ID,
    "item_id": delimited.ID,
    "rating": delimited.NUMBER,
    "timestamp": delimited.NUMBER,
}
_MOVIES = {"item_id": delimited.ID, "title": delimited.TEXT, "genres": delimited.TEXT}
_USERS = {
    "user_id": delimited.ID,
    "gender": delimited.TEXT,
    "age": delimited.TEXT,
    "occupation": delimited.TEXT,
    "zip": delimited.TEXT,
}
_AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` (``ratings.dat``) and ``movies.dat`` and ``users.dat`` beside it, where present.

    Ages become words; occupations stay the numbers of the data set's own README.

    Raises:
        RelandError: a row that does not fit, with file and line.
    """
    path = Path(place)
    table = delimited.read_columns(path, _layout(path, _RATINGS))
    movies = _features(path.with_name("movies.dat"), _MOVIES)
    if movies is not None:
        genres = [value.replace("|", ", ") for value in movies.fields["genres"]]
        movies = movies._replace(fields={**movies.fields, "genres": np.array(genres, dtype=object)})
    users = _features(path.with_name("users.dat"), _USERS)
    if users is not None:
        ages = [_AGES.get(value, value) for value in users.fields["age"]]
        users = users._replace(fields={**users.fields, "age": np.array(ages, dtype=object)})
    return RawTable(
        where=place,
        user=tokens(table["user_id"]),
        item=tokens(table["item_id"]),
        time=table["timestamp"].to_numpy(),
        rating=table["rating"].to_numpy(),
        item_features=movies,
        user_features=users,
    )


def _layout(path: Path, kinds: dict[str, str]) -> delimited.Layout:
    """UTF-8 where the file is that (ML-10M), else Latin-1 (ML-1M)."""
    try:
        path.read_bytes().decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    return delimited.Layout(kinds, delimiter="::", header_lines=0, encoding=encoding)


def _features(path: Path, kinds: dict[str, str]) -> FeatureTable | None:
    """Features of movies or users (the first column is the id), None when there is no such file."""
    if not path.is_file():
        return None
    layout = _layout(path, kinds)
    table = delimited.read_columns(path, layout)
    id_column, *names = kinds
    fields = {name: delimited.text_column(table, name) for name in names}
    ids = delimited.text_column(table, id_column)
    return feature_table(ids, fields, str(path), lambda row: delimited.place(path, layout, row))
