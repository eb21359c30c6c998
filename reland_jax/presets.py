"""The settings chosen for each data set and backbone, on validation NDCG@10; docs/method.md lists exceptions.

Commands (`experiments/configs/reland.py`) and the Python API (`reland_jax.serve`) read the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reland_jax.config import (
    ENCODERS,
    LINEAR,
    Config,
    DataConfig,
    EvalConfig,
    FusionConfig,
    ModelConfig,
    RetrievalConfig,
    ScoreConfig,
    TextConfig,
    TrainConfig,
    nearest_name,
)
from reland_jax.types import RelandError

SEQUENTIAL = ("gru4rec", "sasrec", "duorec", "ease_recency")

DOMAINS = {"ml-1m": "movies", "ml-1m-full": "movies", "lastfm": "music"}
"""How prompts speak of items; "products" elsewhere."""

LARGE_BATCHES = {"train.batch_size": 4096, "train.learning_rate": 1e-2, "train.max_epochs": 100}
SMALL_TEXTS = {"fusion.item_scale": 1.0, "fusion.gain": 0.5}
CLOSED_FORM = {
    "train.objective": "closed_form", "text.whiten_items": None, "text.whiten_rationales": None,
    "fusion.projection": "own", "fusion.gain": None,
}  # fmt: skip

SPARSE_FORM = {
    "ease.form": "sparse", "ease.neighbours": 64, "ease.precision": "float32", "ease.text_weight": 10.0,
    "ease.reading": "phrases",
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
    "ease": CLOSED_FORM | SPARSE_FORM | {
        "ease.regularisation": 50.0, "ease.phrase_weight": 0.01, "retrieval.neighbours": 3,
    },
    "ials": CLOSED_FORM | {"model.dim": 256, "ials.unobserved": 0.01, "ials.text_weight": 10.0},
    "ease_recency": CLOSED_FORM | SPARSE_FORM | {
        "ease.regularisation": 100.0, "ease.phrase_weight": 0.015, "retrieval.neighbours": 10,
    },
}  # fmt: skip
"""Settings in which a backbone differs from the others of its family, by dotted name."""

BEST_MARK = "+best"
BEST: dict[str, dict[str, Any]] = {
    "gru4rec": {
        "score.linear": 160.0, "score.added": "ranking", "ease.regularisation": 100.0,
        "ease.text_weight": 10.0, "ease.neighbours": 64, "ease.precision": "float32",
    },
}  # fmt: skip
"""What is better than the paper's rows, beside which it stands: asked for as "gru4rec+best"."""

NAMES = (*ENCODERS, *LINEAR, *(name + BEST_MARK for name in BEST))
"""What a preset can be asked for, `backbone` of `preset`."""


def preset(dataset: str, backbone: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The settings for a data set and a backbone.

    Args:
        dataset: name or path, see `DataConfig.name`.
        backbone: of `NAMES`.
        changes: further settings by dotted name, such as ``{"train.max_epochs": 3}``.

    Raises:
        RelandError: an unknown backbone or setting (the nearest is named), or a value out of range.
    """
    if backbone not in NAMES:
        raise RelandError(f"backbone {backbone!r}: {nearest_name(backbone, NAMES)}")
    backbone, best, _ = backbone.partition(BEST_MARK)
    settings = {"data.name": dataset, "data.domain": DOMAINS.get(dataset, "products")}
    if dataset == "lastfm":
        settings["data.protocol"] = "fixed"
    settings |= {"model.backbone": backbone} | OF_BACKBONE.get(backbone, {})
    settings |= (BEST[backbone] if best else {}) | dict(changes or {})
    values = (for_sequences() if backbone in SEQUENTIAL else for_sets()).to_dict()
    for name, value in settings.items():
        _put(values, name, value)
    return Config.from_dict(values)


def row_name(config: Config) -> str:
    """What a table calls a backbone with these settings, of `NAMES`."""
    backbone = config.model.backbone
    return backbone + BEST_MARK if backbone in BEST and config.score != ScoreConfig() else backbone


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets the value of a dotted name; `Config.from_dict` refuses names that there are not."""
    *sections, last = name.split(".")
    inner: Any = values
    for section in sections:
        inner = inner.setdefault(section, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or isinstance(inner.get(last), dict):
        raise RelandError(f"config.{name} is not a setting; name one, such as train.max_epochs")
    inner[last] = value


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
