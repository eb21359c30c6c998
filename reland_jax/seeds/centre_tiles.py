"""Tiles of centres that are close to each other, and the nearest tiles of each tile."""

from __future__ import annotations

import numpy as np

from reland_jax.seeds.kmeans_passes import NearTiles

# Centres of a tile are between this and twice as many.
_SMALLEST = 48
# Tiles that a user is compared with; of 37,500 centres these are 4.7%.
_NEAR = 24


def near_tiles(centres: np.ndarray, rng: np.random.Generator) -> NearTiles:
    """Splits the centres in halves, along directions of large variance, until the tiles are small.

    A direction is one step of the power method from a random start. So the split direction is random, and
    two centres separated in one iteration usually share a tile in another.

    Args:
        centres: ``<float32>[K, D]``.
        rng: generator of the random starts.
    """
    levels = max(0, int(np.log2(len(centres) / _SMALLEST)))
    number = np.arange(len(centres))[None]
    for _ in range(levels):
        # A part of odd length has its last centre in both halves.
        number = np.concatenate([number, number[:, -1:]], axis=1) if number.shape[1] % 2 else number
        order = np.argsort(_along(centres[number], rng), axis=1, kind="stable")
        number = np.take_along_axis(number, order, axis=1)
        number = number.reshape(2 * len(number), -1)
    home = np.empty(len(centres), np.int32)
    home[number] = np.arange(len(number))[:, None]
    return NearTiles(number.astype(np.int32), home, _nearest(centres[number].mean(axis=1)))


def _along(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places ``[parts, n]`` along one direction for each of ``[parts, n, D]``."""
    parts = parts - parts.mean(axis=1, keepdims=True)
    start = rng.standard_normal((len(parts), parts.shape[2], 1), np.float32)
    return (parts @ (parts.transpose(0, 2, 1) @ (parts @ start)))[..., 0]


def _nearest(means: np.ndarray) -> np.ndarray:
    """Of each tile's mean ``[T, D]`` the nearest tiles ``<int32>[T, P]``, itself first."""
    half = 0.5 * (means * means).sum(axis=1)
    score = half - means @ means.T
    np.fill_diagonal(score, -np.inf)
    return np.argsort(score, axis=1, kind="stable")[:, :_NEAR].astype(np.int32)
