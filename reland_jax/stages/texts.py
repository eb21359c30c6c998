"""Stages of the family `encode_text`: the vectors that variants with texts read."""

from __future__ import annotations

from typing import Any

import numpy as np

from reland_jax.artefacts import fingerprint
from reland_jax.config import LINEAR, Config
from reland_jax.flow import Codec, Job, Stage
from reland_jax.pool import written_by_counts
from reland_jax.stages.encoding import (
    encode_items,
    encode_phrases,
    encode_rationales,
    texts_state,
    whitened,
)
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.recommender import reads_phrases
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_array, save_array
from reland_jax.text import find_checkpoint
from reland_jax.variants import HEURISTIC, SEED_ID, Variant


def _items(job: Job) -> np.ndarray:
    items = encode_items(job[LOAD], job.config, job.cache)
    return whitened(items, items, job.config.text.whiten_items)


ITEMS: Stage[np.ndarray] = Stage(
    "encode_text/items",
    reads=(LOAD,),
    settings=lambda config: [*texts_state(config), config.text.whiten_items],
    run=_items,
    codec=lambda job: Codec(save_array, load_array),
    ready=lambda config, workdir: find_checkpoint(config.text.encoder),
    identify=fingerprint,
)
"""``<float32>[I + 1, T]``, item attributes; row 0 is zero."""


def _written(job: Job) -> list[str]:
    return [rationale.step2 for rationale in job[BUILD_POOL].pool.rationales]


def _rationales(job: Job) -> np.ndarray:
    return encode_rationales(job[LOAD], _written(job), job.config, job.cache)


RATIONALES: Stage[np.ndarray] = Stage(
    "encode_text/rationales",
    reads=(LOAD, BUILD_POOL),
    settings=lambda config: [*texts_state(config), config.text.whiten_rationales],
    run=_rationales,
    codec=lambda job: Codec(save_array, load_array),
)
"""``<float32>[S, T]``, step 2 of every rationale of the pool."""


def _written_by_counts(job: Job) -> list[str]:
    config, seeds = job.config, job[BUILD_POOL].pool.seeds
    return written_by_counts(seeds, job[SPLIT].train, job[LOAD], config.pool, config.data)


def _by_counts(job: Job) -> np.ndarray:
    return encode_rationales(job[LOAD], _written_by_counts(job), job.config, job.cache)


def _of_counts(config: Config) -> list[Any]:
    pool = config.pool
    return [*texts_state(config), pool.history, pool.scrub, pool.names, config.data.domain]


BY_COUNTS: Stage[np.ndarray] = Stage(
    "encode_text/by_counts",
    reads=(LOAD, SPLIT, BUILD_POOL),
    settings=lambda config: [*_of_counts(config), config.text.whiten_rationales],
    run=_by_counts,
    codec=lambda job: Codec(save_array, load_array),
    wanted=lambda config: HEURISTIC.name in config.variants,
)
"""``<float32>[S, T]``, what the offline writer, which counts, writes of the same seed users; zero where their
histories have no text."""


PHRASES: Stage[np.ndarray] = Stage(
    "encode_text/phrases",
    reads=(LOAD, BUILD_POOL),
    settings=lambda config: [*texts_state(config), config.text.whiten_items],
    run=lambda job: encode_phrases(job[LOAD], _written(job), job.config, job.cache),
    codec=lambda job: Codec(save_array, load_array),
    wanted=reads_phrases,
)
"""``<float32>[S, P, T]``, the items that step 2 of every rationale names; rows of zeros where there are
fewer."""

PHRASES_BY_COUNTS: Stage[np.ndarray] = Stage(
    "encode_text/phrases_by_counts",
    reads=(LOAD, SPLIT, BUILD_POOL),
    settings=lambda config: [*_of_counts(config), config.text.whiten_items],
    run=lambda job: encode_phrases(job[LOAD], _written_by_counts(job), job.config, job.cache),
    codec=lambda job: Codec(save_array, load_array),
    wanted=lambda config: reads_phrases(config) and HEURISTIC.name in config.variants,
)
"""The same of what the offline writer writes."""


def rationale_stage(variant: Variant, config: Config) -> Stage[np.ndarray]:
    """The vectors that a variant reads in the place of rationales, or starts from."""
    if reads_phrases(config) and not (variant == SEED_ID and config.model.backbone in LINEAR):
        return PHRASES_BY_COUNTS if variant == HEURISTIC else PHRASES
    return BY_COUNTS if variant == HEURISTIC else RATIONALES
