"""Vectors without words in the place of the rationales, with which a gain of `reland` is compared.

A gain that remains with one of these is not due to the LLM.
"""

from __future__ import annotations

import numpy as np


def permuted(rationales: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every seed user gets the rationale of another one, ``<float32>[S, T]``, or its phrases.

    The rows are shifted along a random cycle, so that none stays where it was (S above 1).
    """
    cycle = rng.permutation(len(rationales))
    out = np.empty_like(rationales)
    out[cycle] = rationales[np.roll(cycle, 1)]
    return out


def noise(rationales: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian vectors with the mean and the covariance of the rationales, ``<float32>[S, T]``.

    Of phrases ``<float32>[S, P, T]``, those that are not rows of zeros are replaced.
    """
    if rationales.ndim == 3:
        used, out = rationales.any(2), np.zeros_like(rationales)
        out[used] = noise(rationales[used], rng)
        return out
    mean = rationales.mean(axis=0, dtype=np.float64)
    covariance = np.cov(rationales, rowvar=False).reshape(rationales.shape[1], -1)
    variance, directions = np.linalg.eigh(covariance)
    drawn = rng.normal(size=rationales.shape) * np.sqrt(np.maximum(variance, 0.0))
    return (mean + drawn @ directions.T).astype(np.float32)


ABLATED = {"permuted": permuted, "noise": noise, "seed_id": noise}
"""By the `ablation` of a variant: rationales and a generator -> what takes their place; of `seed_id` what is
learned starts there."""


def ablated(rationales: np.ndarray, ablation: str, seed: int = 0) -> np.ndarray:
    """What takes the place of the rationales, of their shape; they stay where `ABLATED` has no entry."""
    return ABLATED[ablation](rationales, np.random.default_rng(seed)) if ablation in ABLATED else rationales
