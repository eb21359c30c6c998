"""Settings of a ranker of several scenarios: its backbone, and the meta layers around it."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import Job
from reland_jax.fields import setting as _setting
from reland_jax.pool_settings import LLMConfig, PoolConfig
from reland_jax.ranker_settings import MAX_SEED, LogConfig, RankerConfig, RankerTextsConfig, RankerTrainConfig

BACKBONES = ("one", "shared_bottom", "mmoe", "ple", "star", "epnet", "ppnet", "pepnet")
"""Ways in which scenarios share what is learned, from the plainest on."""

ALONE, CHAIN = "alone", "aitm"
"""Beside the backbones: a model for each scenario, and the chain of both labels over all scenarios."""

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
        0.9, "star: share of the moving statistics that a step keeps, once there were enough", low=0, high=1
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


@dataclasses.dataclass(frozen=True)
class KnowledgeConfig:
    """Where the vectors of scenarios and of users come from."""

    source: str = _setting(
        "texts", "texts (by config.pool.provider, encoded), file, or truth (of the generated shop)",
        choices=("texts", "file", "truth"),
    )  # fmt: skip
    path: str | None = _setting(None, "file: .npz of vectors", path=True, none="none")
    users: str = _setting(
        "seed", "whose knowledge a user is given: that of the matched seed user, or the own one",
        choices=("seed", "own"),
    )  # fmt: skip
    pools: tuple[str, ...] = _setting(
        (), "texts: pool files whose rationales are the texts of users, in the place of the provider's; with "
        "users=seed a user without one is given that of the user of the files whose behaviour is most like",
        names=True,
    )  # fmt: skip
    words: str = _setting("category", "texts: the feature of items that is told")
    history: int = _setting(5, "texts: last clicks that are told per scenario", low=1)
    descriptions: tuple[str, ...] = _setting((), "texts: SCENARIO=what it is, for some scenarios", names=True)
    model: str | None = _setting(
        None, "texts: a language model (.gguf) whose hidden state after a text is its vector", path=True,
        none="vectors by the text encoder",
    )  # fmt: skip
    directions: int | None = _setting(
        32, "texts: principal directions kept of the vectors of users", low=1, none="raw vectors"
    )


@dataclasses.dataclass(frozen=True)
class ScenarioJob(Job):
    """Backbones, alone and with meta layers, beside their controls, on one log."""

    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    ranker: RankerConfig = dataclasses.field(default_factory=RankerConfig)
    scenarios: ScenarioConfig = dataclasses.field(default_factory=ScenarioConfig)
    knowledge: KnowledgeConfig = dataclasses.field(default_factory=KnowledgeConfig)
    train: RankerTrainConfig = dataclasses.field(default_factory=RankerTrainConfig)
    texts: RankerTextsConfig = dataclasses.field(default_factory=RankerTextsConfig)
    pool: PoolConfig = dataclasses.field(default_factory=PoolConfig)
    llm: LLMConfig = dataclasses.field(default_factory=LLMConfig)
    backbones: tuple[str, ...] = _setting(
        BACKBONES, f"backbones, and {ALONE} (a model for each scenario) or {CHAIN} (both labels as a chain)",
        choices=(*BACKBONES, ALONE, CHAIN), filled=True, names=True,
    )  # fmt: skip
    controls: tuple[str, ...] = _setting(
        ("backbone",), "what the meta layers of each backbone are made of; all: every control",
        filled=True, names=True,
    )  # fmt: skip
    baseline: str = _setting(
        "shared_bottom", "backbone that the others are compared with", choices=(*BACKBONES, ALONE, CHAIN)
    )
    seeds_of_training: tuple[int, ...] = _setting(
        (0,), "each cell is trained once per seed", low=0, high=MAX_SEED, filled=True, distinct=True
    )
    rates: tuple[float, ...] = _setting(
        (), "learning rates that validation chooses between for every backbone; empty: those of config.train",
        above=0, distinct=True,
    )  # fmt: skip
    meta_rates: tuple[float, ...] = _setting(
        (), "values of config.scenarios.meta_rate that validation chooses between for every model with meta "
        "layers; empty: that value", above=0, distinct=True,
    )  # fmt: skip
    draws: int = _setting(1000, "draws of users of a bootstrap", low=1)
    keep_programs: bool = _setting(True, "keep compiled programs in the workdir", machine=True)
