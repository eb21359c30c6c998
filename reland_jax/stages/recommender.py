"""Builds a recommender with its data from settings and splits."""

from __future__ import annotations

import dataclasses
from typing import Any

from reland_jax.config import Config, ModelConfig
from reland_jax.data import item_entities
from reland_jax.linear import SECTIONS
from reland_jax.models import MODELS, Linear, Recommender, Tables, create_recommender, training_graph
from reland_jax.train import ClosedForm, Task, create_task
from reland_jax.types import Interactions, Splits
from reland_jax.variants import ID, SEED_ID, Variant


def id_task(config: Config, splits: Splits, interactions: Interactions | None = None) -> Task | ClosedForm:
    """The variant `id` of the config's backbone with its data; it needs neither texts nor a pool.

    Args:
        config: all settings.
        splits: of the interactions.
        interactions: for the entities of GAT's graph; without them, it consists of users and items.
    """
    tables = Tables(propagation=graph_of(config.model, splits, interactions))
    return create_task(model_of(config, splits, ID), tables, splits, config.train, config.data.max_length)


def model_of(config: Config, splits: Splits, variant: Variant, rationales: int = 0) -> Recommender | Linear:
    """The config's backbone with a variant.

    Args:
        config: all settings.
        splits: for the numbers of users and items.
        variant: the variant.
        rationales: number per user.
    """
    return create_recommender(
        config.model,
        config.fusion,
        variant,
        num_users=splits.num_users,
        num_items=splits.num_items,
        max_length=config.data.max_length,
        embedding_l2=config.train.embedding_l2,
        rationales=rationales,
        linear=_linear_of(config, variant),
        beside=config.score,
    )


def _linear_of(config: Config, variant: Variant) -> Any:
    """The settings of a linear backbone for a variant: what has no words is read as columns."""
    linear = linear_settings(config)
    if linear is not None and variant == SEED_ID and reads_phrases(config):
        return dataclasses.replace(linear, reading="columns")
    return linear


def reads_phrases(config: Config) -> bool:
    """Whether the backbone reads a rationale as the phrases of its step 2."""
    linear = linear_settings(config)
    return config.fusion.reading == "set" if linear is None else getattr(linear, "reading", "") == "phrases"


def linear_settings(config: Config) -> Any:
    """The settings of a linear backbone; None for another one."""
    section = SECTIONS.get(config.model.backbone)
    return None if section is None else getattr(config, section)


def has_entities(model: ModelConfig) -> bool:
    """Whether the graph of a backbone has nodes for attributes of items."""
    return MODELS[model.backbone].heterogeneous


def graph_of(model: ModelConfig, splits: Splits, interactions: Interactions | None) -> Any:
    """The graph of the training part, for a backbone that reads one."""
    entities = None
    if interactions is not None and has_entities(model):
        entities = item_entities(interactions, model.entities)
    return training_graph(model, splits.train, splits.num_items, entities)
