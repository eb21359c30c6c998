"""ReLand: the three variants of one backbone on one data set (paper, Table 2).

    python -m experiments.run --config=experiments/configs/reland.py:demo,sasrec --workdir=workdir-demo

The argument after the colon is DATASET,BACKBONE. DATASET is demo, amazon-beauty, amazon-sports, ml-1m,
lastfm, or a path; BACKBONE is one of `ENCODERS` or `LINEAR`. The settings that differ from the defaults of
`reland_jax.config` were chosen on validation NDCG@10; docs/method.md lists the exceptions.

The files of ``experiments/results/`` have the results expected on two CPU cores, and their environment.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from experiments.harness.settings import for_flags, with_settings
from reland_jax.config import (
    ENCODERS,
    LINEAR,
    Config,
    DataConfig,
    EvalConfig,
    FusionConfig,
    ModelConfig,
    RetrievalConfig,
    TextConfig,
    TrainConfig,
    nearest_name,
)
from reland_jax.types import RelandError

SEQUENTIAL = ("gru4rec", "sasrec", "duorec", "ease_recency")

DOMAINS = {"ml-1m": "movies", "lastfm": "music"}
"""How prompts speak of items; "products" elsewhere."""

LARGE_BATCHES = {"train.batch_size": 4096, "train.learning_rate": 1e-2, "train.max_epochs": 100}
SMALL_TEXTS = {"fusion.item_scale": 1.0, "fusion.gain": 0.5}
CLOSED_FORM = {
    "train.objective": "closed_form", "text.whiten_items": None, "text.whiten_rationales": None,
    "fusion.projection": "own", "fusion.gain": None,
}  # fmt: skip

OF_BACKBONE: dict[str, dict[str, Any]] = {
    "neumf": LARGE_BATCHES | SMALL_TEXTS | {
        "model.dropout": 0.1, "train.embedding_l2": 2e-2, "train.patience": 8,
    },
    "ngcf": LARGE_BATCHES | SMALL_TEXTS | {
        "model.dropout": 0.1, "model.layers": 2, "train.embedding_l2": 3e-2,
    },
    "gru4rec": {
        "model.layers": 1, "model.dropout": 0.4,
        "train.learning_rate": 3e-3, "train.schedule": "cosine", "train.max_epochs": 12,
        "text.whiten_items": 64, "text.whiten_rationales": 64,
        "fusion.item_scale": 0.5, "fusion.projection": "shared",
    },
    "duorec": {"model.contrast": 0.03, "train.learning_rate": 2e-3, "train.max_epochs": 100},
    "ease": CLOSED_FORM | {"ease.regularisation": 50.0, "ease.text_weight": 300.0},
    "ials": CLOSED_FORM | {"model.dim": 256, "ials.unobserved": 0.01, "ials.text_weight": 10.0},
    "ease_recency": CLOSED_FORM | {"ease.regularisation": 100.0, "ease.text_weight": 1000.0},
}  # fmt: skip
"""Settings in which a backbone differs from the others of its family, by dotted name."""


def get_config(argument: str = "demo,sasrec") -> ml_collections.ConfigDict:
    """The settings for "DATASET,BACKBONE", open to ``--config.section.key=value``."""
    dataset, comma, backbone = argument.rpartition(",")
    if not comma:
        raise RelandError(f"--config=...:{argument}: expected DATASET,BACKBONE, such as demo,sasrec")
    if backbone not in (known := (*ENCODERS, *LINEAR)):
        raise RelandError(f"--config=...:{argument}: backbone {backbone!r}: {nearest_name(backbone, known)}")
    settings = {"data.name": dataset, "data.domain": DOMAINS.get(dataset, "products")}
    if dataset == "lastfm":
        settings["data.protocol"] = "fixed"
    settings |= {"model.backbone": backbone} | OF_BACKBONE.get(backbone, {})
    config = with_settings(for_sequences() if backbone in SEQUENTIAL else for_sets(), settings)
    return for_flags(config)


def for_sequences() -> Config:
    """Leave-one-out, cross-entropy over all items, history not masked."""
    return Config(
        data=DataConfig(protocol="leave_one_out"),
        retrieval=RetrievalConfig(neighbours=3),
        model=ModelConfig(layers=2, heads=2, dropout=0.5),
        train=TrainConfig(objective="shifted", learning_rate=1e-3, max_epochs=60),
    )


def for_sets() -> Config:
    """Per-user 80/10/10 in time, BPR, history masked."""
    return Config(
        data=DataConfig(protocol="ratio"),
        text=TextConfig(whiten_items=128, whiten_rationales=128),
        retrieval=RetrievalConfig(neighbours=5),
        model=ModelConfig(layers=3),
        fusion=FusionConfig(
            item_scale=6.0, projection="shared", gain=0.1, dropout=0.1, neighbours=400, withheld=0.5
        ),
        train=TrainConfig(
            objective="bpr",
            learning_rate=5e-3,
            projection_learning_rate=1e-5,
            embedding_l2=2e-3,
            negatives=4,
            max_epochs=60,
            eval_every=2,
            patience=5,
        ),
        eval=EvalConfig(mask_history=True),
    )
