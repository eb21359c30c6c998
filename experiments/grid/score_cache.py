"""Scores of finished cells as small files, so that a grid may be trained on several machines.

The artefacts of a training take megabytes and stay on the machine. The table needs much less: the metrics of
every user, about 10 kB a cell. A folder of them can be copied or committed, and its cells count as finished
wherever it is given.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.grid.plan import Cell, Key
from reland_jax.files import written_aside
from reland_jax.records import to_plain
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from experiments.grid.scores import Scores

_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged file may raise."""


class ScoreCache:
    """A folder with one file for each finished cell."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made yet."""
        self._folder = folder

    def __contains__(self, cell: Cell) -> bool:
        """Whether there is a file for the cell; `find` says whether it is of the same settings."""
        return self._file(cell).is_file()

    def find(self, cell: Cell, origin: str) -> Scores | None:
        """The scores of a cell, or None where there are none of this origin (`flow.Made.origin`).

        Raises:
            RelandError: a file that cannot be read.
        """
        path = self._file(cell)
        return _read(path, origin) if path.is_file() else None

    def as_kept(self, key: Key, variant: str) -> dict[int, Scores]:
        """Training seed -> the scores that were kept, whatever settings and data they are of.

        Raises:
            RelandError: a file that cannot be read.
        """
        start = f"{Path(key[0]).name}_{key[1]}_{variant}_seed"
        places = {path.stem.removeprefix(start): path for path in self._folder.glob(f"{start}*.npz")}
        found = {int(seed): _read(path) for seed, path in places.items() if seed.isdecimal()}
        return {seed: scores for seed in sorted(found) if (scores := found[seed]) is not None}

    def keep(self, cell: Cell, origin: str, scores: Scores) -> None:
        """Writes the scores of a cell aside, then renames them."""
        about = json.dumps({"origin": origin, "summary": to_plain(scores.summary)})
        # Differences of sorted users are nearly all 1, which compresses to nothing.
        users = np.diff(scores.users, prepend=0)
        tests = {f"test.{name}": values for name, values in scores.test.items()}
        with written_aside(self._file(cell)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, about=np.array(about), users=users, **tests)

    def _file(self, cell: Cell) -> Path:
        dataset = Path(cell.dataset).name
        return self._folder / f"{dataset}_{cell.backbone}_{cell.variant}_seed{cell.seed}.npz"


def _read(path: Path, origin: str | None = None) -> Scores | None:
    """The scores in a file; None if they are of another origin than the given one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if origin is not None and about["origin"] != origin:
                return None
            return _scores(about, dict(arrays))
    except _DAMAGE as error:
        raise RelandError(f"{path}: cannot be read ({error}); remove it to train again") from error


def _scores(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Scores:
    from experiments.grid.scores import CellSummary, Scores
    from reland_jax.types import COMPARED

    test = {name.removeprefix("test."): a for name, a in arrays.items() if name.startswith("test.")}
    users = np.cumsum(arrays["users"], dtype=np.int32)
    if set(test) != set(COMPARED) or any(values.shape != users.shape for values in test.values()):
        raise ValueError("its arrays do not fit together")
    return Scores(CellSummary(**about["summary"]), users, test)
