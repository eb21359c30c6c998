"""Hashes of whole numbers: equal on every machine, and for all rows of an array at once."""

from __future__ import annotations

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of ``<uint64>[n]``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed(seed: int, *parts: int | np.ndarray) -> np.ndarray:
    """A hash of a seed and of rows of whole numbers, ``<uint64>[n]``.

    Args:
        seed: not negative.
        parts: ``<int>[n]`` each, or one number for all rows.
    """
    state = _stepped(np.array([seed], np.uint64))
    for part in parts:
        state = _stepped(state ^ np.asarray(part).astype(np.uint64))
    return state


def uniform(seed: int, *parts: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that are a function of the seed and the parts, ``<float64>[n]``."""
    return (hashed(seed, *parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _stepped(state: np.ndarray) -> np.ndarray:
    return mixed(state + _STEP)
