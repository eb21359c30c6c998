"""Texts -> vectors, with a frozen BERT: the TextEncoder of the paper's Eq. 4.

Every distinct text is tokenised and encoded once. Texts are grouped by length into a few static shapes,
so that little work is spent on padding and XLA compiles once per shape.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import TextConfig
from reland_jax.device import sizes
from reland_jax.progress import Progress
from reland_jax.strings import encodable
from reland_jax.text.bert import Bert, BertConfig
from reland_jax.text.cache import add_rows, open_cache, text_key
from reland_jax.text.checkpoint import CONFIG, WEIGHTS, Pooling, find_checkpoint, fingerprint, read_pooling
from reland_jax.text.convert import load_params
from reland_jax.text.reading import check_reading, read_by
from reland_jax.text.tokenizer import Tokeniser, load_tokenizer
from reland_jax.types import RelandError

LENGTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)
"""Sequence lengths that are compiled, up to `TextConfig.max_tokens`. On 12,000 product titles 87% of
the work is then on tokens, the rest on padding; finer steps cost more compilation than they save."""

_log = logging.getLogger(__name__)


class TextEncoder(NamedTuple):
    """A frozen encoder, ready to run.

    Attributes:
        config: sizes of the BERT; `config.hidden_size` is T.
        params: its parameters.
        pooling: how tokens become one vector.
        tokenise: texts -> token ids, each smaller than `config.vocab_size`.
        max_tokens: longest sequence.
    """

    config: BertConfig
    params: dict[str, Any]
    pooling: Pooling
    tokenise: Tokeniser
    max_tokens: int


def load_encoder(config: TextConfig) -> TextEncoder:
    """Loads the encoder that `config.encoder` names.

    Raises:
        RelandError: it cannot be found or is not supported, or `config.max_tokens` is out of its range.
    """
    return _load(find_checkpoint(config.encoder), config)


def check_texts(texts: Sequence[str], config: TextConfig, what: str = "texts") -> None:
    """Checks, before long work, that `encode_texts` will succeed and give meaningful vectors.

    The encoder is loaded completely, so that faults in its files are found; the texts are tokenised but not
    encoded.

    Raises:
        RelandError: see `load_encoder` and `reading.check_reading`.
    """
    _tokens(load_encoder(config), _distinct(texts), config, what)


def encode_texts(
    texts: Sequence[str],
    config: TextConfig,
    cache_dir: str | os.PathLike[str] | None,
    what: str = "texts",
) -> np.ndarray:
    """Encodes texts. The vector of a text does not depend on the other texts.

    Args:
        texts: ``n`` texts; repeated ones are encoded once.
        config: which encoder, how many tokens, how many texts per step.
        cache_dir: folder of the cache of vectors; None encodes without one.
        what: which texts these are, for messages.

    Returns:
        ``<float32>[n, T]``; a text that is empty or only white space is the zero vector.

    Raises:
        RelandError: see `load_encoder` and `reading.check_reading`.
    """
    texts = list(map(encodable, texts))
    distinct = _distinct(texts)
    vectors = _encode_distinct(distinct, config, cache_dir, what)
    row_of = {text: row for row, text in enumerate(distinct)}
    rows = [row_of.get(text, len(distinct)) for text in texts]
    return np.concatenate([vectors, np.zeros_like(vectors, shape=(1, vectors.shape[1]))])[rows]


def run_encoder(encoder: TextEncoder, token_ids: Sequence[Sequence[int]], batch_size: int) -> np.ndarray:
    """Encodes texts that are tokens already.

    Args:
        encoder: from `load_encoder`.
        token_ids: of ``n`` texts, by its tokenizer.
        batch_size: `TextConfig.batch_size`, which counts texts of `Sizes.text_tokens` tokens: of longer ones
            fewer go into a step, of shorter ones more, so that a step always has about as many tokens.

    Returns:
        ``<float32>[n, T]``.

    Raises:
        RelandError: a vector is not finite.
    """
    started, count = time.monotonic(), len(token_ids)
    vectors = np.zeros((count, encoder.config.hidden_size), np.float32)
    tokens = batch_size * sizes().text_tokens
    batches = plan_batches([len(ids) for ids in token_ids], encoder.max_tokens, tokens)
    with Progress("encode texts", count, "text") as progress:
        for batch in batches:
            ids, lengths = _padded([token_ids[row] for row in batch.rows], batch.shape)
            encoded = embed(encoder.config, encoder.pooling, encoder.params, ids, lengths)
            vectors[batch.rows] = np.asarray(encoded)[: len(batch.rows)]
            progress.advance(len(batch.rows))
    seconds = max(time.monotonic() - started, 1e-9)
    _log.info("encoded %d texts in %.1f s (%.0f texts/s)", count, seconds, count / seconds)
    if not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise RelandError(
            f"{encoder.tokenise.where}: its encoder makes vectors that are not finite of {bad} of "
            f"{count} texts; its weights or its {CONFIG} are damaged: fetch it again"
        )
    return vectors


class Batch(NamedTuple):
    """Rows of the input that are encoded together, and the static (texts, tokens) they are padded to."""

    rows: np.ndarray
    shape: tuple[int, int]


def plan_batches(lengths: Sequence[int], max_tokens: int, tokens_per_step: int) -> Iterator[Batch]:
    """Groups texts by the shortest static length that holds them, shortest first.

    Args:
        lengths: tokens of ``n`` texts, each at most `max_tokens`.
        max_tokens: the greatest static length.
        tokens_per_step: tokens of a batch, padding included. The shape of a text's batch is given by its
            own length and this number alone: a program for another shape adds up in another order, and the
            last bits of a vector would depend on how many texts of its length there are.

    Yields:
        Batches that hold every text once.
    """
    static = np.array([*(length for length in LENGTHS if length < max_tokens), max_tokens])
    group = np.searchsorted(static, lengths)
    order = np.argsort(lengths, kind="stable")
    for index, length in enumerate(static):
        members = order[group[order] == index]
        size = max(tokens_per_step // int(length), 1)
        for start in range(0, len(members), size):
            yield Batch(members[start : start + size], (size, int(length)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def embed(
    config: BertConfig, pooling: Pooling, params: dict[str, Any], ids: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Encodes one batch; compiled once per shape.

    Args:
        config: sizes of the BERT.
        pooling: how tokens become one vector.
        params: parameters of `Bert(config)`.
        ids: ``<int32>[B, L]`` token ids, padded on the right.
        lengths: ``<int32>[B]`` tokens of each text.

    Returns:
        ``<float32>[B, T]``.
    """
    mask = jnp.arange(ids.shape[1]) < lengths[:, None]
    # Flax declares a pair of results too, which it returns where variables change: none do here.
    hidden = cast(jax.Array, Bert(config).apply({"params": params}, ids, mask))
    return pool(hidden, mask, pooling)


def pool(hidden: jax.Array, mask: jax.Array, pooling: Pooling) -> jax.Array:
    """Token vectors -> one vector per text, as sentence-transformers does it.

    Args:
        hidden: ``<float32>[B, L, T]``, the encoder's last hidden state.
        mask: ``<bool>[B, L]``, true at tokens.
        pooling: which pooling.

    Returns:
        ``<float32>[B, T]``; zero where a row has no token.
    """
    if pooling.mode == "cls":
        pooled = hidden[:, 0] * mask[:, :1]
    else:
        total = jnp.sum(hidden * mask[..., None], axis=1)
        pooled = total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    if not pooling.normalise:
        return pooled
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)


def _load(folder: Path, config: TextConfig) -> TextEncoder:
    bert_config = BertConfig.from_file(folder / CONFIG)
    if not 3 <= config.max_tokens <= bert_config.max_position_embeddings:
        raise RelandError(
            f"config.text.max_tokens={config.max_tokens} must be at least 3 and at most "
            f"{bert_config.max_position_embeddings}, the positions of text.encoder={config.encoder!r}"
        )
    return TextEncoder(
        config=bert_config,
        params=jax.device_put(load_params(folder / WEIGHTS, bert_config)),
        pooling=read_pooling(folder),
        tokenise=load_tokenizer(folder, config.max_tokens),
        max_tokens=config.max_tokens,
    )


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text for text in map(encodable, texts) if text.strip()))


def _encode_distinct(
    texts: Sequence[str], config: TextConfig, cache_dir: str | os.PathLike[str] | None, what: str
) -> np.ndarray:
    folder = find_checkpoint(config.encoder)
    if cache_dir is None:
        whole = _load(folder, config)
        return run_encoder(whole, _tokens(whole, texts, config, what), config.batch_size)
    identity = fingerprint(folder)
    cache = open_cache(cache_dir, identity)
    keys = [text_key(identity, config.max_tokens, config.batch_size, text) for text in texts]
    missing = {key: row for row, key in enumerate(keys) if key not in cache.rows}
    sizes = BertConfig.from_file(folder / CONFIG)
    # The texts are tokenised even if all are in the cache, so that unknown words are reported.
    encoder = _load(folder, config) if missing else None
    tokenise = encoder.tokenise if encoder else load_tokenizer(folder, config.max_tokens)
    token_ids = _tokens_of(tokenise, sizes, texts, config, what)
    if encoder:
        vectors = run_encoder(encoder, [token_ids[row] for row in missing.values()], config.batch_size)
        cache = add_rows(cache, list(missing), vectors)
    return np.array([cache.rows[key] for key in keys], np.float32).reshape(len(texts), sizes.hidden_size)


def _tokens(encoder: TextEncoder, texts: Sequence[str], config: TextConfig, what: str) -> list[list[int]]:
    return _tokens_of(encoder.tokenise, encoder.config, texts, config, what)


def _tokens_of(
    tokenise: Tokeniser, sizes: BertConfig, texts: Sequence[str], config: TextConfig, what: str
) -> list[list[int]]:
    """Token ids of texts, after checking that the encoder has them and knows the texts."""
    token_ids = tokenise(texts)
    beyond = max((max(ids, default=0) for ids in token_ids), default=0)
    if beyond >= sizes.vocab_size:
        raise RelandError(
            f"{tokenise.where}: token id {beyond} ({tokenise.pieces[beyond]!r}), but vocab_size="
            f"{sizes.vocab_size} in the {CONFIG} of the same folder: the two belong to different encoders"
        )
    check_reading(what, read_by(tokenise, texts, token_ids), config)
    return token_ids


def _padded(token_ids: Sequence[Sequence[int]], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of a batch -> ``<int32>[B, L]`` padded with 0, and their lengths ``<int32>[B]``."""
    ids, lengths = np.zeros(shape, np.int32), np.zeros(shape[0], np.int32)
    for row, sequence in enumerate(token_ids):
        ids[row, : len(sequence)] = sequence
        lengths[row] = len(sequence)
    return ids, lengths
