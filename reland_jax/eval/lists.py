"""Lists of a few users' best items, for people to look at."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from reland_jax.eval.ranks import Vectors, recommend
from reland_jax.types import Splits


def best_items(
    vectors: Vectors, splits: Splits, users: np.ndarray, count: int, mask_history: bool
) -> np.ndarray:
    """The best items of users after their validation items.

    Args:
        vectors: of all users and items, for the test part.
        splits: the history is their training and validation part.
        users: ``<int>[B]``.
        count: length of a list, K.
        mask_history: whether the lists leave the history out.

    Returns:
        ``<int32>[B, min(K, I)]``, best first; where fewer are left a list ends with `PADDING_ITEM`.
    """
    masked = _history(splits, users) if mask_history else np.zeros((len(users), 1), np.int32)
    return recommend(vectors, jnp.asarray(users), jnp.asarray(masked), count, splits.num_items)[0]


def _history(splits: Splits, users: np.ndarray) -> np.ndarray:
    rows = [np.concatenate([splits.train.row(u), splits.valid.row(u)]) for u in users]
    out = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out
