"""Finds a data set and the reader for it, and notices when its files have changed."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from reland_jax.config import DataConfig, nearest_name
from reland_jax.data.sources import amazon, demo, movielens, recbole, table, tfds
from reland_jax.data.sources.raw import RawTable
from reland_jax.files import checksum, resolve
from reland_jax.types import RelandError


class Source(NamedTuple):
    """A format.

    Attributes:
        read: reads what is at a place.
        files: the files that it reads.
        patterns: names of the file that tells the format, in small letters.
    """

    read: Callable[[str, DataConfig], RawTable]
    files: Callable[[str, DataConfig], list[Path]]
    patterns: tuple[str, ...] = ()


_TABLES = tuple(
    f"*{ending}{packed}"
    for ending in (*table.TEXT_ENDINGS, *table.PARQUET_ENDINGS)
    for packed in ("", *table.PACKED_ENDINGS)
)

SOURCES: Mapping[str, Source] = {
    "recbole": Source(recbole.read, recbole.files, ("*.inter",)),
    "amazon": Source(amazon.read, amazon.files, ("reviews_*.json.gz", "reviews_*.json")),
    "movielens": Source(movielens.read, movielens.files, ("ratings.dat", "u.data")),
    "table": Source(table.read, table.files, _TABLES),
    "tfds": Source(tfds.read, tfds.files),
    "demo": Source(demo.read, demo.files),
}
"""Formats by name; 'auto' takes the first one whose file there is."""

KNOWN = ("demo", "amazon-beauty", "amazon-sports", "amazon-toys", "ml-1m", "lastfm")
"""Data sets with a recipe in third_party/datasets/README.md."""

_TFDS_PREFIX = "tfds:"
_SHOWN = 5
_TEXT_SETTINGS = ("encoding", "delimiter")
_TABLE_SETTINGS = ("item_table", "user_table")
_OF_TEXT = ("recbole", "movielens", "table")
"""Formats of which text files are read as the settings say."""


class Place(NamedTuple):
    """Where a data set is.

    Attributes:
        source: a key of `SOURCES`.
        place: the file to read, or the folder of its parts, or several paths with commas between them; for
            TFDS the data set's name there; "" for the demo.
    """

    source: str
    place: str


def locate(config: DataConfig) -> Place:
    """Finds the files of a data set without reading them.

    Raises:
        RelandError: nothing there, several files where one is needed, or a setting that the format has no
            use for.
    """
    found = _located(config)
    idle: tuple[str, ...] = _TEXT_SETTINGS if found.source not in _OF_TEXT else ()
    idle += _TABLE_SETTINGS if found.source == "demo" else ()
    for name in idle:
        if getattr(config, name):
            raise RelandError(
                f"config.data.{name}={getattr(config, name)!r} has no use where {config.name!r} is read as "
                f"{found.source}; leave it out"
            )
    return found


def raw_state(config: DataConfig) -> list[tuple[str, int, str]]:
    """Name, size and SHA-256 of every file that is read, to notice that one has changed.

    The content decides, since a file may change and keep its size and time. That costs a reading of all
    files: about a second per gigabyte.

    Raises:
        RelandError: see `locate`.
    """
    found = locate(config)
    try:
        return [
            (path.name, path.stat().st_size, checksum(path))
            for path in SOURCES[found.source].files(found.place, config)
        ]
    except OSError as error:
        raise RelandError(
            f"{error.filename or found.place}: cannot be read ({error.strerror or error})"
        ) from None


def _located(config: DataConfig) -> Place:
    if config.source != "auto" and config.source not in SOURCES:
        hint = nearest_name(config.source, ("auto", *SOURCES))
        raise RelandError(f"config.data.source={config.source!r} is not known; {hint}")
    if config.source == "demo" or (config.name == "demo" and config.source == "auto"):
        return Place("demo", "")
    if config.source == "tfds" or config.name.startswith(_TFDS_PREFIX):
        return Place("tfds", config.name.removeprefix(_TFDS_PREFIX))
    candidates = _candidates(config)
    for path in candidates:
        if path.is_file():
            return _known_file(path, config.source)
        if path.is_dir():
            return _find_in_folder(path, config.source)
        if files := _several(path):
            return _known_files(files, config.source)
    looked = " and ".join(str(path.absolute()) for path in candidates)
    if any(fnmatch.fnmatch(config.name.lower(), pattern) for pattern in _TABLES):
        raise RelandError(
            f"data set {config.name!r}: no such file was found; looked for {looked}{_beside(candidates[0])}"
        )
    hint = "" if config.name in KNOWN else f" ({nearest_name(config.name, KNOWN)})"
    raise RelandError(
        f"data set {config.name!r} was not found; looked for {looked}. "
        "third_party/datasets/README.md says how to get it; put it there, or set --config.data.root "
        f"or $RELAND_DATA to the folder that holds it{hint}"
    )


def _beside(path: Path) -> str:
    """The tables in the folder of a file that is not there, the first few."""
    try:
        names = sorted(each.name for each in path.parent.iterdir() if each.is_file())
    except OSError:
        return f"; there is no folder {path.parent}"
    tables = [name for name in names if any(fnmatch.fnmatch(name.lower(), pattern) for pattern in _TABLES)]
    found = (
        f"{path.parent} has {', '.join(map(repr, tables[:_SHOWN]))}"
        if tables
        else f"{path.parent} has no CSV or Parquet file"
    )
    return f"; {found}{' and others' if len(tables) > _SHOWN else ''}"


def _candidates(config: DataConfig) -> list[Path]:
    root = resolve(config.root or os.environ.get("RELAND_DATA") or "../shared/data")
    candidates = [root / config.name]
    if config.name not in KNOWN:
        candidates.insert(0, resolve(config.name))
    return candidates


def _several(path: Path) -> list[Path]:
    """The files of ``shop/a.csv,shop/b.csv`` or ``shop/*.csv``; [] if it is neither."""
    if "*" in path.name and path.parent.is_dir():
        return sorted(each for each in path.parent.glob(path.name) if each.is_file())
    first, *others = str(path).split(",")
    if not others:
        return []
    paths = [Path(first.strip())]
    for each in others:
        other = resolve(each.strip())
        paths.append(other if other.exists() or other.is_absolute() else paths[0].parent / other.name)
    if not paths[0].is_file():
        return []
    if missing := [str(each) for each in paths if not each.is_file()]:
        raise RelandError(f"config.data.name: {', '.join(missing)} was not found")
    return paths


def _known_files(paths: list[Path], source: str) -> Place:
    """The reader of several files that are given one by one."""
    if source not in ("auto", "table") or not all(map(table.is_table, paths)):
        raise RelandError(
            f"config.data.name names several files, {', '.join(path.name for path in paths)}; only tables "
            "(CSV, Parquet) can be read together"
        )
    return Place("table", ",".join(map(str, paths)))


def _known_file(path: Path, source: str) -> Place:
    """The reader of one file: the one asked for, else by its name."""
    if source != "auto":
        return Place(source, str(path))
    for name, each in SOURCES.items():
        if _fits(path, each):
            return Place(name, str(path))
    raise RelandError(f"{path}: no reader for such a file name; {_expected('auto')}")


def _fits(path: Path, source: Source) -> bool:
    return any(fnmatch.fnmatchcase(path.name.lower(), pattern) for pattern in source.patterns)


def _find_in_folder(folder: Path, source: str) -> Place:
    """The interaction file of a folder, or the folder where its tables are parts of one; and the reader."""
    for name, each in SOURCES.items():
        if source not in ("auto", name):
            continue
        files = sorted(path for path in folder.iterdir() if path.is_file() and _fits(path, each))
        if name == "table":
            if files or any(folder.glob("*=*/")):
                return Place(name, str(folder))
            continue
        if len({recbole.base(path) for path in files if path.name.endswith(".inter")}) == 1:
            files = files[:1]  # the parts of a split, of which the reader finds the others
        same_name = [path for path in files if path.name.split(".")[0] == folder.name]
        files = same_name if len(same_name) == 1 else files
        if len(files) > 1:
            raise RelandError(
                f"{folder}: several files to choose from ({', '.join(path.name for path in files)}); "
                "give the path of one as config.data.name"
            )
        if files:
            return Place(name, str(files[0]))
    raise RelandError(f"{folder}: no interaction file in this folder; {_expected(source)}")


def _expected(source: str) -> str:
    """The file names that would have been understood."""
    names = [name for name, each in SOURCES.items() if each.patterns] if source == "auto" else [source]
    shown = {name: " or ".join(SOURCES[name].patterns) for name in names}
    shown |= {"table": "*.csv, *.tsv or *.parquet, also packed"} if "table" in shown else {}
    return "expected " + ", ".join(f"{patterns} ({name})" for name, patterns in shown.items())
