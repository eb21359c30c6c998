"""Finds a data set, picks its reader, filters and numbers it: raw files -> `Interactions`."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from reland_jax.config import DataConfig, nearest_name
from reland_jax.data.filtering import first_of_duplicates, k_core
from reland_jax.data.sources import amazon, demo, movielens, recbole, table, tfds
from reland_jax.data.sources.raw import FeatureTable, RawTable
from reland_jax.files import resolve
from reland_jax.memory import release_memory
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions, RelandError

SOURCES: Mapping[str, Callable[[str, DataConfig], RawTable]] = {
    "recbole": recbole.read,
    "amazon": amazon.read,
    "movielens": movielens.read,
    "table": table.read,
    "tfds": tfds.read,
    "demo": demo.read,
}
"""Readers by name: each takes the place `locate` found and the config."""

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "recbole": ("*.inter",),
    "amazon": ("reviews_*.json.gz",),
    "movielens": ("ratings.dat",),
    "table": ("*.csv", "*.parquet"),
}
"""The file that tells a format, by source; 'auto' takes the first source with such a file."""

KNOWN = ("demo", "amazon-beauty", "amazon-sports", "amazon-toys", "ml-1m", "lastfm")
"""Data sets with a recipe in third_party/datasets/README.md."""

_TFDS_PREFIX = "tfds:"


class Place(NamedTuple):
    """Where a data set is.

    Attributes:
        source: a key of `SOURCES`.
        place: the file to read; for TFDS the data set's name there; "" for the demo.
    """

    source: str
    place: str


def load_interactions(config: DataConfig) -> Interactions:
    """Loads the data set of `config`, filtered and with dense ids.

    Dense ids follow the sorted order of the external ids (as strings), so they do not depend on the
    order of a file's rows. Features of users and items that have no interaction left are dropped.

    Args:
        config: `name`, `root` and `source` say what to read; `min_rating` and `min_interactions`
            what to keep; the ``*_field`` settings name the columns of a CSV or Parquet table.

    Raises:
        RelandError: nothing found (the message says where it looked and how to get it), a fault in a
            file (with file and line), or nothing left after filtering.
    """
    found = locate(config)
    raw = SOURCES[found.source](found.place, config)
    interactions = _number(raw, _kept_rows(raw, config))
    del raw
    release_memory()
    return interactions


def locate(config: DataConfig) -> Place:
    """Finds the files of a data set without reading them.

    Raises:
        RelandError: nothing there, or several files where one is needed.
    """
    if config.source != "auto" and config.source not in SOURCES:
        hint = nearest_name(config.source, ("auto", *SOURCES))
        raise RelandError(f"config.data.source={config.source!r} is not known; {hint}")
    if config.source == "demo" or (config.name == "demo" and config.source == "auto"):
        return Place("demo", "")
    if config.source == "tfds" or config.name.startswith(_TFDS_PREFIX):
        return Place("tfds", config.name.removeprefix(_TFDS_PREFIX))
    root = resolve(config.root or os.environ.get("RELAND_DATA") or "../shared/data")
    candidates = [root / config.name]
    if config.name not in KNOWN:
        candidates.insert(0, Path(config.name))
    for path in candidates:
        if path.is_file():
            return _known_file(path, config.source)
        if path.is_dir():
            return _find_in_folder(path, config.source)
    looked = " and ".join(str(path.absolute()) for path in candidates)
    raise RelandError(
        f"data set {config.name!r} was not found; looked for {looked}. "
        "third_party/datasets/README.md says how to get it; put it there, or set --config.data.root "
        f"or $RELAND_DATA to the folder that holds it{_hint(config.name)}"
    )


def raw_state(config: DataConfig) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of the raw files, to notice that they have changed.

    Raises:
        RelandError: see `locate`.
    """
    found = locate(config)
    if found.source in ("demo", "tfds"):
        return []
    place = Path(found.place)
    # A table stands alone; in the other formats the features lie in files beside it.
    files = [place] if found.source == "table" else sorted(filter(Path.is_file, place.parent.iterdir()))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _hint(name: str) -> str:
    """What a name that is no known data set may have meant."""
    return "" if name in KNOWN else f" ({nearest_name(name, KNOWN)})"


def _known_file(path: Path, source: str) -> Place:
    """The reader of one file: the one asked for, else by its name."""
    if source != "auto":
        return Place(source, str(path))
    for name, patterns in PATTERNS.items():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            return Place(name, str(path))
    raise RelandError(f"{path}: no reader for such a file name; {_expected('auto')}")


def _find_in_folder(folder: Path, source: str) -> Place:
    """The interaction file of a folder, and its reader."""
    for name, patterns in PATTERNS.items():
        if source not in ("auto", name):
            continue
        files = sorted(path for pattern in patterns for path in folder.glob(pattern))
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
    names = PATTERNS if source == "auto" else {source: PATTERNS[source]}
    return "expected " + ", ".join(f"{' or '.join(names[name])} ({name})" for name in names)


def _kept_rows(raw: RawTable, config: DataConfig) -> np.ndarray:
    """Rows left after the rating threshold, exact duplicates and the k-core, ``<int64>[m]``."""
    rows = np.arange(len(raw.user.code))
    if raw.rating is not None:
        rows = np.flatnonzero(raw.rating >= config.min_rating)
    time = None if raw.time is None else raw.time[rows]
    unique = first_of_duplicates(raw.user.code[rows], raw.item.code[rows], time)
    if len(unique) < len(rows):
        logging.warning("%s: dropped %d duplicate rows", raw.where, len(rows) - len(unique))
    rows = rows[unique]
    rows = rows[k_core(raw.user.code[rows], raw.item.code[rows], config.min_interactions)]
    if not len(rows):
        raise RelandError(
            f"{raw.where}: no interaction is left of {len(raw.user.code)} after filtering; lower "
            f"config.data.min_interactions={config.min_interactions} or "
            f"config.data.min_rating={config.min_rating}"
        )
    return rows


def _number(raw: RawTable, rows: np.ndarray) -> Interactions:
    """Dense ids in sorted order of the external ids; rows by user, time and file order."""
    users, user = _dense(raw.user.name, raw.user.code[rows])
    items, item = _dense(raw.item.name, raw.item.code[rows])
    time = rows.astype(np.float64) if raw.time is None else raw.time[rows]
    order = np.lexsort((time, user))
    ids = IdMap(as_strings(users), as_strings(["", *items]))
    return Interactions(
        user=user[order],
        item=item[order] + np.int32(1),
        time=time[order],
        ids=ids,
        item_features=_align(raw.item_features, items, raw.where, "items", padding=True),
        user_features=_align(raw.user_features, users, raw.where, "users", padding=False),
        fixed_split=None if raw.split is None else raw.split[rows][order],
    )


def _dense(names: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names that occur, ``<object>[m]``, and their numbers, ``<int32>[n]``."""
    present = np.flatnonzero(np.bincount(code, minlength=len(names)))
    present = present[np.argsort(names[present], kind="stable")]
    dense = np.zeros(len(names), np.int32)
    dense[present] = np.arange(len(present), dtype=np.int32)
    return names[present], dense[code]


def _align(
    features: FeatureTable | None, ids: np.ndarray, where: str, what: str, padding: bool
) -> dict[str, np.ndarray]:
    """Feature columns in the order of `ids`, "" where the table says nothing.

    Raises:
        RelandError: the table describes none of the ids, so it is the wrong table.
    """
    if features is None:
        return {}
    row_of = {name: row for row, name in enumerate(features.ids)}
    rows = np.array([row_of.get(name, -1) for name in ids], dtype=np.int64)
    if (rows < 0).all():
        raise RelandError(
            f"{where}: the features that belong to it describe none of its {len(ids)} {what}; "
            "check that both use the same ids"
        )
    if padding:
        rows = np.concatenate(([-1], rows))
    return {
        name: as_strings(np.where(rows >= 0, values[rows], ""))
        for name, values in features.fields.items()
    }
