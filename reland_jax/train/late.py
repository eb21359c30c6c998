"""Late interaction of items and rationales: which items are most like the phrases of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reland_jax.models import LateScores, Recommender, Tables

_AT_A_TIME = 128
"""Rationales whose phrases are compared with all items at a time."""


def with_late_scores(model: Recommender, tables: Tables[np.ndarray]) -> Tables[np.ndarray]:
    """The tables with `late`, where the recommender reads rationales as sets.

    Args:
        model: the recommender.
        tables: of the host; rationales ``<float32>[S, P, T]`` in the space of the item texts.
    """
    if not model.reads_sets:
        return tables
    assert tables.rationale is not None and tables.item_text is not None
    return tables._replace(late=late_scores(tables.rationale, tables.item_text, model.fusion.late_items))


def late_scores(phrases: np.ndarray, items: np.ndarray, count: int) -> LateScores[np.ndarray]:
    """The items that a rationale speaks for more than others do.

    An item's likeness to a rationale is its largest cosine to a phrase. Its mean over all rationales is taken
    away, and then the likeness of the first item that is left out, so that an item gains little by being just
    among those that are kept.

    Args:
        phrases: ``<float32>[S, P, T]``, zero where unused.
        items: ``<float32>[I + 1, T]``; row 0 stands for no item.
        count: N, items of a rationale that are kept.
    """
    items, count = _unit(items[1:]), min(count, len(items) - 1)
    mean = sum(likeness.sum(0) for likeness in _likeness(phrases, items)) / len(phrases)
    item, value = [], []
    for likeness in _likeness(phrases, items):
        centred = likeness - mean
        order = np.argsort(-centred, axis=1, kind="stable")
        best = np.take_along_axis(centred, order[:, :count], 1)
        left_out = np.take_along_axis(centred, order[:, count : count + 1], 1) if count < len(items) else 0.0
        item.append(order[:, :count] + 1)
        value.append(best - left_out)
    return LateScores(np.concatenate(item).astype(np.int32), np.concatenate(value).astype(np.float32))


def _likeness(phrases: np.ndarray, items: np.ndarray) -> Iterator[np.ndarray]:
    """The largest cosine of the phrases of a rationale to every item, ``<float32>[n, I]``, in blocks."""
    for begin in range(0, len(phrases), _AT_A_TIME):
        block = phrases[begin : begin + _AT_A_TIME]
        cosines = _unit(block) @ items.T
        cosines[~block.any(-1)] = -1.0
        yield cosines.max(1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
