"""Vectors of knowledge from a file, such as hidden states of a language model that ran elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from reland_jax.events import Events
from reland_jax.events.values import positions
from reland_jax.strings import as_strings
from reland_jax.types import RelandError

_PARTS = {"scenario": "scenario_id", "user": "user_id"}


class VectorFile(NamedTuple):
    """What a file holds.

    Attributes:
        scenarios: ``<float32>[S, T]``, in the order of the log's names of scenarios.
        users: ``<float32>[n, T]``; None where the file has none.
        row: ``<int32>[U]``, each user's row of `users`, -1 for none.
    """

    scenarios: np.ndarray | None
    users: np.ndarray | None
    row: np.ndarray


def read_vectors(path: str | Path, events: Events, names: np.ndarray) -> VectorFile:
    """Reads a ``.npz`` file: ``scenario <float>[S, T]`` with ``scenario_id <str>[S]``, or users' so.

    Args:
        path: of the file.
        events: the log, for the ids of its users.
        names: ``<str>[S]``, the scenarios that are wanted, in order.

    Raises:
        RelandError: it cannot be read, has neither, lacks a scenario or every user, or has other than finite
            numbers.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as found:
            held = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, TypeError, BadZipFile) as error:  # TypeError: a bare array
        raise RelandError(f"{path}: cannot be read as .npz ({error})") from error
    if not any(name in held for name in _PARTS):
        raise RelandError(
            f"{path}: has {sorted(held)}; scenario and scenario_id, or user and user_id, are needed"
        )
    row = np.full(events.num_users, -1, np.int32)
    users = _part(path, held, "user")
    if users is not None:
        row = positions(events.ids.users, _ids(held, "user")).astype(np.int32)
        if (row < 0).all():
            raise RelandError(f"{path}: none of its {len(users):,} users (user_id) is in the log")
    scenarios = _part(path, held, "scenario")
    if scenarios is not None:
        place = positions(as_strings(names.tolist()), _ids(held, "scenario"))
        if (place < 0).any():
            raise RelandError(f"{path}: scenario {str(names[place < 0][0])!r} has no vector")
        scenarios = scenarios[place]
    return VectorFile(scenarios, users, row)


def _ids(held: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    return as_strings([str(each) for each in held[_PARTS[part]].tolist()])


def _part(path: Path, held: Mapping[str, np.ndarray], part: str) -> np.ndarray | None:
    if part not in held:
        return None
    vectors, ids = held[part], held.get(_PARTS[part], np.zeros(0))
    if vectors.dtype.kind not in "fiu" or 0 in vectors.shape:
        raise RelandError(f"{path}: {part} is {vectors.dtype} {vectors.shape}; rows of numbers are needed")
    if vectors.ndim != 2 or len(vectors) != len(ids) or len(set(ids.tolist())) != len(ids):
        raise RelandError(
            f"{path}: {part} is {vectors.shape} and {_PARTS[part]} {ids.shape}; a row for each of distinct "
            "ids is needed"
        )
    if not np.isfinite(vectors).all():
        raise RelandError(
            f"{path}: the vector of {part} {ids[~np.isfinite(vectors).all(1)][0]} is not finite"
        )
    return vectors.astype(np.float32)
