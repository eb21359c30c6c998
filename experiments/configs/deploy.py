"""A deployment on a log of impressions, day by day.

    python -m experiments.deploy --config=experiments/configs/deploy.py:shop --workdir=DIR

The argument after the colon is the log: shop (generated, offline), kuairand-pure, or the path of a log whose
schema `--config.log.schema` names.
"""

from __future__ import annotations

import copy
from typing import Any

import ml_collections

from experiments.configs.ranker import SECOND_LABEL, SMALL
from experiments.harness.settings import for_flags
from reland_jax.deploy_settings import DeployJob

OF_LOG: dict[str, dict[str, Any]] = {
    # The shop's clicks have no order, from which sasrec could learn.
    # How users, tastes and days were chosen: docs/deploy.md.
    "shop": {
        "log": {
            "shop_users": 10_000,
            "shop_rows": 500_000,
            "shop_tastes": 6,
            "shop_strength": 2.5,
            "min_count": 20,
        },
        "ranker": {"dropout": 0.2},
        "train": {"batch_size": 1024},
        "rhythm": {"encoder": "lightgcn", "warm_days": 7},
        "trial": {"visits": 1.0},
        "arms": ("f_item", "reland", "seed_id", "permuted", "noise", "id", "own"),
    },
    "kuairand-pure": {"log": {"longest": 20}, "rhythm": {"warm_days": 6}, "texts": {"fraction": 0.05}},
}


def get_config(argument: str = "shop") -> ml_collections.ConfigDict:
    """The settings for a log, open to ``--config.section.key=value``."""
    values: dict[str, Any] = copy.deepcopy(OF_LOG.get(argument, {}))
    values.setdefault("log", {})["name"] = argument
    labels = ("click", SECOND_LABEL.get(argument, "conversion"))
    values["ranker"] = SMALL | values.get("ranker", {}) | {"task": "esmm", "labels": labels}
    return for_flags(DeployJob.from_dict(values))
