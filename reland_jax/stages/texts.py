"""Stages `encode_text/items` and `encode_text/rationales`: the vectors that variants with texts read."""

from __future__ import annotations

import numpy as np

from reland_jax.artefacts import fingerprint
from reland_jax.flow import Codec, Job, Stage
from reland_jax.stages.encoding import encode_items, encode_rationales, texts_state, whitened
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.storage import load_array, save_array


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

RATIONALES: Stage[np.ndarray] = Stage(
    "encode_text/rationales",
    reads=(LOAD, BUILD_POOL),
    settings=lambda config: [*texts_state(config), config.text.whiten_rationales],
    run=lambda job: encode_rationales(job[LOAD], job[BUILD_POOL].pool, job.config, job.cache),
    codec=lambda job: Codec(save_array, load_array),
)
"""``<float32>[S, T]``, step 2 of every rationale of the pool."""
