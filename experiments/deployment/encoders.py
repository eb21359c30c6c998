"""Behaviour encoders that are trained seldom and read every day, by programs of one shape.

SASRec encodes any sequence of known items, and LightGCN's vectors are predicted from those of the items
(`retrieval.inductive`). Neither is trained again for a new day or a new user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.config import Config, ModelConfig
from reland_jax.fields import build
from reland_jax.files import read_json, write_json
from reland_jax.mesh import on_host
from reland_jax.models import SequentialRecommender
from reland_jax.retrieval import FoldIn, fold_in, learn_fold_in
from reland_jax.serve import Form, Known, users_of
from reland_jax.stages.recommender import model_of
from reland_jax.train import Task
from reland_jax.train.closed_form import newest_first
from reland_jax.types import Ragged, Splits
from reland_jax.variants import ID

TILE = 4096
"""Users that are encoded at a time; a program is compiled for one number."""
_ABOUT, _PARAMS, _FOLD, _KNOWN = "encoder.json", "params/", "fold/", "known"


class Encoder(NamedTuple):
    """A trained behaviour encoder.

    Attributes:
        arrays: what it has learned, and "known" ``<bool>[I + 1]``, items that it was trained on.
        model: the backbone.
        max_length: W, the most recent items of a user that are read.
        text_weight: of the mean item text of a user, appended to its vector; 0 leaves it out.
    """

    arrays: Mapping[str, np.ndarray]
    model: ModelConfig
    max_length: int
    text_weight: float

    @property
    def known(self) -> np.ndarray:
        """``<bool>[I + 1]``, items that it was trained on."""
        return self.arrays[_KNOWN]


def encoder_of(task: Task, params: Any, splits: Splits, config: Config) -> Encoder:
    """What a training leaves to encode any user with.

    Args:
        task: the trained backbone with its data.
        params: its parameters.
        splits: what it was trained on.
        config: the settings of the encoder.
    """
    arrays = {_KNOWN: np.bincount(splits.train.items, minlength=splits.num_items + 1) > 0}
    found = task.vectors(params, "valid")
    items = on_host(found.items)[: splits.num_items + 1]
    if isinstance(task.model, SequentialRecommender):
        flat = flatten_dict(jax.tree.map(np.asarray, on_host(params)), sep="/")
        arrays |= {"items": items} | {_PARAMS + name: array for name, array in flat.items()}
    else:
        users = on_host(found.users)[: splits.num_users]
        fold = learn_fold_in(users, splits.train, items)._asdict()
        arrays |= {_FOLD + name: array for name, array in fold.items()}
    return Encoder(arrays, config.encoder.model, config.data.max_length, config.encoder.text_weight)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Writes an encoder into a folder, which is there."""
    save_arrays(encoder.arrays, folder)
    about = {"max_length": encoder.max_length, "text_weight": encoder.text_weight}
    write_json(folder / _ABOUT, {"model": dataclasses.asdict(encoder.model), **about})


def load_encoder(folder: Path) -> Encoder:
    """Reads an encoder."""
    about = read_json(folder / _ABOUT)
    model: ModelConfig = build(ModelConfig(), about["model"], "encoder.model")
    return Encoder(load_arrays(folder), model, int(about["max_length"]), float(about["text_weight"]))


def reader_of(encoder: Encoder) -> tuple[Form, Known]:
    """The form and the arrays that histories are read with, on the device."""
    items = len(encoder.known) - 1
    none = Ragged(np.zeros(2, np.int64), np.zeros(0, np.int32))
    config = dataclasses.replace(Config(), model=encoder.model)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_length=encoder.max_length))
    model = model_of(config, Splits(none, none, none, items, "fixed"), ID)

    def part(start: str) -> dict[str, np.ndarray]:
        named = encoder.arrays.items()
        return {name.removeprefix(start): array for name, array in named if name.startswith(start)}

    if fold := part(_FOLD):
        known = Known(folding=FoldIn(**fold))
    else:
        known = Known(params=unflatten_dict(part(_PARAMS), sep="/"), items=encoder.arrays["items"])
    return Form(model, items, 0), jax.device_put(known)


@partial(jax.jit, static_argnums=0)
def _read(form: Form, known: Known, history: jax.Array) -> jax.Array:
    if known.folding is not None:
        return fold_in(known.folding, history)[0]
    return users_of(form, known, history, None)


def encoded(reader: tuple[Form, Known], rows: np.ndarray) -> np.ndarray:
    """Vectors of users by what they had, ``<float32>[n, D]``; zero for a user without anything.

    Args:
        reader: of `reader_of`.
        rows: ``<int32>[n, W]`` of `laid_out`.
    """
    tiles = [rows[low : low + TILE] for low in range(0, len(rows), TILE)]
    filled = (np.pad(tile, ((0, TILE - len(tile)), (0, 0))) for tile in tiles)
    found = np.concatenate([np.asarray(_read(*reader, tile)) for tile in filled])[: len(rows)]
    return np.where(np.any(rows > 0, axis=1, keepdims=True), found, np.float32(0))


def laid_out(history: Ragged, width: int) -> np.ndarray:
    """The last items of every user, oldest first, then 0, ``<int32>[n, width]``."""
    newest = newest_first(history, width)
    newest = np.pad(newest, ((0, 0), (0, width - newest.shape[1])))
    place = np.minimum(history.lengths(), width)[:, None] - 1 - np.arange(width)
    return np.where(place >= 0, np.take_along_axis(newest, np.maximum(place, 0), 1), 0).astype(np.int32)
