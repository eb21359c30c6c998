"""Stages of the family `encode_text`: the vectors that variants with texts read."""

from __future__ import annotations

import numpy as np

from reland_jax.artefacts import fingerprint
from reland_jax.flow import Codec, Job, Stage
from reland_jax.pool import written_by_counts
from reland_jax.stages.encoding import encode_items, encode_rationales, texts_state, whitened
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_array, save_array
from reland_jax.variants import HEURISTIC, Variant


def _items(job: Job) -> np.ndarray:
    items = encode_items(job[LOAD], job.config, job.cache)
    return whitened(items, items, job.config.text.whiten_items)


ITEMS: Stage[np.ndarray] = Stage(
    "encode_text/items",
    reads=(LOAD,),
    settings=lambda config: [*texts_state(config), config.text.whiten_items],
    run=_items,
    codec=lambda job: Codec(save_array, load_array),
    identify=fingerprint,
)
"""``<float32>[I + 1, T]``, item attributes; row 0 is zero."""


def _rationales(job: Job) -> np.ndarray:
    written = [rationale.step2 for rationale in job[BUILD_POOL].pool.rationales]
    return encode_rationales(job[LOAD], written, job.config, job.cache)


RATIONALES: Stage[np.ndarray] = Stage(
    "encode_text/rationales",
    reads=(LOAD, BUILD_POOL),
    settings=lambda config: [*texts_state(config), config.text.whiten_rationales],
    run=_rationales,
    codec=lambda job: Codec(save_array, load_array),
)
"""``<float32>[S, T]``, step 2 of every rationale of the pool."""


def _by_counts(job: Job) -> np.ndarray:
    config, seeds = job.config, job[BUILD_POOL].pool.seeds
    written = written_by_counts(seeds, job[SPLIT].train, job[LOAD], config.pool, config.data)
    return encode_rationales(job[LOAD], written, config, job.cache)


BY_COUNTS: Stage[np.ndarray] = Stage(
    "encode_text/by_counts",
    reads=(LOAD, SPLIT, BUILD_POOL),
    settings=lambda config: [
        *texts_state(config), config.text.whiten_rationales,
        config.pool.history, config.pool.scrub, config.pool.names, config.data.domain,
    ],
    run=_by_counts,
    codec=lambda job: Codec(save_array, load_array),
    wanted=lambda config: HEURISTIC.name in config.variants,
)  # fmt: skip
"""``<float32>[S, T]``, what the offline writer, which counts, writes of the same seed users; zero where their
histories have no text."""


def rationale_stage(variant: Variant) -> Stage[np.ndarray]:
    """The vectors that a variant reads in the place of rationales, or starts from."""
    return BY_COUNTS if variant == HEURISTIC else RATIONALES
