"""Counts the tokens of prompts before they are sent: with tiktoken, or from the length of the text.

`chat_tokens` is the expected cost of a request: exact with the model's tokenizer (`exact`), an estimate
otherwise. `chat_bound` is an upper bound, which a hard budget reserves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from reland_jax.config import PoolConfig

CHARACTERS = "characters"
"""Value of `config.pool.tokenizer` that asks for the estimate from the length of the text."""

OPENAI_OVERHEAD = 7
"""Tokens of one chat message besides its text, and of the start of the answer, in OpenAI's chat format."""

UNKNOWN_OVERHEAD = 32
"""The same for an unknown chat format, more than common chat templates take."""

_CHARACTERS_PER_TOKEN = 3


class CharacterCounter(NamedTuple):
    """An estimate from the length: a third of the characters, rounded up.

    English prose has four to five characters per token, so this is cautious. It is not a bound: scripts that
    are rare in a vocabulary take up to one token per byte (see `chat_bound`).
    """

    exact: bool = False
    name: str = CHARACTERS
    overhead: int = UNKNOWN_OVERHEAD

    def count(self, text: str) -> int:
        """A third of the characters, rounded up."""
        return -(-len(text) // _CHARACTERS_PER_TOKEN)


class OpenAICounter(NamedTuple):
    """The tokenizer of a model of OpenAI.

    Attributes:
        encode: text -> tokens.
        name: of the tokenizer, for people.
        exact: whether the counts of texts are those of the model's own tokenizer.
        overhead: tokens of the chat format for each message: its role, its separators, and the start of the
            answer.
    """

    encode: Callable[[str], Sequence[int]]
    name: str
    exact: bool = True
    overhead: int = OPENAI_OVERHEAD

    def count(self, text: str) -> int:
        """Tokens of a text without the chat format."""
        return len(self.encode(text))


TokenCounter = CharacterCounter | OpenAICounter
"""Counts tokens of texts."""


def token_counter(config: PoolConfig) -> TokenCounter:
    """The counter for `config.model`: that of tiktoken for a model of OpenAI, else an estimate.

    tiktoken downloads the vocabulary of a model once. If the download fails, the package is not installed, or
    `config.tokenizer` is `CHARACTERS`, the count is estimated.
    """
    return CharacterCounter() if config.tokenizer == CHARACTERS else _of_openai(config.model)


@functools.cache
def _of_openai(model: str) -> TokenCounter:
    """tiktoken's counter, or the estimate; this process does not repeat a failed download."""
    try:
        import tiktoken

        encoding = tiktoken.encoding_for_model(model)
    except Exception:  # not installed, not a model of OpenAI, or the download failed
        return CharacterCounter()
    # Text that looks like a special token is ordinary text, as it is for the API.
    return OpenAICounter(encoding.encode_ordinary, encoding.name)


def chat_tokens(counter: TokenCounter, messages: Sequence[Mapping[str, str]]) -> int:
    """Tokens of the request with these chat messages: their texts and the chat format around them.

    With an exact counter it is exact up to the chat format, otherwise an estimate that may be too low.

    Args:
        counter: see `token_counter`.
        messages: each with "content" and "role".
    """
    return sum(counter.count(message["content"]) + counter.overhead for message in messages)


def chat_bound(counter: TokenCounter, messages: Sequence[Mapping[str, str]]) -> int:
    """Upper bound on the tokens of the request; at least `chat_tokens`.

    With an exact counter it is the count. Without, it is the bytes of the texts in UTF-8, since no
    tokenizer in use for chat writes more than one token per byte, plus the chat format. Only a server that
    adds a long text of its own to every request (a hidden system prompt) can read more.
    """
    if counter.exact:
        return chat_tokens(counter, messages)
    written = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
    return written + counter.overhead * len(messages)
