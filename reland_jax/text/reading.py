"""How much of its texts an encoder can read, measured on their tokens before anything is encoded.

An English encoder maps all texts in a script that its vocabulary lacks to the same few vectors, and splits a
script of which it only has the letters into meaningless letters. Neither shows in the vectors.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.config import TextConfig
from reland_jax.text.tokenizer import Tokeniser
from reland_jax.types import RelandError

SPELLED, SPELLED_ABROAD = 4, 2
"""A word that is read letter by letter counts as not known from so many letters on; the second is for words
with letters beyond ASCII, of which vocabularies of English have the letters alone."""

FEWEST_TEXTS = 10
"""Of fewer distinct texts nothing can be said about how many stay apart."""

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What an encoder knows of some texts.

    Attributes:
        texts: distinct texts.
        words: words with a letter.
        unknown: words that are not in the vocabulary, or are spelled letter by letter.
        apart: distinct sequences of tokens; texts with the same one have the same vector.
        examples: some texts with unknown words.
    """

    texts: int
    words: int
    unknown: int
    apart: int
    examples: tuple[str, ...]

    @property
    def unknown_share(self) -> float:
        """Words that are not known, in [0, 1]."""
        return self.unknown / max(self.words, 1)


def read_by(tokenise: Tokeniser, texts: Sequence[str], token_ids: Sequence[Sequence[int]]) -> Reading:
    """What the encoder of a tokenizer knows of some texts.

    Args:
        tokenise: made the tokens.
        texts: distinct texts.
        token_ids: of each text, as `tokenise` returned them.
    """
    words, unknown = _words(tokenise, token_ids)
    worst = sorted(np.flatnonzero(unknown).tolist(), key=lambda row: -unknown[row] / words[row])[:3]
    apart = len({tuple(ids) for ids in token_ids})
    examples = tuple(texts[row][:60] for row in worst)
    return Reading(len(texts), int(words.sum()), int(unknown.sum()), apart, examples)


def check_reading(what: str, reading: Reading, config: TextConfig) -> None:
    """Warns once if many words are unknown, and refuses texts if few of them stay distinct.

    Args:
        what: which texts, such as "item texts".
        reading: of them.
        config: `unknown_words`, the share that causes a warning, and `allow_alike`.

    Raises:
        RelandError: at most half of the texts stay apart, or three quarters where many words are not known.
    """
    foreign = reading.unknown_share > config.unknown_words
    alike = reading.texts >= FEWEST_TEXTS and reading.apart <= (0.75 if foreign else 0.5) * reading.texts
    unknown = f"does not know {reading.unknown_share:.0%} of their words"
    unknown += f", as in {', '.join(map(repr, reading.examples))}" if foreign else ""
    if not alike:
        if foreign:
            _tell(f"{what}: text.encoder={config.encoder!r} {unknown}: their vectors say little. {_ADVICE}")
        return
    message = (
        f"{what}: {reading.texts} distinct texts become {reading.apart} distinct vectors by "
        f"text.encoder={config.encoder!r}, which {unknown}. {_ADVICE}"
    )
    if not config.allow_alike:
        longer = "" if foreign else f"; or raise text.max_tokens={config.max_tokens}, if they begin alike"
        raise RelandError(f"{message}{longer}; config.text.allow_alike=True goes on as it is")
    _tell(message)


_ADVICE = (
    "Name an encoder of their language, such as a multilingual BERT (a folder or a name on the Hugging Face "
    "hub), as config.text.encoder, or leave the columns out of config.data.text_fields"
)


@functools.cache
def _tell(message: str) -> None:
    """Once, however often the same texts are encoded."""
    _log.warning("%s", message)


def _words(tokenise: Tokeniser, token_ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the words with letters of every text, and of the unknown ones: two ``<int64>[n]``."""
    lengths = np.array([len(ids) for ids in token_ids], np.int64)
    ids = np.concatenate([np.zeros(0, np.int64), *(np.asarray(each, np.int64) for each in token_ids)])
    kinds = _Kinds.of(tokenise)
    begins = ~kinds.goes_on[ids] | kinds.special[ids]
    begins[np.cumsum(lengths)[:-1][lengths[1:] > 0]] = True
    first = np.flatnonzero(begins)
    if not len(first):
        return np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    ones = np.ones(len(ids), np.int64)
    letters, single, pieces = (
        np.add.reduceat(each, first) for each in (kinds.letters[ids], kinds.single[ids], ones)
    )
    missing, abroad = (
        np.add.reduceat(each[ids].astype(np.int64), first) > 0 for each in (kinds.unknown, kinds.abroad)
    )
    text = np.repeat(np.arange(len(lengths)), lengths)[first]
    unknown = missing | ((single == pieces) & (pieces >= np.where(abroad, SPELLED_ABROAD, SPELLED)))
    count = functools.partial(np.bincount, minlength=len(lengths))
    return count(text[(letters > 0) | missing]), count(text[unknown])


class _Kinds(NamedTuple):
    """Of every token id: its letters, whether it is one, or has some beyond ASCII, and what it does."""

    letters: np.ndarray
    single: np.ndarray
    abroad: np.ndarray
    goes_on: np.ndarray
    special: np.ndarray
    unknown: np.ndarray

    @classmethod
    def of(cls, tokenise: Tokeniser) -> _Kinds:
        pieces = tokenise.pieces
        letters = np.array([sum(map(str.isalpha, piece)) for piece in pieces], np.int64)
        single = np.array([len(piece.removeprefix("##")) == 1 for piece in pieces], bool) & (letters == 1)
        number = np.arange(len(pieces))
        special = np.isin(number, list(tokenise.special))
        unknown = number == (-1 if tokenise.unknown is None else tokenise.unknown)
        goes_on = np.array([piece.startswith("##") for piece in pieces], bool)
        abroad = np.array([any(c.isalpha() and not c.isascii() for c in piece) for piece in pieces], bool)
        letters = np.where(special | unknown, 0, letters)
        return cls(letters, single.astype(np.int64), abroad, goes_on, special, unknown)
