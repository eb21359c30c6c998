"""Scores of finished cells as small files, so that a grid may be trained on several machines.

What a training leaves in its workdir takes megabytes and stays on the machine. The table needs far less of
it: the metrics of every user, about 10 kB a cell. A folder of them is copied, or committed, and wherever
it is named the cells in it are finished.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.plan import Cell
from reland_jax.artefacts import fingerprint
from reland_jax.config import Config
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from reland_jax.grid import Scores

_ELSEWHERE = ("variants", "seeds_of_training", "report_users", "llm", "mesh")
"""Sections that differ from job to job and not from cell to cell."""

_OF_RATIONALES = ("encoder", "seeds", "pool", "retrieval", "fusion")
"""Sections of which `id` and `f_item` read `fusion.item_scale` at most."""


def origin_of(config: Config, data: str, pool: list[str], cell: Cell) -> str:
    """A hash of all that a cell's scores hang on: settings, data and pool, whatever their paths.

    Vectors that other machines round differently do not enter, so equal cells of different machines have
    one origin.

    Args:
        config: settings of the cell's backbone.
        data: fingerprint of the loaded interactions.
        pool: see `reland_jax.pool.pool_state`.
        cell: which training.
    """
    settings = {name: value for name, value in config.to_dict().items() if name not in _ELSEWHERE}
    for section, name in (("data", "name"), ("data", "root"), ("pool", "path"), ("train", "seed")):
        del settings[section][name]
    if cell.variant in ("id", "f_item"):
        for section in _OF_RATIONALES:
            del settings[section]
        del settings["text"]["whiten_rationales"]
        settings["fusion"], pool = {"item_scale": config.fusion.item_scale}, []
    return fingerprint(settings, data, pool, cell.variant, cell.seed)


class KeptScores:
    """A folder with one file for each finished cell."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made yet."""
        self._folder = folder

    def __contains__(self, cell: Cell) -> bool:
        """Whether there is a file for the cell; `find` says whether it is of the same settings."""
        return self._file(cell).is_file()

    def find(self, cell: Cell, origin: str) -> Scores | None:
        """The scores of a cell, or None where there are none of this origin.

        Raises:
            RelandError: a file that cannot be read.
        """
        path = self._file(cell)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                return _scores(about, dict(arrays)) if about["origin"] == origin else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RelandError(f"{path}: cannot be read ({error}); remove it, to train the cell") from error

    def keep(self, cell: Cell, origin: str, scores: Scores) -> None:
        """Writes the scores of a cell aside, then renames them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._file(cell)
        aside = path.with_name(f"{path.name}.tmp-{os.getpid()}.npz")
        about = json.dumps({"origin": origin, "summary": scores.summary})
        # Differences of sorted users are nearly all 1, which compresses to nothing.
        users = np.diff(scores.users, prepend=0)
        tests = {f"test.{name}": values for name, values in scores.test.items()}
        np.savez_compressed(aside, allow_pickle=False, about=np.array(about), users=users, **tests)
        os.replace(aside, path)

    def _file(self, cell: Cell) -> Path:
        dataset = Path(cell.dataset).name
        return self._folder / f"{dataset}_{cell.backbone}_{cell.variant}_seed{cell.seed}.npz"


def _scores(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Scores:
    from reland_jax.grid import Scores

    test = {name.removeprefix("test."): a for name, a in arrays.items() if name.startswith("test.")}
    return Scores(about["summary"], np.cumsum(arrays["users"], dtype=np.int32), test)
