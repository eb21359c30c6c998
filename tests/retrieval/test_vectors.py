"""Unit rows on the host against those on the device."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

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
