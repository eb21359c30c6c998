"""Stage `encode_users`: training interactions, and item texts, to a vector for every user (M of Eq. 1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from reland_jax.config import Config, ScoreConfig
from reland_jax.flow import Codec, Job, Stage
from reland_jax.mesh import on_host, use_mesh_together
from reland_jax.seeds import add_texts
from reland_jax.stages.encoding import check_item_texts, encode_items, texts_state, whitened
from reland_jax.stages.load import LOAD
from reland_jax.stages.recommender import id_task
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_array, save_array
from reland_jax.train import Evaluator, fit
from reland_jax.types import Interactions, Splits


def _settings(config: Config) -> list[Any]:
    texts = texts_state(config) if config.encoder.text_weight else []
    evaluated = dataclasses.replace(config.eval, history="train")
    return [config.encoder, evaluated, config.data.max_length, *texts]


def _encode_users(job: Job) -> np.ndarray:
    """M of Eq. 1 from training interactions only, with the item texts appended."""
    config, interactions, splits = job.config, job[LOAD], job[SPLIT]
    first = jax.process_index() == 0
    if first and config.encoder.text_weight:
        check_item_texts(interactions, config)
    with use_mesh_together(config.mesh):
        behaviour = _encode_behaviour(job, interactions, splits)
    weight = config.encoder.text_weight
    # Only the first process encodes texts: the others read the artefact, and do not use this one.
    if not weight or not first:
        return behaviour
    items = encode_items(interactions, config, job.cache)
    return add_texts(behaviour, splits.train, whitened(items, items, config.encoder.text_directions), weight)


def _encode_behaviour(job: Job, interactions: Interactions, splits: Splits) -> np.ndarray:
    """The vectors of all users by a lightweight backbone."""
    task, params = train_encoder(job, interactions, splits)
    # "valid" vectors depend on the training history only.
    return on_host(task.vectors(params, "valid").users)[: splits.num_users]


def train_encoder(job: Job, interactions: Interactions, splits: Splits) -> tuple[Any, Any]:
    """Trains the behaviour encoder of the settings.

    Args:
        job: its settings, and where its checkpoints are.
        interactions: for the entities of a heterogeneous graph.
        splits: `train` is learned, `valid` is what early stopping looks at.

    Returns:
        The task and its parameters.
    """
    config, encoder = job.config, job.config.encoder
    # What the recommender adds to its scores is not the encoder's.
    own = dataclasses.replace(config, model=encoder.model, train=encoder.train, score=ScoreConfig())
    task = id_task(own, splits, interactions)
    evaluator = Evaluator(task, splits, dataclasses.replace(config.eval, mask_history=True))
    result = fit(
        task,
        evaluator,
        encoder.train,
        job.checkpoints,
        run={"made_from": job.stamp},
        label="behaviour encoder",
    )
    return task, result.params


ENCODE_USERS: Stage[np.ndarray] = Stage(
    "encode_users",
    reads=(LOAD, SPLIT),
    settings=_settings,
    run=_encode_users,
    codec=lambda job: Codec(save_array, load_array),
    together=True,
)
"""``<float32>[U, D]``, or ``[U, D + T]`` with item texts."""
