"""What an LLM answered, and the rationale in it: shared by every provider that asks an LLM.

An answer is usable when it has a step 2 that the text encoder can read. One whose step 2 is mostly in
another script than Latin is not usable: the encoder is an English one, and would turn it into noise. An
answer in another language of the Latin script is used as it is; its titles and names still say something.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reland_jax.pool.reading.parser import ParsedRationale, parse_direct, parse_response, plain_text
from reland_jax.types import Rationale


class Answer(NamedTuple):
    """One answered prompt.

    Attributes:
        content: the whole text of the LLM.
        model: who wrote it, as the service says; else the model that was asked.
        prompt_tokens: tokens read, 0 where the service does not say.
        response_tokens: tokens written, 0 where the service does not say.
        created: ISO 8601 UTC time at which the service made it, "" where it does not say.
    """

    content: str
    model: str
    prompt_tokens: int
    response_tokens: int
    created: str


def answer_of(body: Any, model: str) -> Answer | str:
    """The answer in the body of a chat completion, or in words why there is none.

    Args:
        body: the decoded JSON, whatever it is.
        model: the model that was asked, for a body that does not name one.
    """
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "the answer has no choices"
    content = _content(choices[0].get("message"))
    if not content.strip():
        return "the answer has no content"
    return Answer(content, str(body.get("model") or model), *tokens_of(body), _iso(body.get("created")))


def tokens_of(body: Any) -> tuple[int, int]:
    """Tokens read and written, from the body of a chat completion; 0 where it does not say."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return 0, 0
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def rationale_of(answer: Answer, digest: str, prompt: str = "steps") -> tuple[Rationale | None, list[str]]:
    """The rationale in an answer, None if it is not usable, and what there is to say about it.

    Args:
        answer: of the LLM.
        digest: hash of the prompt that was answered.
        prompt: `config.pool.prompt`, what was asked for.
    """
    parsed = readable_steps(answer.content, prompt)
    if not parsed.step2:
        return None, list(parsed.problems)
    origin = (answer.model, answer.prompt_tokens, answer.response_tokens, answer.created)
    rationale = Rationale(parsed.step1, parsed.step2, plain_text(answer.content), digest, *origin)
    return rationale, [f"used, but {problem}" for problem in parsed.problems]


def readable_steps(content: str, prompt: str = "steps") -> ParsedRationale:
    """What an answer says, without a step 2 that the encoder cannot read.

    Args:
        content: the answer.
        prompt: `config.pool.prompt`; a "direct" answer has no steps, its recommendations are step 2.
    """
    parsed = parse_direct(content) if prompt == "direct" else parse_response(content)
    if parsed.step2 and not is_latin(parsed.step2):
        why = "step 2 is not in English: most of it is not in Latin script"
        return ParsedRationale("", "", (*parsed.problems, why))
    return parsed


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin; also true of a text without letters."""
    letters = [character for character in text if character.isalpha()]
    foreign = [c for c in letters if not c.isascii() and "LATIN" not in unicodedata.name(c, "")]
    return 2 * len(foreign) <= len(letters)


def short(value: Any) -> str:
    """At most 200 characters of a value as JSON, for a message to a person."""
    return json.dumps(value, ensure_ascii=False, default=str)[:200]


def _content(message: Any) -> str:
    """Text of a chat message: a string, or a list of parts that have texts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _iso(seconds: Any) -> str:
    """UTC time of a Unix time stamp, "" if it is none."""
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds < 2**36:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
