"""The interface of an LLM service: one call, and errors by what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

Messages = Sequence[Mapping[str, str]]
"""Chat messages, each with "role" and "content"."""


BOUND, NEWER_BOUND = "max_tokens", "max_completion_tokens"
"""The two names of the token limit of an answer: some models of OpenAI refuse the first, and most other
services know only that one."""

PASSING = frozenset({408, 409, 425, 429})
"""Status codes of client errors that are worth another try."""


class Trouble(Enum):
    """What to do after an error."""

    LIMITED = "limited"
    """Too many requests at the moment; nothing was paid, ask again later."""
    FAILED = "failed"
    """The service did not take the request; nothing was paid, ask again later."""
    UNANSWERED = "unanswered"
    """No whole answer came, but one may have been written and billed; ask again."""
    REFUSED = "refused"
    """The service will never answer this prompt; nothing was paid."""
    FATAL = "fatal"
    """No prompt will be answered (a wrong key, an unknown model, no credit left); nothing was paid."""


class ChatError(Exception):
    """The service returned no answer.

    Attributes:
        trouble: what to do next.
        why: the message, without the key of the service.
        retry_after: seconds that the service asks to wait, None if it does not say.
    """

    def __init__(self, trouble: Trouble, why: str, retry_after: float | None = None) -> None:
        """All attributes are given."""
        super().__init__(why)
        self.trouble, self.why, self.retry_after = trouble, why, retry_after


class Chat(Protocol):
    """An LLM service."""

    async def ask(self, messages: Messages, max_tokens: int) -> str:
        """The unparsed body of a chat completion in the OpenAI format.

        Args:
            messages: the chat.
            max_tokens: token limit of the answer.

        Raises:
            ChatError: there is no answer.
        """
        ...
