"""Batches of few static shapes: histories and lists that a program compiled before can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from reland_jax.types import Ragged

BATCH_SIZES = (1, 8, 64, 512)
"""Users that a compiled program takes. A batch between two of them is filled up to the larger one."""


class Ranked(NamedTuple):
    """Lists, best first; of equal scores the item of the smaller number comes first.

    Attributes:
        item: ``<int32>[n, K]``; where fewer are left a list ends with `PADDING_ITEM`.
        score: ``<float32>[n, K]``, of the model, comparable within a list; minus infinity at its end.
    """

    item: np.ndarray
    score: np.ndarray


class Batch(NamedTuple):
    """Some users in the place of a static number of them.

    Attributes:
        begin: number of the first of them.
        used: how many there are.
        size: how many the program takes.
    """

    begin: int
    used: int
    size: int


def batches(count: int, largest: int) -> Iterator[Batch]:
    """Divides users among batches of `BATCH_SIZES`, the largest first.

    Args:
        count: users.
        largest: that there is memory for; at least one user is taken at a time.
    """
    usable = [size for size in BATCH_SIZES if size <= largest] or [1]
    for begin in range(0, count, usable[-1]):
        used = min(count - begin, usable[-1])
        yield Batch(begin, used, next(size for size in usable if size >= used))


def power_of_two(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(number - 1, 0).bit_length()


def in_rows(lists: Ragged, batch: Batch, width: int) -> np.ndarray:
    """The lists of a batch, ``<int32>[size, width]``, 0 where unused; of longer ones the end.

    Args:
        lists: of all users.
        batch: which of them.
        width: W.
    """
    out = np.zeros((batch.size, width), np.int32)
    bounds = lists.indptr[batch.begin : batch.begin + batch.used + 1]
    first = np.maximum(bounds[:-1], bounds[1:] - width)
    lengths = bounds[1:] - first
    row = np.repeat(np.arange(batch.used), lengths)
    column = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[row, column] = lists.items[np.repeat(first, lengths) + column]
    return out


def nothing(rows: int) -> Ragged:
    """Lists without any items."""
    return Ragged(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
