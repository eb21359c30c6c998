"""Whitening: identity covariance, and nothing that is not finite, whatever the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reland_jax.text import whiten
from reland_jax.types import RelandError


def correlated(rows: int = 400, width: int = 8, seed: int = 0) -> np.ndarray:
    """Vectors ``[rows, width]`` with a common mean and variances from 9 down to 0.01."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(width, width)))
    spread = np.geomspace(3.0, 0.1, width)
    return (5.0 + rng.normal(size=(rows, width)) * spread @ rotation).astype(np.float32)


def test_the_covariance_is_the_identity_up_to_a_scale() -> None:
    vectors = correlated()
    whitened = whiten(vectors, vectors, 5)
    assert (whitened.dtype, whitened.shape) == (np.float32, (400, 5))
    covariance = np.cov(whitened, rowvar=False)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(5), atol=2e-3)
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=1e-5)
    assert np.linalg.norm(whitened, axis=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_the_directions_of_the_largest_variance_are_kept() -> None:
    vectors = correlated()
    whitened = whiten(vectors, vectors, 3).astype(np.float64)
    # An independent route: the singular vectors of the centred matrix span the same space.
    left, _, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    canonical = np.linalg.svd(left[:, :3].T @ (whitened / np.linalg.norm(whitened, axis=0)))[1]
    np.testing.assert_allclose(canonical, 1.0, atol=1e-4)


def test_mean_and_directions_come_from_the_fitted_rows_only() -> None:
    fit_on, others = correlated(seed=0), correlated(rows=50, seed=1) * 3
    together = whiten(np.concatenate([fit_on, others]), fit_on, 4)
    np.testing.assert_allclose(together[:400], whiten(fit_on, fit_on, 4), atol=1e-6)
    np.testing.assert_allclose(together[400:], whiten(others, fit_on, 4), atol=1e-6)


def test_rows_of_zeros_stay_and_are_not_fitted_on() -> None:
    vectors = correlated()
    holed = np.insert(vectors, [0, 7, 400], 0.0, axis=0)
    whitened = whiten(holed, holed, 4)
    empty = ~holed.any(axis=1)
    assert empty.sum() == 3 and not whitened[empty].any()
    np.testing.assert_allclose(whitened[~empty], whiten(vectors, vectors, 4), atol=1e-6)


def test_a_dimension_without_variance_is_harmless() -> None:
    vectors = correlated()
    vectors[:, 2] = 3.0
    far = vectors.copy()
    far[:, 2] = 1e6
    for given_vectors in (vectors, far):
        whitened = whiten(given_vectors, vectors, 8)
        assert np.isfinite(whitened).all()
        assert np.linalg.norm(whitened, axis=1).mean() == pytest.approx(1.0, abs=0.02)


def test_a_direction_of_rounding_noise_is_not_blown_up() -> None:
    vectors = correlated()
    vectors[:, 7] = vectors[:, 0] + vectors[:, 1]
    noise, least = (np.linalg.norm(whiten(vectors, vectors, 8)[:, i]) for i in (7, 6))
    assert noise < 1e-2 * least


def test_rows_that_are_all_the_same_become_zero() -> None:
    vectors = np.full((6, 4), 2.0, np.float32)
    assert not whiten(vectors, vectors, 4).any()


def test_the_order_of_the_rows_does_not_matter() -> None:
    vectors = correlated()
    order = np.random.default_rng(3).permutation(len(vectors))
    np.testing.assert_allclose(
        whiten(vectors[order], vectors[order], 6), whiten(vectors, vectors, 6)[order], atol=1e-4
    )


@given(
    vectors=arrays(
        np.float32, st.tuples(st.integers(2, 8), st.just(4)), elements=st.floats(-1e4, 1e4, width=32)
    ),
    dimensions=st.integers(1, 4),
)
def test_the_result_is_always_finite(vectors: np.ndarray, dimensions: int) -> None:
    if vectors.any(axis=1).sum() >= 2:
        assert np.isfinite(whiten(vectors, vectors, dimensions)).all()


@pytest.mark.parametrize(
    ("vectors", "fit_on", "dimensions", "message"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), 2, "must be matrices of the same width"),
        (np.ones((3, 4)), np.ones((3, 4)), 5, "config.text.whiten=5 must be at least 1 and at most"),
        (np.ones((3, 4)), np.ones((3, 4)), 0, "config.text.whiten=0 must be at least 1"),
        (np.ones((3, 4)), np.eye(3, 4) * [1, 0, 0, 0], 2, "1 rows of fit_on are not zero"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), np.eye(2), 1, "row 1 of vectors is not finite"),
    ],
)
def test_faults(vectors: np.ndarray, fit_on: np.ndarray, dimensions: int, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        whiten(vectors, fit_on, dimensions)
