"""The table of a day: each user's seed user and the vectors of the rationales, as rankers read them.

A table is an artefact, one folder for each day, whose arrays are mapped into memory. It knows until when the
behaviour is that it was made from, and is not handed to a ranker for rows that are earlier.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.files import read_json, write_json
from reland_jax.rankers import Texts
from reland_jax.types import RelandError

_ABOUT = "table.json"


class Table(NamedTuple):
    """What rankers read of users on one day.

    Attributes:
        until: all behaviour that it was made from is earlier, in milliseconds since 1970 in UTC.
        seed: ``<int32>[U]``, rows of `rationales`, -1 for a user without any behaviour.
        cosine: ``<float32>[U]``, of the user with the seed user.
        rationales: ``<float32>[S, T]``; S is the same every day, rows of zeros fill up.
        seed_users: ``<int32>[S]``, users; -1 fills up.
    """

    until: int
    seed: np.ndarray
    cosine: np.ndarray
    rationales: np.ndarray
    seed_users: np.ndarray

    def texts(self, items: np.ndarray, first: int) -> Texts:
        """The texts for rows of a log.

        Args:
            items: ``<float32>[I + 1, T]``, vectors of the items.
            first: the time of the first of the rows.

        Raises:
            RelandError: the table may know of behaviour in these rows.
        """
        if first < self.until:
            raise RelandError(
                f"this table may know behaviour until {np.datetime64(self.until, 'ms')} UTC, and is asked "
                f"for rows from {np.datetime64(first, 'ms')} on; take the table of an earlier day"
            )
        return Texts(items, self.rationales, self.seed, self.cosine)


def without_texts(num_users: int, seeds: int, width: int) -> Table:
    """The table of a day before the first pool: nobody has a seed user."""
    nobody = np.full(num_users, -1, np.int32)
    zeros = np.zeros((seeds, width), np.float32)
    return Table(0, nobody, np.zeros(num_users, np.float32), zeros, np.full(seeds, -1, np.int32))


def save_table(table: Table, folder: Path) -> None:
    """Writes a table into a folder, which is there."""
    arrays = table._asdict()
    write_json(folder / _ABOUT, {"until": arrays.pop("until")})
    save_arrays(arrays, folder)


def load_table(folder: Path) -> Table:
    """Reads a table; rows are read when they are used."""
    return Table(until=int(read_json(folder / _ABOUT)["until"]), **load_arrays(folder))
