"""Text -> token ids, with the tokenizer that came with the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reland_jax.types import RelandError

Tokenise = Callable[[Sequence[str]], list[list[int]]]
"""Texts -> token ids of each, special tokens included, cut to the longest length, not padded."""


def load_tokenizer(folder: Path, max_tokens: int) -> Tokenise:
    """Loads the tokenizer of a local checkpoint folder.

    Args:
        folder: has tokenizer.json or, for older checkpoints, vocab.txt.
        max_tokens: longest sequence, special tokens included; the rest of a text is not read.

    Raises:
        RelandError: the folder has no tokenizer, or its file is damaged.
    """
    fast = folder / "tokenizer.json"
    if fast.is_file():
        return _from_tokenizer_json(fast, max_tokens)
    if (folder / "vocab.txt").is_file():
        return _from_vocabulary(folder, max_tokens)
    raise RelandError(f"{folder}: no tokenizer.json and no vocab.txt; is this the folder of a BERT?")


def _from_tokenizer_json(path: Path, max_tokens: int) -> Tokenise:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise RelandError(f"{path}: cannot read the tokenizer: {error}") from error
    # The file may fix its own length and padding; a batch decides those here.
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.no_padding()
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _from_vocabulary(folder: Path, max_tokens: int) -> Tokenise:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise RelandError(f"{folder}: cannot make a tokenizer from its vocab.txt: {error}") from error
    return lambda texts: tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
