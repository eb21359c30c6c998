"""Generated users with the statistics of real behaviour vectors, for benchmarks of any size."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from reland_jax.seeds import kmeans


class Mixture(NamedTuple):
    """Gaussians with a common rotation and a deviation of their own per direction.

    Attributes:
        weights: ``<float64>[C]``.
        centres: ``<float32>[C, D]``.
        spread: ``<float32>[C, D]``.
    """

    weights: np.ndarray
    centres: np.ndarray
    spread: np.ndarray

    def draw(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """``<float32>[rows, D]``."""
        which = rng.choice(len(self.weights), rows, p=self.weights)
        noise = rng.standard_normal((rows, self.centres.shape[1]), np.float32)
        return self.centres[which] + self.spread[which] * noise


def mixture_like(path: str | None, components: int, width: int) -> Mixture:
    """A mixture like the vectors of a file; without one, like planted clusters.

    Args:
        path: an .npy, or an .npz, of which the first array of two dimensions.
        components: Gaussians of the mixture, at most.
        width: D.
    """
    if path:
        return fitted(_read_vectors(Path(path)), components, width)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(components, width))
    rows = 50 * components
    vectors = centres[rng.integers(0, components, rows)] + 0.7 * rng.normal(size=(rows, width))
    return fitted(vectors, components, width)


def _read_vectors(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    with np.load(path) as stored:
        return next(stored[name] for name in stored.files if stored[name].ndim == 2)


def fitted(vectors: np.ndarray, components: int, width: int) -> Mixture:
    """A mixture with the statistics of vectors ``<float32>[n, d]`` in their leading ``width`` directions.

    Components are the clusters of K-means; where d is smaller, the other directions stay empty.
    """
    middle = vectors.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(vectors - middle, rowvar=False))
    leading = ((vectors - middle) @ axes[:, ::-1][:, :width] + middle @ axes[:, ::-1][:, :width]).astype(
        np.float32
    )
    leading = np.pad(leading, ((0, 0), (0, width - leading.shape[1])))
    count = min(components, len(leading))
    found = kmeans(leading, count, jax.random.key(0), iterations=25, tolerance=1e-3)
    members = np.bincount(found.cluster, minlength=count)
    squares = np.zeros((count, width))
    np.add.at(squares, found.cluster, (leading - found.centres[found.cluster]) ** 2)
    spread = np.sqrt(squares / np.maximum(members, 1)[:, None])
    return Mixture(members / members.sum(), found.centres, spread.astype(np.float32))
