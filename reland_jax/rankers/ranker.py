"""A ranker: embedded fields, a network on them, and the labels' ways to share it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import optax

from reland_jax.fields import check, nearest_name
from reland_jax.ranker_settings import RankerConfig
from reland_jax.rankers import embedding
from reland_jax.rankers.aitm import AITM
from reland_jax.rankers.arms import Arm
from reland_jax.rankers.dcn_v2 import DCNV2
from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.esmm import ESMM
from reland_jax.rankers.layers import NetworkFactory
from reland_jax.rankers.logistic import LogisticRegression
from reland_jax.rankers.masknet import ParallelMaskNet, SerialMaskNet
from reland_jax.rankers.mmoe import MMoE
from reland_jax.rankers.ple import PLE
from reland_jax.rankers.schema import Batch, FieldSchema
from reland_jax.rankers.shared_bottom import SharedBottom
from reland_jax.rankers.single import Single
from reland_jax.rankers.text_fields import Texts
from reland_jax.types import RelandError


class Network(NamedTuple):
    """One line of the table of networks.

    Attributes:
        build: (config, number of text fields, name) -> the module.
        is_linear: whether its output is the logit, and its embeddings are weights.
        attends: whether it attends to sequences whatever the config says.
    """

    build: Callable[[RankerConfig, int, str], nn.Module]
    is_linear: bool = False
    attends: bool = False


def _dnn(config: RankerConfig, text_fields: int, name: str) -> nn.Module:
    del text_fields
    return DNN(config.layers, config.dropout, name=name)


def _dcn_v2(config: RankerConfig, text_fields: int, name: str) -> nn.Module:
    # The text of the item, which is the first, is crossed with what is said of the user.
    return DCNV2(config.cross_layers, config.layers, config.dropout, max(text_fields - 1, 0), name=name)


def _serial(config: RankerConfig, text_fields: int, name: str) -> nn.Module:
    sizes = config.blocks, config.block_width, config.reduction
    return SerialMaskNet(*sizes, text_fields, config.dropout, name=name)


def _parallel(config: RankerConfig, text_fields: int, name: str) -> nn.Module:
    sizes = config.blocks, config.block_width, config.reduction, config.layers
    return ParallelMaskNet(*sizes, text_fields, config.dropout, name=name)


NETWORKS = {
    "logistic": Network(lambda config, text_fields, name: LogisticRegression(name=name), is_linear=True),
    "dnn": Network(_dnn),
    "dcn_v2": Network(_dcn_v2),
    "din": Network(_dnn, attends=True),
    "masknet_serial": Network(_serial),
    "masknet_parallel": Network(_parallel),
}
"""Networks by name: embedded fields ``<float32>[B, f, k]`` -> ``<float32>[B, H]``."""


def _single(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    return Single(network, NETWORKS[config.network].is_linear)


def _shared_bottom(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    return SharedBottom(network, len(config.labels), config.tower, config.dropout)


def _esmm(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    return ESMM(network, len(config.labels))


def _mmoe(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    return MMoE(network, len(config.labels), config.experts, config.tower, config.dropout)


def _ple(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    experts = config.experts, config.own_experts, config.levels
    return PLE(network, len(config.labels), *experts, config.tower, config.dropout)


def _aitm(config: RankerConfig, network: NetworkFactory) -> nn.Module:
    return AITM(network, len(config.labels), config.tower, config.dropout)


TASKS: dict[str, Callable[[RankerConfig, NetworkFactory], nn.Module]] = {
    "single": _single,
    "shared_bottom": _shared_bottom,
    "esmm": _esmm,
    "mmoe": _mmoe,
    "ple": _ple,
    "aitm": _aitm,
}
"""Tasks by name: embedded fields -> logits of reaching each label, ``<float32>[B, T]``."""


def _named_network(config: RankerConfig, text_fields: int, name: str) -> nn.Module:
    """The network of a config, by the name that its task gives it."""
    return NETWORKS[config.network].build(config, text_fields, name)


class Ranker(nn.Module):
    """A ranker of impressions; its embeddings are a table beside it (`embedding`).

    Attributes:
        config: network, task and sizes.
        schema: the declared features.
        arm: which texts are fields.
        seed_users: S, if seed users have embeddings (`Arm.reads_seed_ids`), else 0.
    """

    config: RankerConfig
    schema: FieldSchema
    arm: Arm
    seed_users: int = 0

    def setup(self) -> None:
        """Declares the parts."""
        config, network = self.config, NETWORKS[self.config.network]
        attends = network.attends or config.history == "attention"
        self.embedding = embedding.FieldEmbedding(
            self.schema, self.arm, self.width, config.embedding_scale,
            config.attention_layers if attends else (), self.seed_users,
        )  # fmt: skip
        self.task = TASKS[config.task](config, self.network)

    def adapted(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimiser of all parameters beside the table, where some have a learning rate of their own."""
        return optimizer

    @property
    def network(self) -> NetworkFactory:
        """Makes networks of the config."""
        return partial(_named_network, self.config, self.arm.fields)

    @property
    def width(self) -> int:
        """Numbers per field."""
        return 1 if NETWORKS[self.config.network].is_linear else self.config.width

    def __call__(self, looked_up: jax.Array, batch: Batch, texts: Texts, train: bool = False) -> jax.Array:
        """Logits that a row reaches each label.

        Args:
            looked_up: ``<float32>[B, n, k]``, the rows of the table that the batch reads (`table_index`).
            batch: see `reland_jax.rankers`.
            texts: what the arm reads (`arm_texts`).
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``<float32>[B, T]``.
        """
        return self.task(self.embedding(looked_up, batch, texts), train)


def table_index(ranker: Ranker, batch: Batch, texts: Texts) -> jax.Array:
    """The rows of the table that a batch reads, ``<int32>[B, n]``."""
    return embedding.table_index(ranker.schema, batch, texts, ranker.seed_users)


def create_ranker(config: RankerConfig, schema: FieldSchema, arm: Arm, seed_users: int = 0) -> Ranker:
    """Puts a network, a task and an arm together.

    Args:
        config: network, task and sizes.
        schema: the declared features.
        arm: which texts are fields.
        seed_users: S; read where the arm embeds seed users.

    Raises:
        RelandError: parts that do not go together.
    """
    check_parts(config, schema, arm, seed_users)
    return Ranker(config, schema, arm, seed_users if arm.reads_seed_ids else 0)


def check_parts(config: RankerConfig, schema: FieldSchema, arm: Arm, seed_users: int) -> None:
    """Checks that the parts of a ranker go together; see `create_ranker`."""
    check(config, "ranker")
    for label in (*config.labels, *filter(None, [config.trained_on])):
        if label not in schema.labels:
            raise RelandError(f"label {label!r} is not declared; {nearest_name(label, schema.labels)}")
    _check_task(config)
    if NETWORKS[config.network].attends and not any(each.kind == "sequence" for each in schema.features):
        raise RelandError(f"network {config.network!r} reads a sequence, and the schema declares none")
    if arm.reads_seed_ids and seed_users < 1:
        raise RelandError(f"arm {arm.name!r} embeds seed users: say how many there are")


def _check_task(config: RankerConfig) -> None:
    is_single, labels = config.task == "single", ",".join(config.labels)
    if is_single != (len(config.labels) == 1):
        number = "one label" if is_single else "two labels or more"
        raise RelandError(f"task {config.task!r} needs {number}, and labels is {labels}")
    if NETWORKS[config.network].is_linear and not is_single:
        raise RelandError(f"network {config.network!r} has nothing that labels could share: use task=single")
    if config.trained_on and not is_single:
        raise RelandError(f"trained_on={config.trained_on} is for task=single, not for task={config.task}")
