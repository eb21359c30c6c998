"""MovieLens' files without a header: ``ratings.dat`` (``::`` between fields) and ``u.data`` (tabs).

Movies and users are in files next to them: ``movies.dat`` and ``users.dat``, or ``u.item`` and ``u.user``
(bars between fields). ``ratings.csv`` of later editions has a header and is read as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited, parts, table
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Frames, Usual
from reland_jax.data.sources.raw import RawTable

_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_BESIDE = {
    "movies.dat": ("item_id", "title", "genres"),
    "users.dat": ("user_id", "gender", "age", "occupation", "zip"),
    "u.item": ("item_id", "title", "release_date", "video_release_date", "url", *_GENRES),
    "u.user": ("user_id", "age", "gender", "occupation", "zip"),
}
_AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` and the movies and users next to it, where present.

    Ages of ``users.dat`` become words; occupations stay the numbers of the data set's own README.

    Raises:
        RelandError: a row that does not fit, with file and line.
    """
    found = frames(place, config)
    return assemble(found.log, config, Usual(), found.items, found.users)


def frames(place: str, config: DataConfig) -> Frames:
    """The tables of ``place`` as they are."""
    path = Path(place)
    items, users = (_of_features(each, config) if each else None for each in _features(path, config))
    return Frames(_frame(path, _RATINGS, config), items, users, [])


def files(place: str, config: DataConfig) -> list[Path]:
    """Every file that `read` reads."""
    path = Path(place)
    return [path, *filter(None, _features(path, config))]


def _features(path: Path, config: DataConfig) -> tuple[Path | None, Path | None]:
    """The tables of items and users: those the settings name, else those next to it."""
    names = ("u.item", "u.user") if path.name == "u.data" else ("movies.dat", "users.dat")
    return table.described(config, path.parent, *names)


def _of_features(path: Path, config: DataConfig) -> Frame:
    names = _BESIDE.get(path.name)
    if names is None:
        return table.of_file(path, config)
    frame = _frame(path, names, config)
    if path.name == "u.item":
        return _with_genres(frame)
    if path.name == "users.dat":
        return parts.with_written(frame, "age", lambda age: _AGES.get(age, age))
    return parts.with_written(frame, "genres", table.spelled_out)


def _frame(path: Path, names: tuple[str, ...], config: DataConfig) -> Frame:
    """A file as a frame: UTF-8 where it is that (ML-10M), else Latin-1 (ML-1M)."""
    usual = "::" if path.suffix == ".dat" else "\t" if path.name == "u.data" else "|"
    layout = delimited.Layout(
        names,
        table.delimiter_of(config) or usual,
        header_lines=0,
        encoding=config.encoding,
        fallback="latin-1",
    )
    return delimited.frame(path, layout)


def _with_genres(frame: Frame) -> Frame:
    """The names of the genres whose column is 1, in place of those columns."""

    def read(used: Sequence[str]) -> Any:
        import pyarrow as pa

        plain = frame.read([*(name for name in used if name != "genres"), *_GENRES])
        flags = zip(*(plain[name].to_pylist() for name in _GENRES), strict=True)
        genres = [
            ", ".join(name for name, flag in zip(_GENRES[1:], row[1:], strict=True) if flag == "1")
            for row in flags
        ]
        return plain.append_column("genres", pa.array(genres, pa.string())).select(list(used))

    return frame._replace(columns=("item_id", "title", "genres"), read=read)
