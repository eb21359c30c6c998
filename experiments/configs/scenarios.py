"""Scenarios: backbones and meta layers on one log of impressions.

    python -m experiments.scenarios --config=experiments/configs/scenarios.py:shop --workdir=DIR

The argument after the colon is DATASET: shop (generated, with planted effects and one tiny scenario),
kuairand-pure, amazon (purchases of three categories with drawn negatives), or the path of a log whose schema
`--config.log.schema` names.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from experiments.harness.settings import for_flags
from reland_jax.scenario_settings import ScenarioJob

SMALL: dict[str, Any] = {
    "network": "dnn",
    "width": 8,
    "layers": (128, 64),
    "tower": (32,),
    "experts": 3,
    "own_experts": 1,
}
"""Sizes for logs of some hundred thousand rows."""

TABS = ("0", "1", "2", "4", "6")
"""The tabs of KuaiRand with enough rows to be judged."""

OF_DATASET: dict[str, dict[str, dict[str, Any]]] = {
    "shop": {
        "log": {"shop_shares": (0.5, 0.3, 0.14, 0.05, 0.01), "shop_specific": 1.0},
        "knowledge": {"source": "truth"},
        "train": {"validations": 2, "patience": 3},
    },
    "kuairand-pure": {
        "log": {"longest": 20, "scenarios": TABS},
        "ranker": {"dropout": 0.2},
        "knowledge": {"words": "tag"},
        "train": {"validations": 2, "patience": 3},
    },
    "amazon": {
        "log": {
            "name": "domains", "domains": ("amazon-beauty", "amazon-sports", "amazon-toys"), "longest": 10,
            "single_users": 4000,
        },
        "ranker": {"dropout": 0.2},
        "knowledge": {"words": "words"},
        "train": {"validations": 2, "patience": 3},
    },
}


def get_config(argument: str = "shop") -> ml_collections.ConfigDict:
    """The settings for "DATASET", open to ``--config.section.key=value``."""
    changed = OF_DATASET.get(argument, {})
    values = {
        **changed,
        "log": {"name": argument, **changed.get("log", {})},
        "ranker": SMALL | changed.get("ranker", {}),
    }
    return for_flags(ScenarioJob.from_dict(values))
