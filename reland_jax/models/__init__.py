"""Backbones, the item representation, the fusion and the losses, in pure Flax.

To add a backbone: write ``models/<name>.py`` with one module, and add a line to `MODELS` (and its name
to `reland_jax.config.BACKBONES`). Its variants `id`, `f_item` and `reland` need no further code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from reland_jax.config import FusionConfig, ModelConfig, ScoreConfig, nearest_name
from reland_jax.linear import EaseConfig, IalsConfig
from reland_jax.models.beside import LateScores, LinearScores
from reland_jax.models.duorec import DuoRec
from reland_jax.models.ease import Ease
from reland_jax.models.entity_graph import build_graph
from reland_jax.models.gat import GAT
from reland_jax.models.graph import Graph, Propagation, bipartite_graph, build_propagation
from reland_jax.models.gru4rec import GRU4Rec
from reland_jax.models.ials import Ials
from reland_jax.models.inputs import AnyTables, PairBatch, SequenceBatch, Tables, Views, applied
from reland_jax.models.lightgcn import LightGCN
from reland_jax.models.neumf import NeuMF
from reland_jax.models.ngcf import NGCF
from reland_jax.models.recommender import CollaborativeRecommender, Recommender, SequentialRecommender
from reland_jax.models.sasrec import SASRec
from reland_jax.types import Ragged, RelandError
from reland_jax.variants import SEED_ID, Variant

__all__ = [
    "MODELS",
    "AnyTables",
    "CollaborativeRecommender",
    "Ease",
    "Graph",
    "Ials",
    "LateScores",
    "Linear",
    "LinearScores",
    "PairBatch",
    "Propagation",
    "Recommender",
    "SequenceBatch",
    "SequentialRecommender",
    "Tables",
    "Views",
    "applied",
    "bipartite_graph",
    "build_graph",
    "build_propagation",
    "create_recommender",
    "training_graph",
]


Linear = Ease | Ials
"""What stands in the place of a module for a recommender that is solved for."""


class Backbone(NamedTuple):
    """One line of the table of backbones.

    Attributes:
        build: (config, L) -> the encoder module; None for a linear model, which is solved for.
        linear: (its settings, D, I, whether it reads texts, number of rationales) -> the linear model.
        sequential: whether it encodes sequences, rather than sets of interactions.
        needs_graph: whether it propagates over the training graph.
        heterogeneous: whether that is a `Graph`, which can have entities.
        contrastive: whether it adds a loss over views of sequences.
        attention: whether it compares every two positions of a row.
        embeddings: how many times D wide the embeddings are that it reads.
    """

    build: Callable[[ModelConfig, int], nn.Module] | None
    sequential: bool = False
    needs_graph: bool = False
    heterogeneous: bool = False
    contrastive: bool = False
    attention: bool = False
    embeddings: int = 1
    linear: Callable[[Any, int, int, bool, int], Linear] | None = None


def _ease(recency: bool, config: EaseConfig, dim: int, num_items: int, texts: bool, rationales: int) -> Ease:
    del dim
    return Ease(config, num_items, texts, rationales, recency)


MODELS = {
    "neumf": Backbone(lambda config, length: NeuMF(config), embeddings=2),
    "ngcf": Backbone(lambda config, length: NGCF(config), needs_graph=True),
    "lightgcn": Backbone(lambda config, length: LightGCN(config), needs_graph=True),
    "gat": Backbone(lambda config, length: GAT(config), needs_graph=True, heterogeneous=True),
    "gru4rec": Backbone(lambda config, length: GRU4Rec(config), sequential=True),
    "sasrec": Backbone(lambda config, length: SASRec(config, length), sequential=True, attention=True),
    "duorec": Backbone(
        lambda config, length: DuoRec(config, length), sequential=True, contrastive=True, attention=True
    ),
    "ease": Backbone(None, linear=partial(_ease, False)),
    "ease_recency": Backbone(None, sequential=True, linear=partial(_ease, True)),
    "ials": Backbone(None, linear=Ials),
}


def create_recommender(
    model: ModelConfig,
    fusion: FusionConfig,
    variant: Variant,
    *,
    num_users: int,
    num_items: int,
    max_length: int,
    embedding_l2: float,
    rationales: int = 1,
    linear: EaseConfig | IalsConfig | None = None,
    beside: ScoreConfig | None = None,
) -> Recommender | Linear:
    """Puts a backbone and its variant together.

    Args:
        model: backbone and sizes.
        fusion: settings of the rationale fusion.
        variant: what it reads.
        num_users: U.
        num_items: I.
        max_length: L, for sequential backbones.
        embedding_l2: BPR's penalty, for collaborative backbones.
        rationales: k, how many rationales a user is given, by a variant that reads any.
        linear: settings of a linear model.
        beside: what is added to the score of a backbone; nothing where None.

    Raises:
        RelandError: unknown backbone.
    """
    if model.backbone not in MODELS:
        raise RelandError(
            f"unknown backbone {model.backbone!r}; {nearest_name(model.backbone, list(MODELS))}"
        )
    entry = MODELS[model.backbone]
    reads = variant.reads_texts, rationales if variant.reads_rationales else 0
    if entry.build is None:
        assert entry.linear is not None
        return entry.linear(linear, model.dim, num_items, *reads)
    width = entry.embeddings * model.dim
    backbone, seed_ids = entry.build(model, max_length), variant.ablation == SEED_ID.ablation
    parts = (width, fusion, backbone, num_users, num_items, *reads, seed_ids, beside or ScoreConfig())
    if entry.sequential:
        return SequentialRecommender(*parts, contrastive=entry.contrastive, attention=entry.attention)
    return CollaborativeRecommender(*parts, embedding_l2=embedding_l2)


def training_graph(
    model: ModelConfig, train: Ragged, num_items: int, entities: np.ndarray | None = None
) -> Propagation | Graph | None:
    """The graph that a backbone reads; None for one that reads none.

    Args:
        model: backbone, and whether it samples neighbours.
        train: training items of every user.
        num_items: I.
        entities: ``<int32>[F, I + 1]``, the entity of every item in F fields, -1 where there is none; for
            a heterogeneous graph.
    """
    backbone = MODELS[model.backbone]
    if not backbone.needs_graph:
        return None
    if backbone.heterogeneous or model.fanout:
        return build_graph(train, num_items, entities if backbone.heterogeneous else None)
    return build_propagation(bipartite_graph(train, num_items), train.num_rows)
