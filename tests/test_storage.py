"""What a stage writes is what the next run reads."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.config import DataConfig
from reland_jax.data import data_fingerprint, item_entities, item_texts, split
from reland_jax.data import load_interactions as read_interactions
from reland_jax.pool.histories import history_codes
from reland_jax.storage import (
    Lists,
    Trained,
    TrainingSummary,
    load_array,
    load_assignment,
    load_interactions,
    load_seeding,
    load_splits,
    load_trained,
    load_trained_params,
    save_array,
    save_assignment,
    save_interactions,
    save_splits,
    save_trained,
)
from reland_jax.types import Assignment, IdMap, Interactions, TargetRanks
from tests.toys import planted_splits


def assert_same(first: Any, second: Any) -> None:
    """The same structure, types and values; text may come back as a column of variable width."""
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


def test_one_long_text_costs_its_own_length(tmp_path: Path) -> None:
    """On disk and in memory, wherever its column goes; of fixed width each array would take 2 GB."""
    rows, long = 5000, "word " * 20_000
    lines = [f"u{row % 50},i{row},{row},Soap {row},{long if row == 7 else 'short'}" for row in range(rows)]
    path = tmp_path / "shop" / "long.csv"
    path.parent.mkdir()
    lines.append(f"{'u' * 100_000},i1,9,Soap 1,short")
    path.write_text("\n".join(["user_id,item_id,timestamp,title,description", *lines]))
    size = path.stat().st_size
    config = DataConfig(name=str(path), min_interactions=0)
    tracemalloc.start()
    loaded = read_interactions(config)
    save_interactions(loaded, tmp_path)
    found = load_interactions(tmp_path)
    texts, entities = item_texts(found, config.text_fields), item_entities(found, ("brand",))
    assert data_fingerprint(found) == data_fingerprint(loaded)
    codes = history_codes(split(found, "leave_one_out").train, found.ids.items, np.ones(51, int))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(map(len, texts)) == len(f"Soap 7. {long.strip()}") and len(entities) == 0 and len(codes) == 51
    assert sum(each.stat().st_size for each in tmp_path.iterdir() if each.is_file()) < 2 * size
    assert peak < 100 * size


def test_splits(tmp_path: Path) -> None:
    splits = planted_splits()
    save_splits(splits, tmp_path)
    assert_same(splits, load_splits(tmp_path))


def test_arrays_and_assignment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array, other = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    cases = [
        (array, save_array, load_array),
        (other, save_array, load_array),
        (
            Assignment(rng.integers(9, size=(4, 2)).astype(np.int32), array),
            save_assignment,
            partial(load_assignment, 4, 9),
        ),
    ]
    for number, (value, save, load) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        save(value, folder)
        assert_same(value, load(folder))


def with_arrays(folder: Path, **changed: np.ndarray) -> Path:
    """The folder of arrays with some of them replaced."""
    save_arrays({name: np.array(array) for name, array in load_arrays(folder).items()} | changed, folder)
    return folder


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    """An index that is out of range is clipped or wrapped where it is used on a device, in silence."""
    for name in ("split", "load", "assign", "seeds"):
        (tmp_path / name).mkdir()
    splits = planted_splits()
    save_splits(splits, tmp_path / "split")
    wrong = splits.train.items.copy()
    wrong[3] = splits.num_items + 1
    with pytest.raises(ValueError, match=f"items must be 1 to {splits.num_items}, and are"):
        load_splits(with_arrays(tmp_path / "split", **{"train.items": wrong}))
    wrong[3] = -5
    with pytest.raises(ValueError, match="and are -5 to"):
        load_splits(with_arrays(tmp_path / "split", **{"train.items": wrong}))
    turned = splits.train.indptr[::-1].copy()
    with pytest.raises(ValueError, match="rows of a part do not fit"):
        good = {"train.items": splits.train.items, "train.indptr": turned}
        load_splits(with_arrays(tmp_path / "split", **good))
    for seed in (10**6, -1):
        assignment = Assignment(np.array([[0], [seed]], np.int32), np.ones((2, 1), np.float32))
        save_assignment(assignment, tmp_path / "assign")
        with pytest.raises(ValueError, match="seed users must be 0 to 2, and are"):
            load_assignment(2, 3, tmp_path / "assign")
    with pytest.raises(ValueError, match="it is of 2 users, and there are 3"):
        load_assignment(3, 10**7, tmp_path / "assign")
    save_arrays({"user": np.array([0, 7]), "cluster_of_user": np.zeros(3)}, tmp_path / "seeds")
    with pytest.raises(ValueError, match="seed users must be 0 to 2, and are 0 to 7"):
        load_seeding(3, tmp_path / "seeds")
    with pytest.raises(ValueError, match="it is of 3 users, and there are 8"):
        load_seeding(8, tmp_path / "seeds")


def test_trained(tmp_path: Path) -> None:
    params = {"params": {"items": {"id_embedding": jnp.arange(6.0).reshape(3, 2)}, "bias": jnp.ones(2) / 3}}
    ranks = {
        part: TargetRanks(*(np.arange(start, start + 3, dtype=np.int32) for start in (0, offset, 7)))
        for part, offset in (("valid", 1), ("test", 2))
    }
    ranks["test"] = ranks["test"]._replace(had_before=np.array([False, True, False]))
    metrics, history = {"ndcg@10": 1 / 3}, [{"epoch": 1, "loss": 0.1}]
    summary = TrainingSummary(metrics, metrics, 1, 1, "bpr", 0.5, 2.0, 1e3, 0.1, history)
    lists = Lists(np.array([7, 3]), np.array([[1, 2], [3, 0]], np.int32))
    save_trained(Trained(params, summary, ranks, lists), tmp_path)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    found = load_trained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load_trained_params(like, tmp_path), params)
    assert found.summary == summary
    assert_same(ranks, found.ranks)
    assert_same(lists, found.lists)
    found_lists = found.lists.of(np.array([3, 7]))
    assert found_lists is not None and found_lists.tolist() == [[3, 0], [1, 2]]
    assert found.lists.of(np.array([3, 4])) is None
