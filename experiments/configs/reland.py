"""ReLand: the three variants of one backbone on one data set (paper, Table 2).

    python -m experiments.run --config=experiments/configs/reland.py:demo,sasrec --workdir=workdir-demo

The argument after the colon is DATASET,BACKBONE. DATASET is demo, amazon-beauty, amazon-sports, ml-1m,
lastfm, or a path; BACKBONE is one of `ENCODERS` or `LINEAR`. The settings that differ from the defaults of
`reland_jax.config` are in `reland_jax.presets`.

The files of ``experiments/results/`` have the results expected on two CPU cores, and their environment.
"""

from __future__ import annotations

import ml_collections

from experiments.harness.settings import for_flags
from reland_jax.presets import preset
from reland_jax.types import RelandError


def get_config(argument: str = "demo,sasrec") -> ml_collections.ConfigDict:
    """The settings for "DATASET,BACKBONE", open to ``--config.section.key=value``."""
    dataset, comma, backbone = argument.rpartition(",")
    if not comma:
        raise RelandError(f"--config=...:{argument}: expected DATASET,BACKBONE, such as demo,sasrec")
    try:
        return for_flags(preset(dataset, backbone))
    except RelandError as error:
        raise RelandError(f"--config=...:{argument}: {error}") from error
