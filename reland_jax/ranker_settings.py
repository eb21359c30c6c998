"""Settings of rankers of impressions: network, tasks and embeddings, training, and a comparison of arms."""

from __future__ import annotations

import dataclasses

from reland_jax.fields import Job
from reland_jax.fields import setting as _setting

NETWORKS = ("logistic", "dnn", "dcn_v2", "din", "masknet_serial", "masknet_parallel")
"""Networks over the embedded fields, from the plainest on."""

TASKS = ("single", "shared_bottom", "esmm", "mmoe", "ple", "aitm")
"""How the labels of a funnel (a click, a conversion after it) share what is learned."""

ROW_OPTIMIZERS = ("lazy_adam", "row_wise_adagrad")
"""Optimisers of the embeddings."""

MAX_SEED = 2**30 - 1
"""Largest training seed: every seed has keys for two purposes."""

DRAWN_BY = ("uniform", "popularity")
"""How negatives are drawn: alike for all items, or as often as they are bought in training."""

MONITORS = ("logloss", "auc")
"""What a validation may be judged by, each the mean over the labels."""


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


@dataclasses.dataclass(frozen=True)
class RankerTrainConfig:
    """How a ranker is trained."""

    batch_size: int = _setting(1024, "impressions of a step", low=1)
    learning_rate: float = _setting(1e-3, "of Adam, for all but the embeddings", above=0)
    table_optimizer: str = _setting(
        "lazy_adam", "optimiser of the embeddings; each touches the rows of a step", choices=ROW_OPTIMIZERS
    )
    table_learning_rate: float = _setting(1e-3, "of the embeddings", above=0)
    weight_decay: float = _setting(0.0, "decoupled, of matrices beside the embeddings", low=0)
    max_epochs: int = _setting(20, "epochs at the most", low=1)
    validations: int = _setting(
        1, "validations in an epoch; rankers often are best within their first ones", low=1
    )
    patience: int = _setting(2, "validations without a better one until training stops", low=1)
    monitor: str = _setting("logloss", "what a validation is judged by", choices=MONITORS)
    checkpoint_seconds: float = _setting(
        300.0, "seconds between checkpoints; one is written at the end anyway", low=0, machine=True
    )


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Which log of impressions, and its parts."""

    name: str = _setting(
        "shop", "shop (generated), kuairand-pure, ml-1m-full, or the path of a log with a schema", path=True
    )
    root: str = _setting("", "folder of the data sets; empty: $RELAND_DATA, else ../shared/data", path=True)
    schema: str = _setting("", "JSON file that declares the columns of a log given by its path", path=True)
    min_count: int = _setting(2, "training rows that a value needs for an embedding of its own", low=1)
    longest: int = _setting(50, "values of a list that are kept", low=1)
    valid_days: int = _setting(1, "last days before those of testing, where the data have no split", low=1)
    test_days: int = _setting(2, "last days", low=1)
    warm_days: int = _setting(
        0, "first days, by the clicks of which users are matched, and on which no ranker is trained; "
        "0: the clicks of the training rows, which a ranker then reads twice",
        low=0, added=True,
    )  # fmt: skip
    without: tuple[str, ...] = _setting((), "features that are not read", names=True)
    streamed: bool = _setting(
        False, "a log of your own: train from Parquet shards made in the workdir; rows of validation and "
        "testing alone are kept in memory",
        added=True,
    )  # fmt: skip
    texts: tuple[str, ...] = _setting(
        (), "features of items that are their text, and no feature; empty: those that the data set has",
        names=True,
    )  # fmt: skip
    shop_users: int = _setting(500, "shop: users", low=10)
    shop_rows: int = _setting(200_000, "shop: impressions", low=100)
    shop_strength: float = _setting(1.5, "shop: what the rationales are worth; 0 is nothing", low=0)
    shop_shares: tuple[float, ...] = _setting(
        (), "shop: share of the impressions of each scenario; empty: three alike", above=0
    )
    shop_specific: float = _setting(0.0, "shop: how much scenarios of another style differ", low=0)
    shop_tastes: int = _setting(
        0, "shop: groups of users with the same favourites; 0: every user has its own",
        low=0, high=66, added=True,
    )  # fmt: skip
    shop_alone: float = _setting(
        0.1, "shop: share of users in no group, with favourites of their own", low=0, high=1, added=True
    )
    shop_seed: int = _setting(20240914, "shop: seed of everything in it", low=0, added=True)
    scenarios: tuple[str, ...] = _setting((), "scenarios that are read; empty: all", names=True)
    domains: tuple[str, ...] = _setting(
        (), "domains: data sets of purchases that are its scenarios, in one space of users and items",
        names=True, added=True,
    )  # fmt: skip
    negatives: int = _setting(4, "domains: items drawn for a purchase", low=1, added=True)
    drawn_by: str = _setting(
        "uniform", "domains: how negatives are drawn within the domain", choices=DRAWN_BY, added=True
    )
    single_users: int | None = _setting(
        None, "domains: users of one domain that are kept, beside all users of several", low=0, none="all",
        added=True,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RankerTextsConfig:
    """Where the rationales that arms read come from: seed users, their texts, and who is given which."""

    fraction: float = _setting(0.1, "seed users as a share of all users", above=0, high=1)
    encoder_epochs: int = _setting(20, "epochs of the behaviour encoder (LightGCN) on training clicks", low=1)
    encoder_batch: int = _setting(4096, "training clicks of a step of it", low=1)
    text_encoder: str = _setting("minilm", "see config.text.encoder of the main job", path=True)
    max_tokens: int = _setting(128, "tokens of a text that are read", low=3)
    directions: int | None = _setting(
        128, "principal directions of the item texts that texts are whitened in", low=1, none="raw vectors"
    )
    seed: int = _setting(0, "seed of K-means, of sampling, and of what permuted and noise draw", low=0)


@dataclasses.dataclass(frozen=True)
class RankerJob(Job):
    """A comparison of arms of one ranker on one log."""

    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    ranker: RankerConfig = dataclasses.field(default_factory=RankerConfig)
    train: RankerTrainConfig = dataclasses.field(default_factory=RankerTrainConfig)
    texts: RankerTextsConfig = dataclasses.field(default_factory=RankerTextsConfig)
    arms: tuple[str, ...] = _setting(
        ("id",), "arms to train; all: every arm that the data allow",
        filled=True, names=True,
    )  # fmt: skip
    seeds_of_training: tuple[int, ...] = _setting(
        (0,), "each arm is trained once per seed", low=0, high=MAX_SEED, filled=True, distinct=True
    )
    search: bool = _setting(
        False, "choose dropout and penalty of the embeddings by validation, with the first training seed; "
        "arms beside reland have what is chosen for it; False: those of config.ranker", added=True,
    )  # fmt: skip
    draws: int = _setting(2000, "draws of users of a bootstrap", low=1)
    keep_programs: bool = _setting(True, "keep compiled programs in the workdir", machine=True)
