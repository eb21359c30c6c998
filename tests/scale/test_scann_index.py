"""A ScaNN index that is kept, and the effort chosen for a stated recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reland_jax.retrieval.exact import ExactIndex, exact_top_k
from reland_jax.scale import scann_index
from reland_jax.scale.scann_index import ScannEffort, ScannIndex
from reland_jax.types import RelandError


def clustered(rows: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(60, 32))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 60, rows)] + 0.7 * rng.normal(size=(rows, 32))).astype(np.float32)


@pytest.mark.optional("scann")
def test_the_effort_reaches_its_recall_on_other_users(tmp_path: Path) -> None:
    keys, sample, others = clustered(6000, 1), clustered(1500, 2), clustered(1500, 3)
    index = ScannIndex.build(keys, 1)
    low, high = (index.tune(sample, ExactIndex(keys).search(sample, 1)[0], r) for r in (0.6, 0.97))
    exact = exact_top_k(others, keys, 1)[0]
    assert (index.search(others, 1, high)[0] == exact).mean() >= 0.97
    assert 0.6 <= low.recall <= 1.0 and low.leaves <= high.leaves
    with pytest.raises(RelandError, match="no number of leaves finds 1.0000 of the exact neighbours"):
        index.tune(sample[:200], np.full((200, 1), 6000, np.int32), 0.999999)
    index.save(tmp_path)
    again = ScannIndex.load(tmp_path.rename(tmp_path.with_name("moved")), keys)
    for found, before in zip(again.search(others, 1, high), index.search(others, 1, high), strict=True):
        np.testing.assert_array_equal(found, before)


class Stand:
    """A searcher whose recall is that of a table: 1 / 2 at 1 leaf, and 1 from 4 leaves and 50 on."""

    def search_batched_parallel(
        self, queries: np.ndarray, *, leaves_to_search: int, pre_reorder_num_neighbors: int, **_: int
    ) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros((len(queries), 9), np.uint32)
        right = leaves_to_search >= 4 and pre_reorder_num_neighbors >= 50
        found[:: 1 if right else 2, 0] = 1
        return found, np.tile(np.array([[1.0] + [0.5] * 8], np.float32), (len(queries), 1))


def test_the_fewest_leaves_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scann_index, "BRUTE_FORCE_KEYS", 10)
    index = ScannIndex(np.ones((100, 2), np.float32), Stand())
    queries, exact = np.ones((100, 2), np.float32), np.ones((100, 1), np.int32)
    chosen = index.tune(queries, exact, 0.9)
    assert chosen.leaves == 4 and chosen.reorder >= 50 and chosen.recall == 1.0
    assert index.tune(queries, exact, 0.3).leaves == 1


@pytest.mark.optional("scann")
def test_few_keys_are_all_compared() -> None:
    keys = clustered(300, 1)
    effort = ScannIndex.build(keys, 1).tune(keys, ExactIndex(keys).search(keys, 1)[0], 0.99)
    assert effort[:3] == ScannEffort(0, 0, 1.0, 0.0)[:3]
