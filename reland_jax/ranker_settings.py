"""Settings of a ranker of impressions: its network, its tasks and its embeddings."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import setting as _setting

NETWORKS = ("logistic", "dnn", "dcn_v2", "din", "masknet_serial", "masknet_parallel")
"""Networks over the embedded fields, from the plainest on."""

TASKS = ("single", "shared_bottom", "esmm", "mmoe", "ple", "aitm")
"""How the labels of a funnel (a click, a conversion after it) share what is learned."""


@dataclasses.dataclass(frozen=True)
class RankerConfig:
    """A ranker. The defaults are those of the MaskNet paper where it states them."""

    network: str = _setting("masknet_parallel", "the network over the embedded fields", choices=NETWORKS)
    task: str = _setting("single", "how several labels share what is learned", choices=TASKS)
    labels: tuple[str, ...] = _setting(
        ("click",), "labels in the order of the funnel, such as click,conversion", filled=True, names=True
    )
    trained_on: str = _setting("", "task=single: only rows with this label are trained on; empty: all rows")
    width: int = _setting(10, "k, numbers per field; `logistic` has one", low=2)
    embedding_scale: float = _setting(0.01, "standard deviation of the embeddings at the start", above=0)
    layers: tuple[int, ...] = _setting(
        (400, 400, 400), "hidden layers of dnn, din, dcn_v2, and above the blocks of masknet_parallel", low=1
    )
    blocks: int = _setting(3, "masknet: number of mask blocks", low=1)
    block_width: int = _setting(400, "masknet: hidden units of a mask block", low=1)
    reduction: float = _setting(2.0, "masknet: r, units of a mask's hidden layer per masked number", above=0)
    cross_layers: int = _setting(3, "dcn_v2: cross layers", low=1)
    history: str = _setting(
        "mean",
        "how a sequence becomes one field: mean, or attention by the candidate; din always attends",
        choices=("mean", "attention"),
    )
    attention_layers: tuple[int, ...] = _setting(
        (80, 40), "history=attention, and din: hidden layers of the attention", low=1
    )
    experts: int = _setting(4, "mmoe: experts; ple: those that all labels share", low=1)
    own_experts: int = _setting(2, "ple: further experts of every label", low=1)
    levels: int = _setting(1, "ple: levels of experts", low=1)
    tower: tuple[int, ...] = _setting(
        (64, 32), "all but single and esmm: hidden layers of the tower of every label", low=1, filled=True
    )
    calibration: float = _setting(
        0.6, "aitm: weight of the penalty for a later step more probable than the step before it", low=0
    )
    dropout: float = _setting(0.0, "share of hidden units dropped in training", low=0, high=0.95)
    embedding_l2: float = _setting(
        0.0, "weight of the mean over rows of the squared embeddings that a row reads", low=0
    )
    text_l2: float = _setting(1e-4, "weight of the squared projections of texts", low=0)
