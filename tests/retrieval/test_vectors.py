"""Unit rows on the host against those on the device."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.retrieval.exact import ExactIndex, exact_top_k
from reland_jax.retrieval.vectors import unit_rows, unit_rows_host


def test_unit_rows_on_the_host() -> None:
    """Ordinary rows, and those whose squares leave the range of float32."""
    scale = np.array([1, 1e-3, 50, 1e25, 1e-25, 1e-40, 0], np.float64)[:, None]
    rows = (np.random.default_rng(0).normal(size=(7, 9)) * scale).astype(np.float32)
    unit = unit_rows_host(rows)
    true = rows.astype(np.float64)
    true[:6] /= np.linalg.norm(true[:6], axis=1, keepdims=True)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit[:5], true[:5], atol=1e-6)
    np.testing.assert_allclose(unit, np.asarray(unit_rows(jnp.asarray(rows))), atol=2e-7)
    np.testing.assert_array_equal(unit[6], 0.0)


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    alone = np.concatenate([unit_rows_host(row[None]) for row in rows])
    together = unit_rows_host(np.concatenate([rows, np.zeros((1, 64), np.float32)]))
    np.testing.assert_array_equal(together[:-1], alone)


@pytest.mark.parametrize("scale", [3e38, 1e38, 1e-38, 1e-41])
@pytest.mark.parametrize("k", [1, 3])
def test_the_length_of_a_vector_does_not_matter(scale: float, k: int) -> None:
    """Numbers at the borders of float32, which compiled programs take for zero."""
    rng = np.random.default_rng(0)
    queries, keys = (rng.integers(-9, 10, size=(n, 4)).astype(np.float32) + 0.5 for n in (30, 12))
    largest = np.float32(scale) * (queries / 16)
    expected = exact_top_k(queries, keys, k)
    for found in (exact_top_k(largest, keys, k), ExactIndex(keys).search(largest, k)):
        np.testing.assert_allclose(found[1], expected[1], atol=1e-3 if scale < 1e-39 else 1e-6)
    _, cosine = exact_top_k(queries, np.float32(scale) * (keys / 16), k)
    np.testing.assert_allclose(cosine, expected[1], atol=1e-3 if scale < 1e-39 else 1e-6)
