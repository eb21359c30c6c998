"""Checks, encodes and whitens the texts of items and rationales."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import Config, TextConfig
from reland_jax.data import item_texts
from reland_jax.pool import phrases_of
from reland_jax.strings import visible
from reland_jax.text import check_texts, encode_texts, encoder_state, whiten
from reland_jax.types import Interactions, RelandError
from reland_jax.variants import find_variant

ITEM_TEXTS, RATIONALES, PHRASES = "item texts", "rationales", "phrases of rationales"
"""Names of the texts in messages."""


def check_item_texts(interactions: Interactions, config: Config) -> None:
    """Checks that the item texts can be encoded into meaningful vectors (`text.check_texts`).

    Raises:
        RelandError: they cannot.
    """
    check_texts(item_texts(interactions, config.data.text_fields), _text_config(config), ITEM_TEXTS)


def encode_items(interactions: Interactions, config: Config, cache: Path) -> np.ndarray:
    """The vectors of all items, ``<float32>[I + 1, T]``; zero where an item has no text.

    Raises:
        RelandError: see `text.encode_texts`.
    """
    texts = item_texts(interactions, config.data.text_fields)
    return encode_texts(texts, _text_config(config), cache, ITEM_TEXTS)


def encode_further_items(described: Interactions, known: int, config: Config, cache: Path) -> np.ndarray:
    """The vectors of items that a model does not know yet, as the stage makes them; ``<float32>[n, T]``.

    Args:
        described: of the items that it knows, and n more after them.
        known: I, items that it knows.
        config: all settings. Where vectors are whitened, it is by the texts of the known items, which are
            encoded again.
        cache: folder of vectors by text.

    Raises:
        RelandError: an item without a text, or see `text.encode_texts`.
    """
    texts, whiten_items = item_texts(described, config.data.text_fields), config.text.whiten_items
    for number in range(known + 1, len(texts)):
        if not texts[number].strip():
            raise RelandError(
                f"item {visible(str(described.ids.items[number]))!r} has no text: one of the columns "
                f"{', '.join(described.item_features)} must say what it is"
            )
    if whiten_items is None:
        return encode_texts(texts[known + 1 :], _text_config(config), cache, ITEM_TEXTS)
    vectors = encode_texts(texts, _text_config(config), cache, ITEM_TEXTS)
    return whitened(vectors[known + 1 :], vectors[: known + 1], whiten_items)


def encode_rationales(
    interactions: Interactions, written: Sequence[str], config: Config, cache: Path
) -> np.ndarray:
    """The vectors of what was written about each seed user, whitened where the settings say so.

    Args:
        interactions: of the items whose texts give the directions.
        written: step 2 of all S rationales.
        config: all settings.
        cache: folder of the vectors of texts.

    Returns:
        ``<float32>[S, T]``.

    Raises:
        RelandError: see `text.encode_texts`.
    """
    rationales = encode_texts(written, _text_config(config), cache, RATIONALES)
    # Tastes differ along the principal directions of the items. Raw rationales share one large component,
    # whose projection is a bias towards popular items.
    items = encode_items(interactions, config, cache)
    return whitened(rationales, items, config.text.whiten_rationales)


def encode_phrases(
    interactions: Interactions, written: Sequence[str], config: Config, cache: Path
) -> np.ndarray:
    """The vectors of the phrases of each rationale, each encoded by itself as item texts are.

    Args:
        interactions: see `encode_rationales`, like the other arguments.
        written: step 2 of all S rationales.
        config: all settings.
        cache: folder of the vectors of texts.

    Returns:
        ``<float32>[S, P, T]``, P the most phrases of a rationale; rows of zeros where there are fewer.
    """
    phrases = [phrases_of(step2) for step2 in written]
    used = np.arange(max(map(len, phrases), default=1) or 1) < np.array([[len(each)] for each in phrases])
    flat = [phrase for each in phrases for phrase in each]
    items = encode_items(interactions, config, cache)
    vectors = encode_texts(flat, dataclasses.replace(_text_config(config), allow_alike=True), cache, PHRASES)
    found = np.zeros((*used.shape, vectors.shape[1]), np.float32)
    found[used] = vectors
    wide = whitened(found.reshape(-1, found.shape[2]), items, config.text.whiten_items)
    return np.where(used[..., None], wide.reshape(*used.shape, -1), 0).astype(np.float32)


def whitened(texts: np.ndarray, items: np.ndarray, directions: int | None) -> np.ndarray:
    """Vectors in the leading directions of the item texts; unchanged if `directions` is None.

    Args:
        texts: ``<float32>[n, T]``.
        items: ``<float32>[I + 1, T]``.
        directions: upper bound; there are no more than described items and T.
    """
    if directions is None:
        return texts
    described = int(items.any(1).sum())
    directions = min(directions, items.shape[1], described - 1)
    return whiten(texts, items[1:], directions) if directions > 0 else texts


def texts_state(config: Config) -> list[Any]:
    """Settings of a stage on which text vectors depend: the weights of the encoder, the length of text that
    it reads, and the columns that describe an item."""
    return [encoder_state(config.text.encoder), config.text.max_tokens, config.data.text_fields]


def _text_config(config: Config) -> TextConfig:
    """If no variant reads texts, similar vectors are allowed."""
    read = config.encoder.text_weight or any(find_variant(name).reads_texts for name in config.variants)
    return config.text if read else dataclasses.replace(config.text, allow_alike=True)
