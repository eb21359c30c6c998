"""GAT as the behaviour encoder of the pipeline, whole and on sampled neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.data import load_interactions, split
from reland_jax.stages import FLOW, id_task, seeding_of
from reland_jax.storage import Seeding
from reland_jax.train import param_shapes
from tests.e2e.conftest import merged

Settings = Callable[..., dict[str, Any]]


def config_of(settings: Settings, fanout: tuple[int, ...], entities: tuple[str, ...]) -> Config:
    model = {"backbone": "gat", "dim": 8, "layers": 1, "dropout": 0.0, "fanout": fanout, "entities": entities}
    train = {"max_epochs": 20, "eval_every": 20, "batch_size": 128, "checkpoint_seconds": 60.0}
    changes = settings(encoder={"text_weight": 0.0, "model": model, "train": train})
    return Config.from_dict(merged(get_config("demo,lightgcn").to_dict(), changes))


def share_in_common(seeding: Seeding, pairs: np.ndarray) -> float:
    """Of pairs of users ``<int>[n, 2]``, the mean share of the first one's items that the second has."""
    rows = [set(seeding.splits.train.row(user).tolist()) for user in range(seeding.splits.num_users)]
    return float(np.mean([len(rows[a] & rows[b]) / len(rows[a]) for a, b in pairs]))


@pytest.mark.parametrize("fanout", [(3,), pytest.param((), marks=pytest.mark.slow)])
def test_users_with_near_vectors_have_items_in_common(
    settings: Settings, tmp_path: Path, fanout: tuple[int, ...]
) -> None:
    config = config_of(settings, fanout, ("brand", "categories"))
    seeding = seeding_of(flow.run(FLOW, config, tmp_path, until="sample_seeds"))
    users = seeding.splits.num_users
    assert seeding.behaviour.shape == (users, 8) and np.isfinite(seeding.behaviour).all()
    unit = seeding.behaviour / np.linalg.norm(seeding.behaviour, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(users)
    nearest = np.stack([np.arange(users), cosine.argmax(1)], 1)
    anyone = np.array([(a, b) for a in range(users) for b in range(users) if a != b])
    assert share_in_common(seeding, nearest) > 1.5 * share_in_common(seeding, anyone)


def test_brands_and_categories_of_the_items_are_nodes(settings: Settings) -> None:
    """One embedding for each value that an item of the data has."""
    config = config_of(settings, (), ("brand", "categories"))
    config = dataclasses.replace(config, model=config.encoder.model, train=config.encoder.train)
    interactions = load_interactions(config.data)
    splits = split(interactions, config.data.protocol)
    names = [set(interactions.item_features[field]) - {""} for field in ("brand", "categories")]
    count = sum(map(len, names))
    shapes = param_shapes(id_task(config, splits, interactions), config.train)["params"]
    assert shapes["backbone"]["entities"]["embedding"].shape == (count, 8)
    assert shapes["backbone"]["attention"]["relation"].shape == (1, 3 + 2 * 2, 2)
    alone = param_shapes(id_task(config, splits), config.train)["params"]["backbone"]
    assert set(alone) == {"attention"}
