"""What is the same on both sides of the benchmark: sizes, splits, batches, and the held-out targets.

Read by `bench.py`, `recbole_side.py` and `reland_side.py`, and so in two environments: only the standard
library is imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

BATCH_SIZE = 1024
"""Training targets (observed interactions) per step."""


class Match(NamedTuple):
    """A backbone on both sides.

    Attributes:
        recbole: RecBole's class, or None where it has none.
        sequential: leave-one-out and nothing masked, rather than 80/10/10 per user and history masked.
        objectives: what this project trains it with; each gets its own row.
        recbole_objective: what RecBole trains it with.
        sizes: field of this project's `ModelConfig` -> its value, and RecBole's settings that say the same.
        evaluation_users: users a step of the evaluations tried, besides RecBole's default.
        quality_epochs: upper bound on RecBole's epochs when it is trained for quality.
        evaluations: upper bound on RecBole's evaluations per batch size, where one takes minutes.
    """

    recbole: str | None
    sequential: bool
    objectives: tuple[str, ...]
    recbole_objective: str
    sizes: Mapping[str, tuple[Any, Mapping[str, Any]]]
    evaluation_users: tuple[int, ...] = (256, 1024, 4096)
    quality_epochs: int = 5
    evaluations: int | None = None


_TRANSFORMER = {
    "dim": (64, {"hidden_size": 64}),
    "layers": (2, {"n_layers": 2}),
    "heads": (2, {"n_heads": 2}),
    "inner": (256, {"inner_size": 256}),
    "dropout": (0.5, {"hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5}),
}

MODELS = {
    "neumf": Match(
        "NeuMF",
        False,
        ("bpr",),
        "bce",
        {
            "dim": (64, {"mf_embedding_size": 64, "mlp_embedding_size": 64}),
            "tower": ((16, 8), {"mlp_hidden_size": [16, 8]}),
            "dropout": (0.1, {"dropout_prob": 0.1}),
        },
        evaluation_users=(2, 8),
        evaluations=1,
    ),
    "ngcf": Match(
        "NGCF",
        False,
        ("bpr",),
        "bpr",
        {
            "dim": (64, {"embedding_size": 64}),
            "layers": (3, {"hidden_size_list": [64, 64, 64]}),
            "dropout": (0.1, {"message_dropout": 0.1, "node_dropout": 0.0}),
        },
        quality_epochs=10,
    ),
    "lightgcn": Match(
        "LightGCN",
        False,
        ("bpr",),
        "bpr",
        {"dim": (64, {"embedding_size": 64}), "layers": (2, {"n_layers": 2})},
        quality_epochs=20,
    ),
    "gru4rec": Match(
        "GRU4Rec",
        True,
        ("prefix", "shifted"),
        "prefix",
        {
            "dim": (64, {"embedding_size": 64}),
            "hidden": (128, {"hidden_size": 128}),
            "layers": (1, {"num_layers": 1}),
            "dropout": (0.3, {"dropout_prob": 0.3}),
        },
    ),
    "sasrec": Match("SASRec", True, ("prefix", "shifted"), "prefix", _TRANSFORMER),
    "duorec": Match(None, True, ("prefix", "shifted"), "", _TRANSFORMER),
}
"""Every backbone; DuoRec, which RecBole has not, is timed beside this project's own SASRec."""

RECBOLE_COMMON: dict[str, Any] = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_batch_size": 4096,
    "metrics": ["Hit", "NDCG", "MRR"],
    "topk": [5, 10, 20],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 8,
    "learner": "adam",
    "learning_rate": 0.001,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
    "seed": 2020,
}


def model_sizes(model: str) -> dict[str, Any]:
    """Arguments of this project's `ModelConfig`, besides the backbone's name."""
    return {field: ours for field, (ours, _) in MODELS[model].sizes.items()}


def recbole_settings(model: str, batch_size: int = BATCH_SIZE) -> dict[str, Any]:
    """RecBole's settings for a backbone.

    RecBole counts a negative as a row of the batch where the loss is pointwise (NeuMF), so that batch is
    twice as large: the targets per step are `batch_size` for every backbone.
    """
    match = MODELS[model]
    settings: dict[str, Any] = dict(RECBOLE_COMMON)
    for _, theirs in match.sizes.values():
        settings |= theirs
    if match.sequential:
        settings |= {"MAX_ITEM_LIST_LENGTH": 50, "loss_type": "CE", "train_neg_sample_args": None}
    else:
        settings["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": 1}
    rows = 2 if match.recbole_objective == "bce" else 1
    split = {"LS": "valid_and_test"} if match.sequential else {"RS": [0.8, 0.1, 0.1]}
    evaluation = {"split": split, "group_by": "user", "order": "TO", "mode": "full"}
    return settings | {"train_batch_size": rows * batch_size, "eval_args": evaluation}


def digest(targets: Iterable[tuple[str, str]], masked: Iterable[tuple[str, str]]) -> str:
    """A fingerprint of what is ranked: equal on both sides if and only if the task is the same.

    Args:
        targets: (user, item) pairs to find the rank of, by their external ids, in any order.
        masked: (user, item) pairs left out of the ranking.
    """
    found = hashlib.sha256()
    for pairs in (targets, masked):
        found.update("".join(f"{user}\t{item}\n" for user, item in sorted(set(pairs))).encode())
        found.update(b"\n")
    return found.hexdigest()[:16]
