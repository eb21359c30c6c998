"""A world of four users, settings of small models, and runs whose artefacts are made by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from reland_jax.artefacts import Artefact
from reland_jax.config import Config, EncoderConfig, TrainConfig
from reland_jax.flow import Made, Stage
from reland_jax.types import Splits
from tests.toys import ragged
from tests.train.toys import SIZES

REPEATS = Splits(
    ragged([[1, 2, 3, 1], [2, 4, 5], [5, 1, 6, 2], [6, 3, 4]]),
    ragged([[2], [1], [5], [2]]),
    ragged([[1], [3], [3], [6]]),
    6,
    "leave_one_out",
)
"""Two validation items and three test items are items that their user has had before."""

ENCODER = TrainConfig(
    objective="shifted", learning_rate=0.05, batch_size=8, max_epochs=2, patience=9, steps_per_dispatch=2
)


def settings(**sections: Any) -> Config:
    """Small models; the encoder is a sequential one, whose vectors depend on what they have read."""
    encoder = EncoderConfig(dataclasses.replace(SIZES, backbone="gru4rec"), ENCODER, text_weight=0.0)
    model = dataclasses.replace(SIZES, backbone="sasrec")
    train = dataclasses.replace(ENCODER, max_epochs=1)
    given = {"encoder": encoder, "model": model, "train": train} | sections
    return dataclasses.replace(Config(), **given)


def made_of(config: Config, workdir: Path, values: dict[Stage[Any], Any]) -> Made:
    """A run that came as far as these artefacts."""
    made = Made(config, workdir)
    for stage, value in values.items():
        made.artefacts[stage.name] = Artefact(value, stage.name, 0.0, fresh=False)
        made.stages[stage.name] = stage
    return made
