"""Nearest keys by cosine through ScaNN: approximate, for pools too large to compare with in full."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.retrieval.exact import exact_top_k
from reland_jax.retrieval.vectors import checked, unit_rows
from reland_jax.types import RelandError

BRUTE_FORCE_KEYS = 5000
"""Below this many keys ScaNN compares with all of them, which equals the exact engine."""

# Neighbours asked for beyond k, so that keys tied with the k-th are seen and the smallest number wins.
_TIES = 8


def scann_top_k(
    queries: np.ndarray | jax.Array, keys: np.ndarray | jax.Array, k: int, tile: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of largest cosine for every query, by ScaNN; arguments and results as `exact_top_k`.

    From `BRUTE_FORCE_KEYS` keys on, the keys are put into about sqrt(S) leaves, a quarter of which
    is searched with compressed vectors; the best are compared again in full precision. `recall_at_k`
    measures what that misses; it varies a little, as ScaNN draws its own random numbers. Among keys
    of equal cosine the smaller number wins as long as no more than 8 keys tie beyond the k-th.

    Args:
        queries: ``<float32>[Q, D]``, finite.
        keys: ``<float32>[S, D]``, finite.
        k: keys per query, in 1 .. S.
        tile: queries handed to a thread at a time.

    Returns:
        Key numbers ``<int32>[Q, k]``, nearest first, and their cosines ``<float32>[Q, k]`` in [-1, 1].

    Raises:
        RelandError: as `exact_top_k`; also where ScaNN is not installed.
    """
    queries, keys = checked(queries, keys, k)
    index = np.tile(np.arange(k, dtype=np.int32), (len(queries), 1))
    cosine = np.zeros((len(queries), k), np.float32)
    # A query of zeros ties with every key: the answer is known, and ScaNN would give any of them.
    nonzero = np.flatnonzero(queries.any(axis=1))
    searcher = _searcher(np.asarray(unit_rows(jnp.asarray(keys))), k)
    if len(nonzero):
        index[nonzero], cosine[nonzero] = _search(searcher, queries[nonzero], keys, k, tile)
    return index, cosine


def _search(
    searcher: Any, queries: np.ndarray, keys: np.ndarray, k: int, tile: int
) -> tuple[np.ndarray, np.ndarray]:
    found, score = searcher.search_batched_parallel(
        np.asarray(unit_rows(jnp.asarray(queries))),
        final_num_neighbors=min(len(keys), k + _TIES),
        batch_size=tile,
    )
    found, score = found.astype(np.int32), np.clip(score, -1.0, 1.0)
    order = np.lexsort((found, -score))[:, :k]
    index, cosine = (np.take_along_axis(values, order, axis=1) for values in (found, score))
    # ScaNN fills up with NaN where the leaves it searched hold fewer than k keys.
    short = np.flatnonzero(np.isnan(cosine).any(axis=1))
    if len(short):
        index[short], cosine[short] = exact_top_k(queries[short], keys, k, tile)
    return index, cosine


def _searcher(keys: np.ndarray, k: int) -> Any:
    """A ScaNN searcher over unit vectors ``<float32>[S, D]``."""
    neighbours = min(len(keys), k + _TIES)
    builder = _scann().builder(keys, neighbours, "dot_product")
    if len(keys) < BRUTE_FORCE_KEYS:
        return builder.score_brute_force().build()
    leaves = round(len(keys) ** 0.5)
    tree = builder.tree(
        num_leaves=leaves,
        num_leaves_to_search=max(1, leaves // 4),
        training_sample_size=min(len(keys), 250_000),
        spherical=True,
    )
    return tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(max(100, 4 * neighbours)).build()


def _scann() -> Any:
    try:
        from scann import scann_ops_pybind
    except (ImportError, OSError) as error:
        raise RelandError(
            f"config.retrieval.engine='scann', but ScaNN cannot be imported ({error}). Install it with "
            "`pip install -r requirements-scann.txt` (there are packages for Linux only), or set "
            "config.retrieval.engine='exact'"
        ) from error
    return scann_ops_pybind
