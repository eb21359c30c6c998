"""The engines behind one interface, and how much of the exact answer an engine finds."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from reland_jax.config import RetrievalConfig, nearest_name
from reland_jax.retrieval.exact import exact_top_k
from reland_jax.retrieval.scann import scann_top_k
from reland_jax.types import RelandError

Engine = Callable[[np.ndarray | jax.Array, np.ndarray | jax.Array, int, int], tuple[np.ndarray, np.ndarray]]
"""(queries [Q, D], keys [S, D], k, tile) -> (key numbers int32[Q, k], cosines float32[Q, k])."""

ENGINES: dict[str, Engine] = {"exact": exact_top_k, "scann": scann_top_k}
"""The values of `RetrievalConfig.engine`."""


def search(
    queries: np.ndarray | jax.Array, keys: np.ndarray | jax.Array, k: int, config: RetrievalConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of largest cosine for every query, by the engine of the config.

    Args:
        queries: ``<float32>[Q, D]``.
        keys: ``<float32>[S, D]``.
        k: keys per query, in 1 .. S (``config.neighbours`` is not read here).
        config: engine and tile.

    Returns:
        Key numbers ``<int32>[Q, k]``, nearest first, and their cosines ``<float32>[Q, k]``.

    Raises:
        RelandError: an unknown engine, or see `exact_top_k`.
    """
    if config.engine not in ENGINES:
        raise RelandError(
            f"config.retrieval.engine={config.engine!r} is not known; "
            f"{nearest_name(config.engine, list(ENGINES))}"
        )
    return ENGINES[config.engine](queries, keys, k, config.tile)


def recall_at_k(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours that were found, in [0, 1], whatever their order.

    Args:
        found: ``<int32>[Q, k]``, key numbers from an engine.
        exact: ``<int32>[Q, k]``, key numbers from `exact_top_k`.

    Raises:
        RelandError: different shapes, or nothing to compare.
    """
    if found.shape != exact.shape or not exact.size:
        raise RelandError(f"recall: found {found.shape} and exact {exact.shape} must be equal, not empty")
    return float((exact[:, :, None] == found[:, None, :]).any(axis=2).mean())
