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

from experiments.grid.plan import Cell
from reland_jax.artefacts import fingerprint
from reland_jax.config import Config
from reland_jax.files import written_aside
from reland_jax.records import to_plain
from reland_jax.types import RelandError
from reland_jax.variants import find_variant

if TYPE_CHECKING:
    from experiments.grid.scores import Scores

_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged file may raise."""

_ELSEWHERE = ("variants", "seeds_of_training", "report_users", "llm", "mesh")
"""Sections that differ from job to job and not from cell to cell."""

_OF_RATIONALES = ("encoder", "seeds", "pool", "retrieval", "fusion")
"""Sections of which a variant without rationales reads `fusion.item_scale` at most."""

_TRAIN = (
    "objective", "learning_rate", "projection_learning_rate", "schedule", "weight_decay", "embedding_l2",
    "batch_size", "max_epochs", "patience", "eval_every", "negatives", "view_length", "seed",
    "steps_per_dispatch", "checkpoint_seconds",
)  # fmt: skip
_MODEL = (
    "backbone", "dim", "layers", "heads", "dropout", "inner", "hidden", "tower", "fanout", "entities",
    "contrast", "temperature", "activations",
)  # fmt: skip
_ALWAYS = {
    "data": (
        "name", "root", "source", "user_field", "item_field", "time_field", "text_fields", "domain",
        "min_interactions", "min_rating", "protocol", "max_length", "demo_users", "demo_items",
    ),
    "encoder": ("text_weight", "text_directions"),
    "encoder.model": _MODEL,
    "encoder.train": _TRAIN,
    "seeds": ("fraction", "clusters", "iterations", "tolerance", "rounds", "seed"),
    "pool": (
        "provider", "path", "held_out", "history", "prompt", "cleaning", "prompt_tokens", "tokenizer",
        "scrub", "names", "model", "max_tokens", "temperature",
    ),
    "text": ("encoder", "max_tokens", "batch_size", "whiten_items", "whiten_rationales"),
    "retrieval": ("engine", "neighbours", "cold_mismatch", "tile"),
    "model": _MODEL,
    "fusion": ("item_scale", "dropout", "projection", "gain", "neighbours", "withheld"),
    "train": _TRAIN,
    "eval": ("mask_history", "cutoffs", "tile_bytes"),
}  # fmt: skip
"""Settings that are part of every origin, by section. Those that were added since are part of it where they
differ from their defaults, which mean what the program did before: so cells that were kept stay found."""

_NONE_THEN = {
    "data.user_field": "user_id",
    "data.item_field": "item_id",
    "data.time_field": "timestamp",
    "data.min_rating": 0.0,
    "encoder.train.projection_learning_rate": 0.0,
    "encoder.text_directions": 0,
    "seeds.clusters": 0,
    "pool.prompt_tokens": 0,
    "pool.tokenizer": "",
    "text.whiten_items": 0,
    "text.whiten_rationales": 0,
    "fusion.item_scale": 0.0,
    "fusion.gain": 0.0,
    "train.projection_learning_rate": 0.0,
}
"""What was written for None when the first cells were kept; an origin still has it."""

_FIXED = {
    "encoder.train.checkpoint_seconds": 30.0,
    "train.checkpoint_seconds": 30.0,
    "eval.tile_bytes": 16 << 20,
    "retrieval.tile": 4096,
    "text.batch_size": 64,
}
"""Settings of `_ALWAYS` that change no score, with the values that they have in every origin."""


def origin_of(config: Config, data: str, pool: list[str], cell: Cell) -> str:
    """A hash of everything that a cell's scores depend on: settings, data and pool, whatever their paths.

    Vectors that other machines round differently do not enter, so equal cells of different machines have
    one origin.

    Args:
        config: settings of the cell's backbone.
        data: fingerprint of the loaded interactions.
        pool: see `reland_jax.pool.pool_state`.
        cell: which training.
    """
    settings = _settings(config.to_dict(), Config().to_dict())
    for section, name in (("data", "name"), ("data", "root"), ("pool", "path"), ("train", "seed")):
        del settings[section][name]
    item_scale = settings["fusion"]["item_scale"]
    if not find_variant(cell.variant).reads_rationales:
        for section in _OF_RATIONALES:
            del settings[section]
        del settings["text"]["whiten_rationales"]
        settings["fusion"], pool = {"item_scale": item_scale}, []
    return fingerprint(settings, data, pool, cell.variant, cell.seed)


def _settings(values: Mapping[str, Any], defaults: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The settings of a section that are part of an origin."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{section}.{name}".strip(".")
        if path in _ELSEWHERE:
            continue
        if isinstance(value, dict):
            if inner := _settings(value, defaults[name], path):
                found[name] = inner
        elif name in _ALWAYS.get(section, ()) or value != defaults[name]:
            then = _NONE_THEN.get(path) if value is None else value
            found[name] = _FIXED.get(path, then)
    return found


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
        except _DAMAGE as error:
            raise RelandError(f"{path}: cannot be read ({error}); remove it, to train the cell") from error

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


def _scores(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Scores:
    from experiments.grid.scores import CellSummary, Scores
    from reland_jax.types import COMPARED

    test = {name.removeprefix("test."): a for name, a in arrays.items() if name.startswith("test.")}
    users = np.cumsum(arrays["users"], dtype=np.int32)
    if set(test) != set(COMPARED) or any(values.shape != users.shape for values in test.values()):
        raise ValueError("its arrays do not fit together")
    return Scores(CellSummary(**about["summary"]), users, test)
