"""ReLand: the three variants of one backbone on one data set (paper, Table 2).

    python -m experiments.run --config=experiments/configs/reland.py:demo,sasrec --workdir=workdir-demo

The argument after the colon is DATASET,BACKBONE, or the choice.json that `experiments.choose` wrote. DATASET
is demo, amazon-beauty, amazon-sports, ml-1m, lastfm, or a path; BACKBONE is of `reland_jax.presets.NAMES`.
The settings that differ from the defaults of `reland_jax.config` are in `reland_jax.presets`.

The files of ``experiments/results/`` have the results expected on two CPU cores, and their environment.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections

from experiments.harness.settings import for_flags
from reland_jax.config import Config
from reland_jax.presets import preset
from reland_jax.types import RelandError


def get_config(argument: str = "demo,sasrec") -> ml_collections.ConfigDict:
    """The settings for "DATASET,BACKBONE", or of a choice.json, open to ``--config.section.key=value``."""
    if argument.endswith(".json"):
        return for_flags(_chosen(Path(argument)))
    dataset, comma, backbone = argument.rpartition(",")
    if backbone == "auto":
        raise RelandError(
            f"--config=...:{argument}: run python -m experiments.choose --dataset={dataset} --workdir=DIR, "
            "which tries the models and writes DIR/choice.json, and give --config=...:DIR/choice.json"
        )
    if not comma:
        raise RelandError(f"--config=...:{argument}: expected DATASET,BACKBONE, such as demo,sasrec")
    try:
        return for_flags(preset(dataset, backbone))
    except RelandError as error:
        raise RelandError(f"--config=...:{argument}: {error}") from error


def _chosen(path: Path) -> Config:
    """The settings of a choice.json, which is checked like any others.

    Raises:
        RelandError: no such file, or not one of `experiments.choose`.
    """
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RelandError(
            f"--config=...:{path}: not a choice.json of experiments.choose ({error})"
        ) from error
