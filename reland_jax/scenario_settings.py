"""Settings of a ranker of several scenarios: its backbone, and the meta layers around it."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import setting as _setting

BACKBONES = ("one", "shared_bottom", "mmoe", "ple", "star", "epnet", "ppnet", "pepnet")
"""Ways in which scenarios share what is learned, from the plainest on."""

LEVELS = ("user", "scenario")
"""Levels of knowledge that meta layers are made of."""

GIVEN, TRAINABLE = "given", "trainable"
VECTORS = (GIVEN, TRAINABLE)
"""Frozen vectors of knowledge, or learned ones in their place."""

LOW_RANK, FULL = "low_rank", "full"


@dataclasses.dataclass(frozen=True)
class ScenarioConfig:
    """Scenarios of a ranker. Experts, towers and hidden layers are those of `RankerConfig`."""

    backbone: str = _setting("star", "how scenarios share what is learned", choices=BACKBONES)
    feature: str = _setting("scenario", "the categorical feature that is the scenario")
    prior: tuple[str, ...] = _setting(
        ("user_id", "item_id"), "ppnet, pepnet: categorical features that the gates of the layers read",
        filled=True, names=True,
    )  # fmt: skip
    gate_width: int = _setting(64, "epnet, ppnet, pepnet: hidden units of a gate", low=1)
    momentum: float = _setting(
        0.99, "star: share of the moving statistics that a step keeps, once there were enough", low=0, high=1
    )
    auxiliary: tuple[int, ...] = _setting((32,), "star: hidden layers of the auxiliary network", low=1)
    meta: tuple[str, ...] = _setting((), "levels with meta layers, of user and scenario; empty: none")
    meta_form: str = _setting(
        LOW_RANK, "low_rank, or full: a whole matrix for every row", choices=(LOW_RANK, FULL)
    )
    meta_rank: int = _setting(8, "low_rank: r, side of the square matrix that is made of knowledge", low=1)
    meta_hidden: int = _setting(64, "hidden units of a network that makes weights of knowledge", low=1)
    meta_width: int = _setting(32, "hidden units of the layers at scenario level", low=1)
    meta_rate: float = _setting(0.3, "learning rate of the meta layers, as a share of the others'", above=0)
    user_vectors: str = _setting(GIVEN, "knowledge of users, or learned vectors", choices=VECTORS)
    scenario_vectors: str = _setting(GIVEN, "knowledge of scenarios, or learned vectors", choices=VECTORS)
    vector_width: int = _setting(16, "trainable: numbers of a learned vector", low=1)
