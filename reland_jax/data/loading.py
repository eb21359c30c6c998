"""From the raw table that a reader hands over to filtered `Interactions` with dense ids."""

from __future__ import annotations

import sys

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.accounting import load_report
from reland_jax.data.filtering import kept_rows
from reland_jax.data.finding import SOURCES, locate
from reland_jax.data.sources.raw import FeatureTable, RawTable
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions, RelandError


def load_interactions(config: DataConfig) -> Interactions:
    """Loads the data set of `config`, filtered and with dense ids, and says what was done.

    Dense ids follow the sorted order of the external ids (as strings), so they do not depend on the
    order of a file's rows. Features of users and items that have no interaction left are dropped.

    Args:
        config: `name`, `root` and `source` say what to read; the settings of fields, tables and text files
            how; `min_rating`, `repeats` and `min_interactions` what to keep.

    Raises:
        RelandError: nothing found (the message says where it looked and how to get it), a fault in a
            file (with file and line), or nothing left after filtering.
    """
    found = locate(config)
    try:
        raw = SOURCES[found.source].read(found.place, config)
    except OSError as error:
        raise RelandError(
            f"{error.filename or found.place}: cannot be read ({error.strerror or error})"
        ) from None
    kept = kept_rows(raw, config)
    interactions, rows = _number(raw, kept.rows)
    interactions = interactions._replace(report=load_report(raw, kept, rows, interactions, config))
    del raw
    if arrow := sys.modules.get("pyarrow"):  # its pool keeps what the table took; arrays cannot reuse it
        arrow.default_memory_pool().release_unused()
    return interactions


def _number(raw: RawTable, rows: np.ndarray) -> tuple[Interactions, np.ndarray]:
    """Dense ids in sorted order of the external ids; rows by user, time and file order; their numbers."""
    users, user = _dense(raw.user.name, raw.user.code[rows])
    items, item = _dense(raw.item.name, raw.item.code[rows])
    time = rows.astype(np.float64) if raw.time is None else raw.time[rows]
    order = np.lexsort((time, user))
    ids = IdMap(as_strings(users), as_strings(["", *items]))
    interactions = Interactions(
        user=user[order],
        item=item[order] + np.int32(1),
        time=time[order].astype(np.float64),
        ids=ids,
        item_features=_align(raw.item_features, items, padding=True),
        user_features=_align(raw.user_features, users, padding=False),
        fixed_split=None if raw.split is None else raw.split[rows][order],
    )
    return interactions, rows[order]


def _dense(names: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names that occur, ``<object>[m]``, and their numbers, ``<int32>[n]``."""
    present = np.flatnonzero(np.bincount(code, minlength=len(names)))
    present = present[np.argsort(names[present], kind="stable")]
    dense = np.zeros(len(names), np.int32)
    dense[present] = np.arange(len(present), dtype=np.int32)
    return names[present], dense[code]


def _align(features: FeatureTable | None, ids: np.ndarray, padding: bool) -> dict[str, np.ndarray]:
    """Feature columns in the order of `ids`, "" where the table says nothing."""
    if features is None:
        return {}
    row_of = {name: row for row, name in enumerate(features.ids)}
    rows = np.array([row_of.get(name, -1) for name in ids], dtype=np.int64)
    if padding:
        rows = np.concatenate(([-1], rows))
    return {
        name: as_strings(np.where(rows >= 0, values[rows], "")) for name, values in features.fields.items()
    }
