"""Item-kNN: an item is liked as much as its nearest items, by the users of both, are in a history."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def nearest_items(had: sparse.csr_array, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest items of each item by the cosine of their users, as `sparse_ease.sparse_score` reads them.

    Args:
        had: ``[U, I]``, 1 where a user had an item.
        neighbours: k, at most.

    Returns:
        Items from 1, ``<int32>[I + 1, k]``, and their cosines, ``<float32>[I + 1, k]``; 0 where unused, and
        in the row of padding.
    """
    had = had.astype(np.float32)
    length = np.maximum(np.sqrt(had.sum(axis=0)), 1e-9)
    both = sparse.csr_array(had.T @ had).tocoo()
    cosine = both.data / (length[both.row] * length[both.col])
    other = both.row != both.col
    row, column, cosine = both.row[other], both.col[other], cosine[other]
    order = np.lexsort((column, -cosine, row))
    row, column, cosine = row[order], column[order], cosine[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < neighbours
    nearest = np.zeros((had.shape[1] + 1, neighbours), np.int32)
    weight = np.zeros(nearest.shape, np.float32)
    nearest[row[kept] + 1, place[kept]] = column[kept] + 1
    weight[row[kept] + 1, place[kept]] = cosine[kept]
    return nearest, weight
