"""The records of the journal: requests, responses, and the key of a prompt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.files import resolve
from reland_jax.pool.reading.answers import Answer

JOURNAL_FILE = "journal.sqlite"

REMOVED = "a user of the prompt was removed while it was being asked"
"""Why a prompt was not sent, or its answer not kept."""

ACCEPTED = "accepted"
"""Kind of a reception: a usable answer. A prompt has at most one."""
MALFORMED = "malformed"
"""A text without a rationale. After the second one the prompt is in quarantine."""
CUT = "cut"
"""Cut off by the token limit. Treated as malformed, but asked again with a higher limit."""
UNREADABLE = "unreadable"
"""The status is a success, but the body is not an answer."""
UNANSWERED = "unanswered"
"""No answer arrived (time-out, lost connection), but one may have been billed."""
SURPLUS = "surplus"
"""An answer that is not used: a second one to its prompt, or a retired one."""


class RequestRecord(NamedTuple):
    """One prompt with its model and settings.

    Attributes:
        key: `request_key`.
        prompt: the whole prompt.
        model: name of the LLM.
        settings: sampling settings, as JSON.
    """

    key: str
    prompt: str
    model: str
    settings: str


class Reception(NamedTuple):
    """The response to one request.

    Attributes:
        request: what was asked.
        kind: `ACCEPTED`, `MALFORMED`, `CUT`, `UNREADABLE` or `UNANSWERED`.
        answer: what was read from it; without content for the last two kinds.
        raw: the unparsed response body, "" without one.
        why: what is wrong with it, "" for an accepted answer.
        paid: prompt and response tokens that were billed; an upper bound if the service does not report them.
        again: whether it is the second try, after a malformed answer.
        messages: the chat of the second try as JSON; "" if it consists of the prompt only.
    """

    request: RequestRecord
    kind: str
    answer: Answer
    raw: str
    why: str = ""
    paid: tuple[int, int] = (0, 0)
    again: bool = False
    messages: str = ""


class Malformed(NamedTuple):
    """The unusable first answer to a prompt.

    Attributes:
        content: its text.
        why: what is wrong with it.
        kind: `MALFORMED` or `CUT`.
    """

    content: str
    why: str
    kind: str = MALFORMED


class Sent(NamedTuple):
    """A request that is about to be sent, with the largest number of tokens that it may cost."""

    request: RequestRecord
    prompt_tokens: int
    response_tokens: int


def request_record(prompt: str, config: PoolConfig) -> RequestRecord:
    """The record of a prompt, with its key."""
    settings = json.dumps({"max_tokens": config.max_tokens, "temperature": config.temperature})
    return RequestRecord(request_key(prompt, config), prompt, config.model, settings)


def request_key(prompt: str, config: PoolConfig) -> str:
    """Hexadecimal SHA-256 of the prompt, the model and the sampling settings, 64 characters."""
    parts = [prompt, config.model, config.max_tokens, float(config.temperature)]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


def journal_path(llm: LLMConfig, folder: str | Path) -> Path:
    """`llm.journal`, or `JOURNAL_FILE` in the folder if that is None."""
    return resolve(llm.journal) if llm.journal else Path(folder) / JOURNAL_FILE
