"""Checks the vectors of every engine and scales them to unit length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.types import RelandError


def checked(
    queries: np.ndarray | jax.Array, keys: np.ndarray | jax.Array, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries ``<float32>[Q, D]`` and keys ``<float32>[S, D]``, once they are fit for a search.

    Raises:
        RelandError: shapes that do not fit, no keys, values not finite, or k outside 1 .. S.
    """
    queries, keys = np.asarray(queries, np.float32), np.asarray(keys, np.float32)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise RelandError(
            f"retrieval: queries {queries.shape} and keys {keys.shape}; expected [Q, D] and [S, D]"
        )
    if not 1 <= k <= len(keys):
        raise RelandError(
            f"retrieval: {k} neighbours asked for among {len(keys)} seed users; "
            "config.retrieval.neighbours must be between 1 and the number of seed users"
        )
    for name, rows in (("queries", queries), ("keys", keys)):
        if not np.isfinite(rows).all():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            raise RelandError(
                f"retrieval: {len(bad)} of {len(rows)} {name} are not finite, the first at rows "
                f"{bad[:5].tolist()}; look at the training of the behaviour encoder"
            )
    return in_range(queries), in_range(keys)


def in_range(rows: np.ndarray) -> np.ndarray:
    """Rows of numbers ``[n, D]`` as ``<float32>[n, D]``; very large and very small ones are scaled.

    Only their direction matters, and compiled programs treat numbers below 1e-38, and reciprocals of those
    above 1e38, as zero.

    Args:
        rows: finite.
    """
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    odd = np.flatnonzero(((largest < 1e-30) & (largest > 0)) | (largest > 1e30))
    if not len(odd):
        return rows.astype(np.float32, copy=False)
    wide = rows.astype(np.float64)
    wide[odd] /= largest[odd, None].astype(np.float64)
    return wide.astype(np.float32)


def unit_rows(rows: jax.Array) -> jax.Array:
    """Rows ``<float32>[n, D]`` scaled to length 1; a row of zeros stays one, so its cosines are 0."""
    # Dividing by the largest entry first keeps the squares of very large or small rows in range.
    largest = jnp.abs(rows).max(axis=1, keepdims=True)
    rows = rows / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(norm > 0, norm, 1.0)


def unit_rows_host(rows: np.ndarray) -> np.ndarray:
    """`unit_rows` in NumPy, which needs no compilation for a new number of rows."""
    with np.errstate(over="ignore"):
        squares = np.einsum("nd,nd->n", rows, rows)
    odd = ~((squares > 1e-30) & (squares < 1e30))
    unit = rows / np.sqrt(np.where(odd, 1.0, squares), dtype=np.float32)[:, None]
    if odd.any():
        unit[odd] = np.asarray(unit_rows(jnp.asarray(rows[odd])))
    return unit
