"""Counts the tokens of prompts before they are sent, with the model's own tokenizer where it is at hand.

Two numbers are told apart. `chat_tokens` is what a request will probably cost: exact with the model's
tokenizer (`TokenCounter.exact`), an estimate otherwise. `chat_bound` is what it cannot exceed, which is
what a hard budget reserves. Only tiktoken downloads, once, the vocabulary of an OpenAI model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from reland_jax.config import PoolConfig
from reland_jax.types import RelandError

CHARACTERS = "characters"
"""Value of `config.pool.tokenizer` that asks for the estimate from the length of the text."""

OPENAI_OVERHEAD = 7
"""Tokens of one chat message besides its text, and of the start of the answer, in OpenAI's chat format."""

UNKNOWN_OVERHEAD = 32
"""The same where the chat format is not known, on the safe side of common chat templates."""

_CHARACTERS_PER_TOKEN = 3


class TokenCounter(Protocol):
    """Counts tokens of texts."""

    @property
    def exact(self) -> bool:
        """Whether the counts of texts are those of the model's own tokenizer."""
        ...

    @property
    def name(self) -> str:
        """The name of the tokenizer, for people."""
        ...

    @property
    def overhead(self) -> int:
        """Tokens of the chat format for each message: its role, its separators, and the start of the answer.

        Known for OpenAI's format and for tokenizers with a chat template, else a cautious guess.
        """
        ...

    def count(self, text: str) -> int:
        """Tokens of a text alone, without any chat format."""
        ...


class CharacterCounter(NamedTuple):
    """An estimate from the length: a third of the characters, rounded up.

    English prose has four to five characters per token, so this is cautious there. It is no bound:
    scripts that a tokenizer knows badly take up to one token per byte (see `chat_bound`).
    """

    exact: bool = False
    name: str = CHARACTERS
    overhead: int = UNKNOWN_OVERHEAD

    def count(self, text: str) -> int:
        """A third of the characters, rounded up."""
        return -(-len(text) // _CHARACTERS_PER_TOKEN)


class _Tokenizer(NamedTuple):
    """A tokenizer of some library."""

    encode: Callable[[str], Sequence[int]]
    exact: bool
    name: str
    overhead: int

    def count(self, text: str) -> int:
        return len(self.encode(text))


def token_counter(config: PoolConfig) -> TokenCounter:
    """The counter for `config.model`.

    `config.tokenizer` may name a folder or a hub name of the local cache (a Hugging Face tokenizer, taken
    to be the model's own) or `CHARACTERS`. Where it is "", the tokenizer of an OpenAI model is that of
    tiktoken, if it is installed and its vocabulary is in its cache or can be downloaded; that of another
    model is the one in the folder or the local cache which the model's name stands for; otherwise the count
    is estimated.

    Raises:
        RelandError: `config.tokenizer` names a tokenizer that cannot be read.
    """
    if config.tokenizer == CHARACTERS:
        return CharacterCounter()
    if config.tokenizer:
        try:
            return _hugging_face(config.tokenizer)
        except Exception as error:  # whatever a tokenizer's files may provoke
            raise RelandError(
                f"config.pool.tokenizer={config.tokenizer!r} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:200] if str(error) else 'no reason given'}); name a folder "
                f"with a tokenizer, one in the local Hugging Face cache, or {CHARACTERS!r}"
            ) from error
    return _of_openai(config.model) or _of_model(config.model) or CharacterCounter()


def chat_tokens(counter: TokenCounter, messages: Sequence[Mapping[str, str]]) -> int:
    """Tokens of the request with these chat messages: their texts and the chat format around them.

    Exact up to the chat format with an exact counter, else an estimate that may be too low.

    Args:
        counter: see `token_counter`.
        messages: each with "content" and "role".
    """
    return sum(counter.count(message["content"]) + counter.overhead for message in messages)


def chat_bound(counter: TokenCounter, messages: Sequence[Mapping[str, str]]) -> int:
    """Tokens that the request cannot exceed; at least `chat_tokens`.

    With an exact counter it is the count. Without, it is the bytes of the texts in UTF-8, since no
    tokenizer in use for chat writes more than one token per byte, plus the chat format. Only a server that
    adds a long text of its own to every request (a hidden system prompt) can read more.
    """
    if counter.exact:
        return chat_tokens(counter, messages)
    written = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
    return written + counter.overhead * len(messages)


@functools.cache
def _of_openai(model: str) -> TokenCounter | None:
    """The tokenizer of an OpenAI model, None if it is none or tiktoken is not installed."""
    try:
        import tiktoken

        encoding = tiktoken.encoding_for_model(model)
    except (ImportError, KeyError):
        return None
    except Exception:  # whatever keeps the vocabulary from being downloaded; tried once in a process
        return CharacterCounter()
    # Ordinary: text that looks like a special token is text, as it is for the API.
    return _Tokenizer(encoding.encode_ordinary, True, encoding.name, OPENAI_OVERHEAD)


def _of_model(model: str) -> TokenCounter | None:
    """The tokenizer that lies where the model lies, None if there is none on this machine."""
    try:
        return _hugging_face(model)
    except Exception:  # not there, incomplete, or of a kind that is not known: then the count is estimated
        return None


def _hugging_face(name: str) -> TokenCounter:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)

    def encode(text: str) -> Sequence[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    return _Tokenizer(encode, True, name, _overhead(tokenizer, encode))


def _overhead(tokenizer: Any, encode: Callable[[str], Sequence[int]]) -> int:
    """Tokens that the chat template writes around one message, `UNKNOWN_OVERHEAD` without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return UNKNOWN_OVERHEAD
    message = [{"role": "user", "content": "a"}]
    chat = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return max(len(encode(chat)) - len(encode("a")), 0)
