"""What a stage writes is what the next run reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.storage import (
    Texts,
    Trained,
    load_array,
    load_assignment,
    load_interactions,
    load_splits,
    load_texts,
    load_trained,
    save_array,
    save_assignment,
    save_interactions,
    save_splits,
    save_texts,
    save_trained,
)
from reland_jax.types import Assignment, IdMap, Interactions, TargetRanks
from tests.toys import planted_splits


def assert_same(first: Any, second: Any) -> None:
    """The same structure, types and values; text may come back as fixed-width unicode."""
    if isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, tuple):
        assert type(first) is type(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, np.ndarray) and first.dtype != object:
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    else:
        assert np.array_equal(first, second)


@pytest.mark.parametrize("fixed", [None, np.array([0, 1, 2], np.int8)])
def test_interactions(tmp_path: Path, fixed: np.ndarray | None) -> None:
    interactions = Interactions(
        user=np.array([0, 0, 1], np.int32),
        item=np.array([2, 1, 2], np.int32),
        time=np.array([1.5, 2.0, 1e12]),
        ids=IdMap(np.array(["u-a", "Ünal"], object), np.array(["", "i.1", "i 2"], object)),
        item_features={"title": np.array(["", "Crème", ""], object), "a.b": np.array(["", "x", "y"], object)},
        user_features={"gender": np.array(["F", ""], object)},
        fixed_split=fixed,
    )
    save_interactions(interactions, tmp_path)
    assert_same(interactions, load_interactions(tmp_path))
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert {2, 3} <= set(statistics.values())


def test_splits(tmp_path: Path) -> None:
    splits = planted_splits()
    save_splits(splits, tmp_path)
    assert_same(splits, load_splits(tmp_path))


def test_arrays_texts_and_assignment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array, other = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    cases = [
        (array, save_array, load_array),
        (Texts(array, other), save_texts, load_texts),
        (Assignment(rng.integers(9, size=(4, 2)).astype(np.int32), array), save_assignment, load_assignment),
    ]
    for number, (value, save, load) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        save(value, folder)
        assert_same(value, load(folder))


def test_trained(tmp_path: Path) -> None:
    params = {"params": {"items": {"id_embedding": jnp.arange(6.0).reshape(3, 2)}, "bias": jnp.ones(2) / 3}}
    ranks = {
        part: TargetRanks(*(np.arange(start, start + 3, dtype=np.int32) for start in (0, offset, 7)))
        for part, offset in (("valid", 1), ("test", 2))
    }
    ranks["test"] = ranks["test"]._replace(had_before=np.array([False, True, False]))
    summary = {"test": {"ndcg@10": 1 / 3}, "history": [{"epoch": 1, "loss": 0.1}], "objective": "bpr"}
    save_trained(Trained(params, summary, ranks), tmp_path)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    found = load_trained(like, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert found.summary == summary
    assert_same(ranks, found.ranks)
