"""Columns of text of variable width: a text of 100,000 characters costs 100,000 characters.

NumPy's ``<U`` arrays give every row the width of the longest and drop NULs at the end of a text; they have
no place for ids, titles or answers. `as_strings` makes what is used instead, and `packed` what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STRING = np.dtypes.StringDType()
"""The dtype of text columns, written ``<str>`` in docstrings."""


def as_strings(values: Iterable[str] | np.ndarray) -> np.ndarray:
    """A column of text, ``<str>[n]`` of variable width.

    Args:
        values: texts. Arrays of numbers are refused rather than written out in NumPy's own format.

    Raises:
        TypeError: a value is no text.
    """
    given = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if bad := next((value for value in given if not isinstance(value, str)), None):
        raise TypeError(f"{bad!r} is a {type(bad).__name__}, where a text is needed")
    return np.array(given, dtype=STRING)


def packed(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A column as its UTF-8 bytes, one text after the other, and where each text begins.

    Args:
        column: ``<str>[n]``.

    Returns:
        ``<uint8>[bytes]`` and ``<int64>[n + 1]``.
    """
    texts = [text.encode() for text in column.tolist()]
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=starts[1:])
    return np.frombuffer(b"".join(texts), np.uint8), starts


def unpacked(content: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """What `packed` was given, ``<str>[n]``.

    Raises:
        ValueError: the two do not belong together, or the bytes are no UTF-8.
    """
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(content) or (np.diff(starts) < 0).any():
        raise ValueError("the beginnings of the texts do not fit their bytes")
    whole, edges = np.asarray(content).tobytes(), starts.tolist()
    texts = [
        whole[low:high].decode()
        for low, high in zip(edges, edges[1:], strict=False)
    ]  # fmt: skip
    return np.array(texts, dtype=STRING)
