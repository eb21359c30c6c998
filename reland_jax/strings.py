"""Columns of text of variable width: a text of 100,000 characters costs 100,000 characters.

NumPy's ``<U`` arrays give every row the width of the longest and drop NULs at the end of a text; they have
no place for ids, titles or answers. `as_strings` makes what is used instead, and `packed` what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

STRING = np.dtypes.StringDType()
"""The dtype of text columns, written ``<str>`` in docstrings."""


UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Characters that steer a terminal, a page or the direction of writing, and are not seen themselves."""

_AT_ONCE = 1 << 16
"""Texts that are Python objects at the same time while a column is converted."""


def as_strings(values: Iterable[str] | np.ndarray) -> np.ndarray:
    """A column of text, ``<str>[n]`` of variable width.

    Args:
        values: texts; a column of variable width is returned as it is. Arrays of numbers are refused rather
            than written out in NumPy's own format.

    Raises:
        TypeError: a value is not a text.
    """
    if isinstance(values, np.ndarray) and values.dtype == STRING:
        return values
    given = values if isinstance(values, np.ndarray | list) else list(values)
    column = np.empty(len(given), dtype=STRING)
    for low in range(0, len(given), _AT_ONCE):
        part = given[low : low + _AT_ONCE]
        texts = part.tolist() if isinstance(part, np.ndarray) else part
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is a {type(text).__name__}, where a text is needed")
        column[low : low + _AT_ONCE] = np.array(texts, dtype=STRING)
    return column


def encodable(text: str) -> str:
    """A text without lone surrogates, which UTF-8 cannot hold: "?" stands for each."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    """A text that people are shown: a replacement character stands for each of `UNSEEN`.

    Joiners stay, which Persian, Indic scripts and emoji are written with.
    """
    return UNSEEN.sub("\ufffd", text)


def is_text(array: np.ndarray) -> bool:
    """Whether an array is a column of text, of whichever of NumPy's types for it."""
    return array.ndim == 1 and (array.dtype == STRING or array.dtype.kind in "OU")


def distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct texts of a column in sorted order, and the number of each row's text among them.

    Args:
        column: ``<str>[n]``.

    Returns:
        ``<str>[m]`` and ``<int64>[n]``.
    """
    # Asked for the first places too, NumPy sorts stably. Its quicksort of texts ends the process where it
    # would change to heapsort, as on two sorted runs one after the other (seen in NumPy 2.4.6).
    names, _, code = np.unique(as_strings(column), return_index=True, return_inverse=True)
    return names, code.astype(np.int64)


def packed(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A column as its UTF-8 bytes, one text after the other, and where each text begins.

    Args:
        column: ``<str>[n]``.

    Returns:
        ``<uint8>[bytes]`` and ``<int64>[n + 1]``.
    """
    parts, starts = [], np.zeros(len(column) + 1, np.int64)
    for low in range(0, len(column), _AT_ONCE):
        texts = [text.encode() for text in column[low : low + _AT_ONCE].tolist()]
        starts[low + 1 : low + 1 + len(texts)] = [len(text) for text in texts]
        parts.append(b"".join(texts))
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(starts)


def unpacked(content: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """What `packed` was given, ``<str>[n]``.

    Raises:
        ValueError: the two do not belong together, or the bytes are not UTF-8.
    """
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(content) or (np.diff(starts) < 0).any():
        raise ValueError("the beginnings of the texts do not fit their bytes")
    column = np.empty(len(starts) - 1, dtype=STRING)
    for low in range(0, len(column), _AT_ONCE):
        edges = starts[low : low + _AT_ONCE + 1]
        whole = np.asarray(content[edges[0] : edges[-1]]).tobytes()
        edges = (edges - edges[0]).tolist()
        texts = [whole[start:end].decode() for start, end in pairwise(edges)]
        column[low : low + _AT_ONCE] = np.array(texts, dtype=STRING)
    return column
