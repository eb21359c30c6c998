"""Recommenders small enough to be trained in a second, for the tests of the loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import EvalConfig, FusionConfig, ModelConfig, TrainConfig
from reland_jax.eval import Vectors
from reland_jax.models import Tables, create_recommender, training_graph
from reland_jax.models.scores import dot_product
from reland_jax.train import Evaluator, Task, create_task
from reland_jax.types import Splits
from reland_jax.variants import find_variant
from tests.toys import planted_splits

MAX_LENGTH = 5
SEQUENTIAL = TrainConfig(
    objective="shifted", learning_rate=0.02, batch_size=28, max_epochs=5, patience=100, steps_per_dispatch=4
)
"""With `planted_splits()`: 224 targets, 8 steps, 2 dispatches an epoch."""
PAIRS = dataclasses.replace(SEQUENTIAL, objective="bpr", batch_size=64, steps_per_dispatch=2)
SIZES = ModelConfig(dim=8, layers=1, heads=2, inner=16, dropout=0.1, hidden=8, tower=(8, 4))


def toy_task(
    backbone: str,
    config: TrainConfig,
    variant: str = "id",
    tables: Tables | None = None,
    fanout: tuple[int, ...] = (),
) -> tuple[Task, Evaluator]:
    """A tiny recommender on `planted_splits`, with dropout where the backbone has any."""
    splits = planted_splits()
    task = tiny_task(backbone, splits, config, variant, tables, fanout)
    return task, Evaluator(task, splits, EvalConfig())


def tiny_task(
    backbone: str,
    splits: Splits,
    config: TrainConfig,
    variant: str = "id",
    tables: Tables | None = None,
    fanout: tuple[int, ...] = (),
) -> Task:
    """The same on any split, without an evaluator."""
    if tables is None:
        tables = Tables()
    sizes = dataclasses.replace(SIZES, backbone=backbone, fanout=fanout)
    if (graph := training_graph(sizes, splits.train, splits.num_items)) is not None:
        tables = tables._replace(propagation=graph)
    model = create_recommender(
        sizes, FusionConfig(), find_variant(variant),
        num_users=splits.num_users, num_items=splits.num_items, max_length=MAX_LENGTH, embedding_l2=1e-4,
    )  # fmt: skip
    return create_task(model, tables, splits, config, MAX_LENGTH)


def scored(users: jax.Array, items: jax.Array) -> Vectors:
    """Vectors whose score is the dot product."""
    return Vectors(users, items, jax.tree_util.Partial(dot_product))


class Slope(nn.Module):
    """A loss without a minimum: the parameter moves by the learning rate at every step."""

    @property
    def trained(self) -> nn.Module:
        """What a step trains: the model itself."""
        return self

    def setup(self) -> None:
        self.height = self.param("height", nn.initializers.zeros, ())

    def loss(self, tables: Tables, batch: jax.Array) -> jax.Array:
        del tables, batch
        return -self.height


def slope_task(steps: int = 4) -> Task:
    """A task that trains a `Slope`; costs next to nothing to compile."""
    return Task(
        model=Slope(), tables=Tables(), data=jnp.zeros(()), steps=steps, targets=steps,
        epoch_order=lambda data, key: data, batch=lambda data, order, step, key: data,
        vectors=lambda params, split: scored(jnp.ones((1, 1)), jnp.ones((2, 1))),
    )  # fmt: skip


class Scripted:
    """An evaluator that says what it is told to, and keeps the parameters it was shown."""

    def __init__(self, values: list[float]) -> None:
        """The validation NDCG@10 of every call."""
        self.values, self.seen = values, list[float]()

    def metrics(self, params: Any, part: str) -> dict[str, float]:
        self.seen.append(float(params["params"]["height"]))
        return {"ndcg@10": self.values[len(self.seen) - 1]}


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A history without what differs from run to run."""
    return [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]


def assert_same_tree(first: Any, second: Any) -> None:
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, first, second)


def constant_splits_ndcg(splits: Splits) -> float:
    """NDCG@10 that a model without any knowledge is expected to reach: a random place in the list."""
    place = np.arange(1, splits.num_items + 1)
    return float(np.where(place <= 10, 1 / np.log2(place + 1), 0).mean())
