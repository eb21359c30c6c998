"""Behaviour vectors with the texts of a user's items appended."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from reland_jax.types import Ragged


def add_texts(behaviour: np.ndarray, train: Ragged, item_text: np.ndarray, weight: float) -> np.ndarray:
    """Appends the mean text of a user's training items to its encoder vector, both of length 1.

    The paper's M (Eq. 1) comes from interactions alone. On sparse data the nearest user by interactions is
    often interested in other kinds of items, and its rationale is then no better than any other. With both
    halves, the cosine of Eq. 3 is the mean of the similarity in behaviour and the similarity of the item
    texts (weight 1).

    Args:
        behaviour: ``<float32>[U, D]``, M of the encoder.
        train: training items of every user.
        item_text: ``<float32>[I + 1, T]``, whitened item texts, zero where an item has none.
        weight: length of the text half relative to the encoder's, above 0.

    Returns:
        ``<float32>[U, D + T]``; the text half of a user without described items is zero.
    """
    counts = np.ones(len(train.items), np.float32)
    chosen = sparse.csr_matrix((counts, train.items, train.indptr), shape=(train.num_rows, len(item_text)))
    return np.concatenate([_unit(behaviour), weight * _unit(chosen @ _unit(item_text))], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
