"""Hashes of the training items from which rationales were written.

A stored rationale may be used under another split as long as everything that its writer saw is training data.
Two numbers per seed user decide that: the number of first training items, and a 64-bit hash of them. No item
is stored.
"""

from __future__ import annotations

import numpy as np

from reland_jax.hashes import mixed
from reland_jax.strings import as_strings, packed
from reland_jax.types import Ragged

_BYTES = np.uint64(0x100000001B3)
_PLACES = np.uint64(0x9E3779B97F4A7C15)


def history_codes(train: Ragged, item_ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A code of every user's first training items, in their order: ``<uint64>[U]``.

    Equal histories have equal codes for all dense ids; different ones have different codes but for a chance
    of 1 in 2^64. A row shorter than its length counts completely.

    Args:
        train: ``U`` rows.
        item_ids: ``<str>[I + 1]``, external ids.
        lengths: ``<int>[U]``, number of items of each row.
    """
    place = np.arange(len(train.items)) - np.repeat(train.indptr[:-1], train.lengths())
    with np.errstate(over="ignore"):
        terms = mixed(_codes(item_ids)[train.items] + _PLACES * (place + 1).astype(np.uint64))
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        ends = train.indptr[:-1] + np.minimum(lengths, train.lengths())
        return total[ends] - total[train.indptr[:-1]]


def _codes(texts: np.ndarray) -> np.ndarray:
    """A 64-bit code of every text, ``<uint64>[n]``: the same on every machine."""
    content, starts = packed(as_strings(texts))
    lengths = np.diff(starts)
    powers = np.cumprod(np.full(lengths.max(initial=0), _BYTES, np.uint64), dtype=np.uint64)
    # NULs count too, so that texts which differ by NULs at the end have different codes.
    letters = np.where(content == 0, np.uint64(256), content.astype(np.uint64))
    terms = letters * powers[np.arange(len(content)) - np.repeat(starts[:-1], lengths)]
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return mixed(total[starts[1:]] - total[starts[:-1]])
