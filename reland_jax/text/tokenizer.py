"""Text -> token ids, with the tokenizer that came with the encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reland_jax.types import RelandError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNKNOWN, _CLS, _SEP = "[UNK]", "[CLS]", "[SEP]"
_SPECIAL = ("[PAD]", _UNKNOWN, _CLS, _SEP, "[MASK]")


class Tokeniser(NamedTuple):
    """The tokenizer of an encoder, cut to its longest sequence.

    Attributes:
        encode: texts -> token ids of each, special tokens included, not padded.
        pieces: the piece of every token id; a piece that continues with a word begins with "##".
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
    if (vocabulary := folder / "vocab.txt").is_file():
        return _from_vocabulary(vocabulary, max_tokens)
    raise RelandError(f"{folder}: no tokenizer.json and no vocab.txt; is this the folder of a BERT?")


def _from_tokenizer_json(path: Path, max_tokens: int) -> Tokeniser:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        unknown = json.loads(path.read_text("utf-8"))["model"].get("unk_token")
    except Exception as error:  # the library raises plain Exception
        raise RelandError(f"{path}: cannot read the tokenizer: {error}") from error
    return _tokeniser(tokenizer, unknown, max_tokens, path)


def _from_vocabulary(path: Path, max_tokens: int) -> Tokeniser:
    """BERT's word pieces, as older checkpoints describe them: a vocabulary, and whether case counts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    settings = path.with_name("tokenizer_config.json")
    try:
        values = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        tokenizer = Tokenizer(models.WordPiece.from_file(str(path), unk_token=_UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=values.get("tokenize_chinese_chars", True),
            strip_accents=values.get("strip_accents"),
            lowercase=values.get("do_lower_case", True),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        known: dict[str, int] = tokenizer.get_vocab()
        if missing := [token for token in (_CLS, _SEP) if token not in known]:
            raise RelandError(f"{path}: {' and '.join(missing)} must be in the vocabulary of a BERT")
        tokenizer.post_processor = processors.BertProcessing((_SEP, known[_SEP]), (_CLS, known[_CLS]))
        tokenizer.add_special_tokens([token for token in _SPECIAL if token in known])
    except RelandError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise RelandError(f"{path.parent}: cannot make a tokenizer from its vocab.txt: {error}") from error
    return _tokeniser(tokenizer, _UNKNOWN, max_tokens, path)


def _tokeniser(tokenizer: Tokenizer, unknown: str | None, max_tokens: int, path: Path) -> Tokeniser:
    # The file may fix its own length and padding; a batch decides those here.
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.no_padding()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

    vocabulary = tokenizer.get_vocab()
    pieces = [""] * (max(vocabulary.values(), default=-1) + 1)
    for piece, place in vocabulary.items():
        pieces[place] = piece
    number = vocabulary.get(unknown) if unknown else None
    special = {place for place, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    tokeniser = Tokeniser(encode, pieces, frozenset(), number, str(path))
    # The tokens of an empty text are those that surround every text.
    special = special.union(*tokeniser([""])) - {number}
    return tokeniser._replace(special=frozenset(special))
