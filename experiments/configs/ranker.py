"""Rankers: arms of one network on one log of impressions.

    python -m experiments.ranker --config=experiments/configs/ranker.py:shop,masknet_parallel --workdir=DIR

The argument after the colon is DATASET,NETWORK[,TASK]. DATASET is shop (generated, offline), kuairand-pure,
ml-1m-full, or the path of a log whose schema `--config.log.schema` names; NETWORK and TASK are those of
`reland_jax.ranker_settings`. With a task of several labels, both labels of the log are learned.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from experiments.harness.settings import for_flags
from reland_jax.events.kuairand import ENGAGEMENTS
from reland_jax.fields import nearest_name
from reland_jax.ranker_settings import NETWORKS, TASKS, RankerJob
from reland_jax.types import RelandError

SECOND_LABEL = {"kuairand-pure": ENGAGEMENTS[0]}
"""The label after the click, by data set; "conversion" elsewhere."""

SMALL: dict[str, Any] = {
    "width": 8, "layers": (128, 64), "blocks": 2, "block_width": 64, "reduction": 0.5, "tower": (32,),
    "experts": 3, "own_experts": 1, "attention_layers": (32, 16), "embedding_scale": 1e-4,
}  # fmt: skip
"""Sizes for logs of some hundred thousand rows; `RankerConfig` has those of the MaskNet paper. Embeddings
begin small, since a MaskNet depends on its training seed otherwise (docs/ranker.md)."""

OF_DATASET: dict[str, dict[str, dict[str, Any]]] = {
    "shop": {
        "log": {
            "shop_rows": 500_000,
            "shop_users": 10_000,
            "shop_tastes": 6,
            "shop_strength": 2.5,
            "warm_days": 7,
            "min_count": 20,
        },
        "ranker": {"dropout": 0.2},
    },
    "kuairand-pure": {
        "log": {"longest": 20},
        "ranker": {"dropout": 0.2},
        "train": {"validations": 2, "patience": 3},
    },
    "ml-1m-full": {
        "ranker": {"dropout": 0.2},
        "train": {"batch_size": 4096, "validations": 1, "patience": 2},
    },
}


def get_config(argument: str = "shop,masknet_parallel") -> ml_collections.ConfigDict:
    """The settings for "DATASET,NETWORK[,TASK]", open to ``--config.section.key=value``."""
    dataset, network, task = _parts(argument)
    changed = OF_DATASET.get(dataset, {})
    labels = ("click",) if task == "single" else ("click", SECOND_LABEL.get(dataset, "conversion"))
    values = {
        "log": {"name": dataset, **changed.get("log", {})},
        "ranker": SMALL | changed.get("ranker", {}) | {"network": network, "task": task, "labels": labels},
        "train": changed.get("train", {}),
    }
    return for_flags(RankerJob.from_dict(values))


def _parts(argument: str) -> tuple[str, str, str]:
    words = argument.split(",")
    if len(words) not in (2, 3):
        raise RelandError(f"--config=...:{argument}: expected DATASET,NETWORK[,TASK], such as shop,dnn,esmm")
    dataset, network, task = words if len(words) == 3 else (*words, "single")
    for word, known in ((network, NETWORKS), (task, TASKS)):
        if word not in known:
            raise RelandError(f"--config=...:{argument}: {word!r}: {nearest_name(word, known)}")
    return dataset, network, task
