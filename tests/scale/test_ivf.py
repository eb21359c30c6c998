"""The inverted file against brute force: all cells searched, the margin, its recall, and what is kept."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from reland_jax.retrieval import exact_top_k, recall_at_k
from reland_jax.retrieval.vectors import unit_rows_host
from reland_jax.scale.ivf import IvfEffort, IvfIndex
from reland_jax.types import RelandError

ALL = IvfEffort(0.0, 4.0, 1.0, 1.0)
"""Scores lie within 2 of each other, so every cell is searched."""


def clustered(rows: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(30, 16))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 30, rows)] + 1.2 * rng.normal(size=(rows, 16))).astype(np.float32)


@functools.cache
def keys_and_index() -> tuple[np.ndarray, IvfIndex]:
    """Shared by the tests, so that each k is compiled for once."""
    keys = clustered(1000, 1)
    return keys, IvfIndex.build(keys, 1)


@pytest.mark.parametrize(("k", "num_queries"), [(1, 1), (1, 500), (4, 500)])
def test_equals_exact_where_all_cells_are_searched(k: int, num_queries: int) -> None:
    keys, index = keys_and_index()
    queries = clustered(num_queries, 2)
    found, cosine = index.search(queries, k, ALL)
    oracle, oracle_cosine = exact_top_k(queries, keys, k)
    np.testing.assert_array_equal(found, oracle)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=3e-7)
    assert found.dtype == np.int32 and cosine.dtype == np.float32


def test_only_the_cells_within_the_margin_are_searched() -> None:
    """By hand in NumPy: the cells whose score is near enough, then the nearest key of those."""
    keys, index = keys_and_index()
    queries = clustered(300, 2)
    unit, users = (unit_rows_host(rows).astype(np.float64) for rows in (keys, queries))
    cells = [unit[index.cell == cell] for cell in range(index.cell.max() + 1)]
    mean = np.stack([rows.mean(axis=0) for rows in cells])
    spread = [np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()) for rows in cells]
    score = users @ mean.T + 0.25 * np.array(spread)
    near = score >= score.max(axis=1, keepdims=True) - 0.1
    assert near.mean() < 0.3 and near.sum(axis=1).mean() > 2
    cosine = np.where(near[:, index.cell], users @ unit.T, -2.0)
    found = index.search(queries, 1, IvfEffort(0.25, 0.1, 0.0, 0.0))
    np.testing.assert_array_equal(found[0][:, 0], cosine.argmax(axis=1))
    np.testing.assert_allclose(found[1][:, 0], cosine.max(axis=1), atol=1e-6)
    assert (found[0] != exact_top_k(queries, keys, 1)[0]).any()


@pytest.mark.parametrize("k", [1, 3])
def test_copies_and_zeros(k: int) -> None:
    """Of equal keys the smaller number comes first; a user of zeros has cosine 0 with the first keys."""
    rows = clustered(60, 1)
    keys = rows[np.random.default_rng(0).permutation(np.repeat(np.arange(60), 4))]
    queries = np.concatenate([clustered(50, 2), np.zeros((1, 16), np.float32), rows[:5] * np.float32(1e25)])
    index, cosine = IvfIndex.build(keys, k).search(queries, k, ALL)
    oracle_index, oracle_cosine = exact_top_k(queries, keys, k)
    np.testing.assert_array_equal(index, oracle_index)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=3e-7)
    np.testing.assert_array_equal(index[50], np.arange(k))
    assert cosine.max() <= 1.0


def test_more_neighbours_than_the_cells_hold() -> None:
    keys, index = keys_and_index()
    queries = clustered(40, 2)
    found = index.search(queries, 200, IvfEffort(0.0, 0.0, 0.0, 0.0))
    np.testing.assert_array_equal(found[0], exact_top_k(queries, keys, 200)[0])


@pytest.mark.parametrize("k", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_margin_gives_the_recall_on_other_users(k: int) -> None:
    keys, index = keys_and_index()
    sample, others = clustered(3000, 2), clustered(3000, 3)
    exact = exact_top_k(others, keys, k)[0]
    efforts = [index.tune(sample, exact_top_k(sample, keys, k)[0], recall) for recall in (0.8, 0.97)]
    low, high = (recall_at_k(index.search(others, k, effort)[0], exact) for effort in efforts)
    assert 0.8 <= low < 0.84 and 0.97 <= high < 0.99
    assert efforts[0].compared < efforts[1].compared < 0.6


def test_the_sample_is_found_as_the_tuning_says() -> None:
    """The share found on the sample is the one computed, so search and tuning see the same cells."""
    keys, index = keys_and_index()
    sample = clustered(500, 2)
    exact = exact_top_k(sample, keys, 1)[0].copy()
    effort = index.tune(sample, exact, 0.9)
    assert recall_at_k(index.search(sample, 1, effort)[0], exact) == effort.recall >= 0.9
    # Users of zeros are found without a search, so the others may be searched for less thoroughly.
    sample[::3], exact[::3] = 0.0, 0
    easier = index.tune(sample, exact, 0.9)
    assert recall_at_k(index.search(sample, 1, easier)[0], exact) == easier.recall >= 0.9
    assert easier.margin < effort.margin


def test_a_kept_index_answers_the_same(tmp_path: Path) -> None:
    keys, index = keys_and_index()
    queries, effort = clustered(500, 2), IvfEffort(0.3, 0.1, 0.0, 0.0)
    np.testing.assert_array_equal(index.cell, IvfIndex.build(keys, 1).cell)
    index.save(tmp_path)
    again = IvfIndex.load(tmp_path, keys).search(queries, 1, effort)
    for ours, before in zip(again, index.search(queries, 1, effort), strict=True):
        np.testing.assert_array_equal(ours, before)


def test_an_answer_does_not_depend_on_the_other_users() -> None:
    _, index = keys_and_index()
    queries, effort = clustered(1500, 2), IvfEffort(0.3, 0.1, 0.0, 0.0)
    whole = index.search(queries, 1, effort)
    parts = [index.search(part, 1, effort) for part in np.split(queries, [1, 400])]
    for number, answer in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), answer)


def test_no_queries_and_faults() -> None:
    _, index = keys_and_index()
    assert [part.shape for part in index.search(np.zeros((0, 16), np.float32), 2, ALL)] == [(0, 2), (0, 2)]
    with pytest.raises(RelandError, match="1001 neighbours asked for among 1000 seed users"):
        index.search(clustered(3, 1), 1001, ALL)
    with pytest.raises(RelandError, match=r"1 of 3 keys are not finite.*\[1\]"):
        IvfIndex.build(np.array([[0, 1], [np.nan, 0], [1, 1]]), 1)
