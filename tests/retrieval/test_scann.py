"""ScaNN against the exact engine: equal on small sets, measured recall on larger ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from reland_jax.retrieval.exact import exact_top_k
from reland_jax.retrieval.index import recall_at_k
from reland_jax.retrieval.scann import BRUTE_FORCE_KEYS, _search, scann_top_k
from reland_jax.types import RelandError


def clustered(rng: np.random.Generator, centres: np.ndarray, rows: int) -> np.ndarray:
    noise = 0.7 * rng.normal(size=(rows, centres.shape[1]))
    return (centres[rng.integers(0, len(centres), rows)] + noise).astype(np.float32)


@pytest.mark.optional("scann")
@pytest.mark.parametrize(("num_keys", "k"), [(1, 1), (5, 5), (300, 1), (300, 10)])
def test_equals_exact_on_a_small_set(num_keys: int, k: int) -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(200, 16)), 5 * rng.normal(size=(num_keys, 16))
    index, cosine = scann_top_k(queries, keys, k)
    oracle_index, oracle_cosine = exact_top_k(queries, keys, k)
    assert index.dtype == np.int32 and cosine.dtype == np.float32
    np.testing.assert_array_equal(index, oracle_index)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=1e-5)


@pytest.mark.optional("scann")
@pytest.mark.parametrize("k", [1, 3])
def test_ties_and_zero_vectors_as_exact(k: int) -> None:
    keys = np.array([[0, 1], [1, 0], [2, 0], [0, 4], [1, 0], [0, 0]], np.float32)
    queries = np.array([[3, 0], [0, 0], [0, -1]], np.float32)
    found, exact = scann_top_k(queries, keys, k), exact_top_k(queries, keys, k)
    np.testing.assert_array_equal(found[0], exact[0])
    np.testing.assert_allclose(found[1], exact[1], atol=1e-6)


@pytest.mark.optional("scann")
def test_repeated_keys_come_in_ascending_order() -> None:
    rng = np.random.default_rng(3)
    keys = rng.normal(size=(60, 8))[rng.permutation(np.repeat(np.arange(60), 5))]
    queries = rng.normal(size=(100, 8))
    np.testing.assert_array_equal(scann_top_k(queries, keys, 8)[0], exact_top_k(queries, keys, 8)[0])


def test_results_are_clipped_then_ordered_by_cosine_and_number() -> None:
    """A searcher may return 1.0000001 for one key and 1.0 for its copy; both are 1, so they tie."""

    class Searcher:
        def search_batched_parallel(self, queries: np.ndarray, **_: int) -> tuple[np.ndarray, np.ndarray]:
            found = np.array([[5, 2, 0, 1]], np.uint32)
            return found, np.array([[1.0000001, 1.0, 0.25, 0.5]], np.float32)

    index, cosine = _search(Searcher(), np.ones((1, 2), np.float32), np.ones((6, 2), np.float32), 3, 1)
    np.testing.assert_array_equal(index, [[2, 5, 1]])
    np.testing.assert_array_equal(cosine, np.array([[1.0, 1.0, 0.5]], np.float32))


@pytest.mark.optional("scann")
def test_recall_of_the_tree_is_high_and_cosines_are_exact() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(60, 32))
    queries, keys = clustered(rng, centres, 400), clustered(rng, centres, BRUTE_FORCE_KEYS + 1000)
    index, cosine = scann_top_k(queries, keys, 10)
    oracle_index, _ = exact_top_k(queries, keys, 10)
    assert recall_at_k(index, oracle_index) >= 0.95
    assert recall_at_k(index[:, :1], oracle_index[:, :1]) >= 0.95
    assert (np.diff(cosine, axis=1) <= 0).all()
    unit_queries, unit_keys = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    np.testing.assert_allclose(cosine, np.einsum("qd,qkd->qk", unit_queries, unit_keys[index]), atol=1e-5)


@pytest.mark.optional("scann")
def test_more_neighbours_than_the_searched_leaves_hold() -> None:
    rng = np.random.default_rng(2)
    queries, keys = rng.normal(size=(5, 8)), rng.normal(size=(BRUTE_FORCE_KEYS, 8))
    k = BRUTE_FORCE_KEYS // 2
    np.testing.assert_array_equal(scann_top_k(queries, keys, k)[0], exact_top_k(queries, keys, k)[0])


@pytest.mark.optional("scann")
def test_faults_are_the_same_as_exact() -> None:
    with pytest.raises(RelandError, match=r"1 of 3 keys are not finite.*\[1\]"):
        scann_top_k(np.eye(2), np.array([[0, 1], [np.nan, 0], [1, 1]]), 1)
    with pytest.raises(RelandError, match="4 neighbours asked for among 3"):
        scann_top_k(np.eye(3), np.eye(3), 4)


def test_without_scann_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(RelandError, match=r"requirements-scann\.txt.*Linux.*engine='exact'"):
        scann_top_k(np.eye(3), np.eye(3), 1)
