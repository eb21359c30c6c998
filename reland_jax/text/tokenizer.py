"""Text -> token ids, with the tokenizer that came with the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from reland_jax.types import RelandError


class Tokeniser(NamedTuple):
    """The tokenizer of an encoder, cut to its longest sequence.

    Attributes:
        encode: texts -> token ids of each, special tokens included, not padded.
        pieces: the piece of every token id; a piece that goes on with a word begins with "##".
        special: ids that stand for no part of a text.
        unknown: id of whatever is not in the vocabulary, None where there is none.
        where: its file, for messages.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    pieces: Sequence[str]
    special: frozenset[int]
    unknown: int | None
    where: str

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text.

        Raises:
            RelandError: the tokenizer cannot read one, since its file is damaged.
        """
        try:
            return self.encode(list(texts))
        except Exception as error:  # the libraries raise plain Exception, also for damage
            raise RelandError(f"{self.where}: the tokenizer fails on texts: {error}") from error


def load_tokenizer(folder: Path, max_tokens: int) -> Tokeniser:
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


def _from_tokenizer_json(path: Path, max_tokens: int) -> Tokeniser:
    import json

    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        # The file may fix its own length and padding; a batch decides those here.
        tokenizer.enable_truncation(max_length=max_tokens)
        tokenizer.no_padding()
        unknown = json.loads(path.read_text("utf-8"))["model"].get("unk_token")
    except Exception as error:  # the library raises plain Exception
        raise RelandError(f"{path}: cannot read the tokenizer: {error}") from error
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

    return _tokeniser(encode, tokenizer.get_vocab(), special, unknown, str(path))


def _from_vocabulary(folder: Path, max_tokens: int) -> Tokeniser:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise RelandError(f"{folder}: cannot make a tokenizer from its vocab.txt: {error}") from error

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]

    special = set(tokenizer.all_special_ids)
    return _tokeniser(encode, tokenizer.get_vocab(), special, tokenizer.unk_token, str(folder / "vocab.txt"))


def _tokeniser(
    encode: Callable[[Sequence[str]], list[list[int]]],
    vocabulary: dict[str, int],
    special: set[int],
    unknown: str | None,
    where: str,
) -> Tokeniser:
    pieces = [""] * (max(vocabulary.values(), default=-1) + 1)
    for piece, place in vocabulary.items():
        pieces[place] = piece
    number = vocabulary.get(unknown) if unknown else None
    tokeniser = Tokeniser(encode, pieces, frozenset(), number, where)
    # Of a text without a word only what stands around every text is left.
    special = special.union(*tokeniser([""])) - {number}
    return tokeniser._replace(special=frozenset(special))
