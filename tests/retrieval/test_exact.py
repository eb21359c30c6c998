"""Exact top-k against a numpy brute force in float64, its tie rule, and the vectors that break a cosine."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from reland_jax.retrieval.exact import ExactIndex, _on_each, _top_k, exact_top_k
from reland_jax.types import RelandError


def brute_force(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    queries, keys = (rows.astype(np.float64) for rows in (queries, keys))
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(keys, axis=1)[None]
    cosine = queries @ keys.T / norms
    index = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(cosine, index, axis=1)


@pytest.mark.parametrize("tile", [1, 32, 101, 4096])
@pytest.mark.parametrize("k", [1, 4, 53])
def test_equals_brute_force(k: int, tile: int) -> None:
    rng = np.random.default_rng(0)
    queries = (rng.normal(size=(101, 6)) * rng.uniform(0.01, 50, size=(101, 1))).astype(np.float32)
    keys = rng.normal(size=(53, 6)).astype(np.float32)
    index, cosine = exact_top_k(queries, keys, k, tile)
    oracle_index, oracle_cosine = brute_force(queries, keys, k)
    assert index.dtype == np.int32 and cosine.dtype == np.float32
    np.testing.assert_array_equal(index, oracle_index)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_ties_go_to_the_smaller_key(k: int) -> None:
    keys = np.array([[0, 1], [1, 0], [2, 0], [0, 4], [1, 0], [-1, 0]], np.float32)
    index, cosine = exact_top_k(np.array([[3.0, 0.0], [0.0, -1.0]]), keys, k, 8)
    np.testing.assert_array_equal(index, np.array([[1, 2, 4, 0, 3, 5], [1, 2, 4, 5, 0, 3]])[:, :k])
    np.testing.assert_allclose(cosine, np.array([[1, 1, 1, 0, 0, -1], [0, 0, 0, 0, -1, -1]])[:, :k])


@pytest.mark.parametrize("k", [1, 5])
def test_many_equal_keys_tie_exactly(k: int) -> None:
    rng = np.random.default_rng(1)
    keys = np.tile(rng.normal(size=(1, 65)), (1001, 1))
    index, _ = exact_top_k(rng.normal(size=(33, 65)), keys, k, 16)
    np.testing.assert_array_equal(index, np.tile(np.arange(k), (33, 1)))


@pytest.mark.parametrize("k", [1, 3])
def test_zero_vectors_have_cosine_zero(k: int) -> None:
    keys = np.array([[-1, -2], [0, 0], [-3, 1]], np.float32)
    index, cosine = exact_top_k(np.array([[0.0, 0.0], [1.0, 0.0]]), keys, k, 2)
    np.testing.assert_array_equal(index, np.array([[0, 1, 2], [1, 0, 2]])[:, :k])
    expected = np.array([[0, 0, 0], [0, -1 / np.sqrt(5), -3 / np.sqrt(10)]])[:, :k]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)


def test_negative_zero_ties_with_zero() -> None:
    """In one dimension the product of 0 and -1 is -0.0, which must not rank below 0.0."""
    index, cosine = exact_top_k(np.array([[0.0], [-2.0]]), np.array([[-1.0], [1.0], [0.0], [-3.0]]), 4, 2)
    np.testing.assert_array_equal(index, [[0, 1, 2, 3], [0, 3, 2, 1]])
    np.testing.assert_array_equal(cosine, [[0, 0, 0, 0], [1, 1, 0, -1]])


def test_very_large_and_very_small_vectors() -> None:
    queries = np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32)
    index, cosine = exact_top_k(queries, np.array([[0, 1e-32], [1e32, 0]], np.float32), 2, 2)
    np.testing.assert_array_equal(index, [[0, 1], [0, 1]])
    np.testing.assert_allclose(cosine, [[0.8, 0.6], [0.8, 0.6]], atol=1e-6)


def test_cosine_stays_within_one() -> None:
    rows = np.random.default_rng(2).normal(size=(500, 64)).astype(np.float32)
    index, cosine = exact_top_k(rows, rows, 1, 100)
    np.testing.assert_array_equal(index[:, 0], np.arange(500))
    assert cosine.max() <= 1.0 and cosine.min() > 1 - 1e-6


def test_no_queries() -> None:
    index, cosine = exact_top_k(np.zeros((0, 3)), np.eye(3), 2, 4)
    assert index.shape == cosine.shape == (0, 2)


@pytest.mark.parametrize("k", [1, 2])
def test_compiles_once_for_a_shape(k: int) -> None:
    rng = np.random.default_rng(3)
    exact_top_k(rng.normal(size=(19, 4)), rng.normal(size=(5, 4)), k, 8)
    compiled = _top_k._cache_size()
    for _ in range(3):
        exact_top_k(rng.normal(size=(19, 4)), rng.normal(size=(5, 4)), k, 8)
    assert _top_k._cache_size() == compiled


def test_faults_are_named() -> None:
    bad = np.ones((4, 3))
    bad[2, 1], bad[3, 0] = np.nan, -np.inf
    with pytest.raises(RelandError, match=r"2 of 4 queries are not finite.*\[2, 3\]"):
        exact_top_k(bad, np.eye(3), 1, 4)
    with pytest.raises(RelandError, match=r"2 of 4 keys are not finite.*\[2, 3\]"):
        exact_top_k(np.eye(3), bad, 1, 4)
    for k in (0, 4):
        with pytest.raises(RelandError, match=rf"{k} neighbours asked for among 3.*retrieval\.neighbours"):
            exact_top_k(np.eye(3), np.eye(3), k, 4)
    with pytest.raises(RelandError, match=r"queries \(2, 4\) and keys \(3, 3\)"):
        exact_top_k(np.ones((2, 4)), np.eye(3), 1, 4)
    with pytest.raises(RelandError, match=r"retrieval\.tile=0"):
        exact_top_k(np.eye(3), np.eye(3), 1, 0)


@pytest.mark.parametrize(
    ("k", "recall"),
    [(1, 1.0), pytest.param(3, 1.0, marks=pytest.mark.slow), pytest.param(2, 0.99, marks=pytest.mark.slow)],
)
def test_eight_devices_find_what_one_finds(k: int, recall: float) -> None:
    """Each takes its share of the queries; they tell each other nothing, and the bits are the same."""
    assert jax.device_count() == 8, "tests/conftest.py asks for virtual ones"
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(size=(n, 6)).astype(np.float32) for n in (5000, 700))
    one, eight = (ExactIndex(keys, recall, jax.devices()[:count]) for count in (1, 8))
    index, cosine = eight.search(queries, k)
    oracle_index, oracle_cosine = brute_force(queries, keys, k)
    np.testing.assert_array_equal(index, oracle_index)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=1e-6)
    for ours, alone in zip((index, cosine), one.search(queries, k), strict=True):
        np.testing.assert_array_equal(ours, alone)
    program = _on_each(eight._mesh, k, recall)
    found, _ = program(queries[:4096], eight._layout)
    assert {part.data.shape for part in found.addressable_shards} == {(512, k)}
    text = program.lower(queries[:4096], eight._layout).compile().as_text()
    assert not re.search(r"all-(gather|reduce|to-all)|collective-permute|reduce-scatter", text)
