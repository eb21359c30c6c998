"""Settings of the linear models, which are solved for, and of what they and texts add to other scores.

`reland_jax.config` has them with all others.
"""

from __future__ import annotations

import dataclasses

from reland_jax.fields import setting as _setting
from reland_jax.types import RelandError

SECTIONS = {"ease": "ease", "ease_recency": "ease", "ials": "ials"}
"""The section of the settings that a linear model reads, by backbone. `ease` and `ials` are models of sets;
`ease_recency` is one of sequences, whose newer items weigh more."""

LINEAR = tuple(SECTIONS)
"""Backbones that are solved for by least squares."""


@dataclasses.dataclass(frozen=True)
class EaseConfig:
    """The linear models `ease` and `ease_recency`."""

    regularisation: float = _setting(100.0, "lambda, added to the diagonal of X'X", above=0)
    text_weight: float = _setting(
        30.0, "f_item, reland: beta, weight of item similarities by text, added to X'X; 0: none", low=0
    )
    rationale_weight: float = _setting(
        0.3, "reland: weight of a user's rationales relative to its items; 0 reads none", low=0
    )
    reading: str = _setting(
        "columns",
        "reland: how a user's rationales are read. columns: the mean of their vectors as more columns of X; "
        "phrases: by the likeness of each item to the items that they name",
        choices=("columns", "phrases"), added=True,
    )  # fmt: skip
    phrase_weight: float = _setting(
        0.01, "reading=phrases: weight of the likeness of an item to the phrase that is most alike", low=0,
        added=True,
    )  # fmt: skip
    half_life: float = _setting(
        1.0, "ease_recency: number of newer items after which a history item weighs half as much", above=0
    )
    precision: str = _setting(
        "float64",
        "precision of the solution; float32 takes half the memory and suits devices without float64",
        choices=("float64", "float32"),
    )
    form: str = _setting(
        "exact",
        "exact: a matrix of items by items is inverted; sparse: each item is predicted from a few others, "
        "for catalogues whose matrix does not fit in memory",
        choices=("exact", "sparse"), added=True,
    )  # fmt: skip
    neighbours: int = _setting(128, "form=sparse: k, how many items predict an item", low=1, added=True)


@dataclasses.dataclass(frozen=True)
class IalsConfig:
    """The factorisation `ials`; its width is `model.dim`."""

    unobserved: float = _setting(0.003, "alpha, the weight of all pairs of user and item", above=0)
    regularisation: float = _setting(0.003, "lambda, of the squared factors", above=0)
    frequency: float = _setting(
        1.0, "nu: a row is regularised by its weight of observations to this power", low=0, high=1
    )
    sweeps: int = _setting(16, "times that users and items are solved for", low=1)
    steps: int = _setting(3, "steps of conjugate gradients by which a row is solved for in a sweep", low=1)
    initial_scale: float = _setting(0.1, "length of the item factors before the first sweep", above=0)
    text_weight: float = _setting(
        1.0, "f_item, reland: beta, of the item texts that are factorised too; 0 reads none", low=0
    )
    rationale_weight: float = _setting(
        0.1, "reland: rho, of the users' rationales that are factorised too; 0 reads none", low=0
    )


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What is added to the score of a backbone; by default nothing, as in the paper."""

    text_kernel: float | None = _setting(
        None, "f_item, reland: a learned metric between the texts of a user's items and of an item is added, "
        "which starts as this multiple of the identity", above=0, added=True, none="there is none",
    )  # fmt: skip
    linear: float | None = _setting(
        None, "the scores of a linear model are added (config.ease in its sparse form), at first times this",
        above=0, added=True, none="they are not",
    )  # fmt: skip
    added: str = _setting(
        "training",
        "linear: training: the backbone is trained upon these scores, and learns the factor; ranking: it is "
        "trained without them, and rankings add them times a fixed factor",
        choices=("training", "ranking"), added=True,
    )  # fmt: skip
    folds: int = _setting(
        1, "linear: parts of the users, each trained upon the linear model of the others", low=1, added=True
    )
    votes: int = _setting(64, "linear: items that an item of a history speaks for", low=1, added=True)
    listed: int = _setting(256, "linear, of sets: items of a user with a score by it", low=1, added=True)
    half_life: float = _setting(
        1.0, "of sequences: newer items after which an item weighs half as much", above=0, added=True
    )
    recent: int = _setting(10, "of sequences: newest items that are read", low=1, added=True)


def check_linear(encoder: str, backbone: str, objective: str, history: str = "train") -> None:
    """Raises `RelandError` where a linear model is put to what it cannot do.

    Args:
        encoder: backbone of the behaviour encoder.
        backbone: of the recommender.
        objective: by which the recommender is trained.
        history: what is read for the test part, see `EvalConfig`.
    """
    if history == "known" and backbone not in LINEAR:
        raise RelandError(
            f"config.eval.history='known' does not fit config.model.backbone={backbone!r}: only "
            f"{', '.join(LINEAR)} read a history anew for the test part; models of sequences read the "
            "validation items anyway, and a backbone of sets has learned a vector for each user; leave it at "
            "'train'"
        )
    if encoder in LINEAR:
        raise RelandError(
            f"config.encoder.model.backbone={encoder!r}: a linear model is no encoder; take lightgcn"
        )
    if (backbone in LINEAR) != (objective == "closed_form"):
        raise RelandError(
            f"config.train.objective={objective!r} does not fit config.model.backbone={backbone!r}: "
            f"{', '.join(LINEAR)}, and no others, are solved for, which closed_form stands for"
        )
