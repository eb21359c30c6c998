"""Stage `split`: interactions to training, validation and test part."""

from __future__ import annotations

import dataclasses
import logging

from reland_jax.artefacts import Artefact
from reland_jax.config import LINEAR, Config, DataConfig
from reland_jax.data import NOTHING_HELD_OUT, split, unsplit
from reland_jax.eval import evaluation_notes, held_out
from reland_jax.flow import Codec, Job, Stage
from reland_jax.stages.load import LOAD
from reland_jax.storage import load_splits, save_splits
from reland_jax.train import check_users
from reland_jax.types import Splits

_log = logging.getLogger(__name__)


def _check(job: Job, made: Artefact) -> None:
    splits, config = made.value, job.config.eval
    held = held_out(splits, config)
    evaluated = (f"{one.users:,} users by {one.targets:,} {part} items" for part, one in held.items())
    _log.info("evaluation: %s", ", ".join(evaluated))
    for note in evaluation_notes(held, splits.protocol, config.mask_history):
        _log.info("evaluation: %s", note)
    if job.config.model.backbone in LINEAR:
        check_users(splits.train)  # reported before any prompt is sent


def _of_fixed(config: Config) -> list[str]:
    """What the stamp of a split depends on besides its protocol; nothing by default."""
    source = config.data.validation_from
    return [] if source == DataConfig().validation_from else [source]


SPLIT: Stage[Splits] = Stage(
    "split",
    reads=(LOAD,),
    settings=lambda config: [config.data.protocol, *_of_fixed(config)],
    run=lambda job: split(job[LOAD], job.config.data.protocol, job.config.data.validation_from),
    codec=lambda job: Codec(save_splits, load_splits),
    check=_check,
)

WHOLE: Stage[Splits] = dataclasses.replace(
    SPLIT,
    settings=lambda config: [NOTHING_HELD_OUT],
    run=lambda job: unsplit(job[LOAD]),
    check=lambda job, made: None,
)
"""In the place of `SPLIT`: everything for training, to refit a model whose epochs are known."""
