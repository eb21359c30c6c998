"""PCA whitening of text vectors.

Vectors of a frozen encoder lie in a narrow cone: a few directions have nearly all of the variance and are
common to all texts. Whitening removes the mean and gives every kept direction the same variance.
"""

from __future__ import annotations

import numpy as np

from reland_jax.types import RelandError

SHRINKAGE = 1e-6
"""Variance, relative to the largest one, below which a direction counts as noise."""


def whiten(vectors: np.ndarray, fit_on: np.ndarray, dimensions: int) -> np.ndarray:
    """Projects vectors on whitened principal directions.

    With eigenvalues v of the covariance, a direction is scaled by sqrt(v) / (v + shrinkage * max v):
    1 / sqrt(v) where there is variance, and 0 (not infinity) where there is none.

    Args:
        vectors: ``<float32>[n, T]`` to transform.
        fit_on: ``<float32>[m, T]`` that define mean and directions; rows of zeros (texts that are
            empty) are left out.
        dimensions: directions kept, those of the largest variance, in ``1 .. T``.

    Returns:
        ``<float32>[n, dimensions]``, scaled so that the mean L2 norm of the whitened `fit_on` is 1. Rows
        of zeros stay zero.

    Raises:
        RelandError: a wrong shape, a value that is not finite, or fewer than two rows to fit on.
    """
    _require_matrices(vectors, fit_on, dimensions)
    sample = fit_on[fit_on.any(axis=1)].astype(np.float64)
    if len(sample) < 2:
        raise RelandError(f"whiten: {len(sample)} rows of fit_on are not zero, at least 2 are needed")
    mean = sample.mean(axis=0)
    projection = _projection(sample - mean, dimensions)
    norm = np.linalg.norm((sample - mean) @ projection, axis=1).mean()
    whitened = (vectors.astype(np.float64) - mean) @ projection / (norm or 1.0)
    return np.where(vectors.any(axis=1, keepdims=True), whitened, 0.0).astype(np.float32)


def _projection(centred: np.ndarray, dimensions: int) -> np.ndarray:
    """Centred rows ``<float64>[m, T]`` -> scaled principal directions ``<float64>[T, dimensions]``."""
    variance, directions = np.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    variance = np.maximum(variance[::-1][:dimensions], 0.0)
    directions = directions[:, ::-1][:, :dimensions]
    # An eigenvector's sign is arbitrary: fixing it makes the result the same with every LAPACK.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    floor = SHRINKAGE * variance[0]
    scale = np.divide(np.sqrt(variance), variance + floor, out=np.zeros_like(variance), where=variance > 0)
    return directions * np.where(largest < 0, -scale, scale)


def _require_matrices(vectors: np.ndarray, fit_on: np.ndarray, dimensions: int) -> None:
    if vectors.ndim != 2 or fit_on.ndim != 2 or vectors.shape[1] != fit_on.shape[1]:
        raise RelandError(
            f"whiten: vectors {vectors.shape} and fit_on {fit_on.shape} must be matrices of the same width"
        )
    if not 1 <= dimensions <= vectors.shape[1]:
        raise RelandError(
            f"config.text.whiten={dimensions} must be at least 1 and at most the encoder's width "
            f"{vectors.shape[1]}; 0 keeps the raw vectors"
        )
    for name, array in (("vectors", vectors), ("fit_on", fit_on)):
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise RelandError(f"whiten: row {row} of {name} is not finite")
