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

REMOVED = "a user whom the prompt shows was removed while it was being asked"
"""Why a prompt is not asked, or its answer not kept."""

ACCEPTED = "accepted"
"""Kind of a reception: a usable answer. A prompt has at most one."""
MALFORMED = "malformed"
"""There is a text, but no rationale in it. One to a prompt asked again puts the prompt in quarantine."""
CUT = "cut"
"""The bound on its tokens ended the answer. Treated as malformed, but asked again with more room."""
UNREADABLE = "unreadable"
"""The service says all is well, but what it sent is not an answer."""
UNANSWERED = "unanswered"
"""No answer came (a time-out, a connection lost), but the service may have written, and billed, one."""
SURPLUS = "surplus"
"""An answer that is not looked at any more: it came second, or the answer to its prompt was retired."""


class RequestRecord(NamedTuple):
    """One prompt as it is asked.

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
        raw: the response body as it came, "" if none did.
        why: what is wrong with it, "" for an accepted answer.
        paid: prompt and response tokens that were paid, or at most were where the service did not say.
        again: whether the prompt was asked for the second time, after a malformed answer.
        messages: the chat messages of that as JSON; "" where they are the prompt alone.
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
    """The first answer to a prompt, which could not be used.

    Attributes:
        content: its text.
        why: what is wrong with it.
        kind: `MALFORMED` or `CUT`.
    """

    content: str
    why: str
    kind: str = MALFORMED


class Sent(NamedTuple):
    """A request that is about to be sent, and the tokens that it may cost at most."""

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
