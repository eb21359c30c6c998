"""Answers of LLMs and the rationales in them, for all providers that ask an LLM.

An answer is usable if it has a step 2 that the text encoder can read. A step 2 mostly in another script than
Latin is not usable, since an English encoder turns it into noise. An answer in another language with Latin
script is used, since its titles and names are informative.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reland_jax.pool.contract import Flaw
from reland_jax.pool.reading.parser import (
    ParsedRationale,
    parse_direct,
    parse_fields,
    parse_response,
    parse_text,
    plain_text,
)
from reland_jax.pool.reading.spoken import is_thought
from reland_jax.pool.reading.structured import schema_steps
from reland_jax.pool.reading.worth import is_latin
from reland_jax.types import Rationale

_REASONS = (
    "finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "completionReason",
)  # fmt: skip
_TOKENS_READ = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens")
_TOKENS_WRITTEN = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens")
_TEXTS = ("content", "text", "response", "generated_text", "completion", "outputText")
"""Fields for the text of an answer that is not divided into parts."""
_ENDINGS = (
    (
        "whole",
        r"^(?:|stop|stop_(?:sequence|token|str)|end(?:_of_\w+|_turn)?|eos|eos_token|tool_calls?|tool_use|function_call|completed?"
        r"|finish(?:ed)?|done|success|finish_reason_unspecified)$",
    ),
    ("cut", r"length|max|limit|trunc|incomplete|exceed|context"),
    ("filtered", r"filter|safe|refus|block|prohib|recit|spii|sensitiv|guard|polic|moderat|flag|censor"),
)
"""Meaning of a finish reason, by the first pattern that matches; others mean an unfinished answer."""


class Answer(NamedTuple):
    """One answered prompt.

    Attributes:
        content: the complete text of the LLM.
        model: the model as the service names it; else the model that was asked.
        prompt_tokens: tokens read, 0 if unknown.
        response_tokens: tokens written, 0 if unknown.
        created: ISO 8601 UTC time of creation by the service, "" if unknown.
    """

    content: str
    model: str
    prompt_tokens: int
    response_tokens: int
    created: str


def answer_of(body: Any, model: str) -> Answer | str:
    """The answer in the body of a chat completion, or why there is none.

    The forms of OpenAI (chat, completions, responses), Anthropic, Gemini, Bedrock, Cohere and Ollama are
    read. Thoughts in fields of their own (`reasoning_content`, parts of type "thinking") are not content.

    Args:
        body: the decoded JSON of any type.
        model: the model that was asked, for a body that does not name one.
    """
    choice = _choice(body)
    if choice is None:
        error = body.get("error") if isinstance(body, Mapping) else None
        return f"the service reports an error: {short(error)}" if error else "the answer has no choices"
    content = _content(choice)
    if not content.strip():
        return "the answer has no content" + (", only thoughts" if _thoughts(choice) else "")
    name = body.get("model") or body.get("modelVersion") or model
    return Answer(content, str(name), *tokens_of(body), _iso(body.get("created")))


def flaw_of(body: Any) -> Flaw | None:
    """The flaw that the service reports in an answer; None for a complete answer.

    Args:
        body: the decoded JSON of a chat completion, of any type.
    """
    choice = _choice(body)
    if choice is None:
        return None
    message = _message(choice)
    refusal = message.get("refusal") or next(iter(_texts(message, "refusal")), "")
    if refusal:
        return Flaw(f"the model refused: {str(refusal)[:80]!r}")
    reason = _ended_by(choice)
    kind = next((kind for kind, words in _ENDINGS if re.search(words, reason)), "")
    if kind == "cut":
        where = "" if _content(choice).strip() else " within its thoughts"
        return Flaw(f"the token limit cut the answer off{where} (finish_reason {reason!r})", cut=True)
    if kind == "filtered":
        return Flaw(f"the service filtered the answer (finish_reason {reason!r})")
    return None if kind else Flaw(f"the service did not finish the answer (finish_reason {reason!r})")


def tokens_of(body: Any) -> tuple[int, int]:
    """Tokens read and written, from the body of a chat completion; 0 if unknown."""
    usage = (body.get("usage") or body.get("usageMetadata")) if isinstance(body, Mapping) else None
    if isinstance(usage, Mapping) and isinstance(usage.get("tokens"), Mapping):  # Cohere
        usage = usage["tokens"]
    if not isinstance(usage, Mapping):
        return 0, 0
    read, written = (
        next((usage[name] for name in names if name in usage), 0) for names in (_TOKENS_READ, _TOKENS_WRITTEN)
    )
    # Gemini counts thoughts separately; the others include them in the tokens written.
    return _count(read), _count(written) + _count(usage.get("thoughtsTokenCount"))


def is_model(answered: str, asked: str) -> bool:
    """Whether the model name of a service refers to the model that was asked.

    Owners and folders before a name, tags (":latest") and versions after it are ignored:
    "gpt-4o-2024-08-06" is "gpt-4o", and "gpt-4o-mini" is not.
    """
    plain, wanted = (name.lower().rstrip("/").rpartition("/")[2] for name in (answered, asked))
    bare = re.escape(re.sub(r"[-:@]latest$", "", wanted))
    return bool(re.fullmatch(rf"{bare}(?:[-@_.](?:v?\d+|latest|preview))*(?::.*)?", plain))


def rationale_of(
    answer: Answer, digest: str, prompt: str = "steps", any_script: bool = False
) -> tuple[Rationale | None, list[str]]:
    """The rationale in an answer, None if it is not usable, and the problems.

    Args:
        answer: the answer of the LLM.
        digest: hash of the prompt that was answered.
        prompt: `config.pool.prompt`.
        any_script: see `readable_steps`.
    """
    parsed = readable_steps(answer.content, prompt, any_script)
    if not parsed.step2:
        return None, list(parsed.problems)
    origin = (answer.model, answer.prompt_tokens, answer.response_tokens, answer.created)
    rationale = Rationale(parsed.step1, parsed.step2, plain_text(answer.content), digest, *origin)
    return rationale, [f"used, but {problem}" for problem in parsed.problems]


def readable_steps(content: str, prompt: str = "steps", any_script: bool = False) -> ParsedRationale:
    """The steps of an answer, without a step 2 that the encoder cannot read.

    Args:
        content: the answer.
        prompt: `config.pool.prompt`; a "direct" answer has no steps, its recommendations are step 2, and
            all of an answer to "factors" is.
        any_script: `config.pool.any_script`; whether the encoder can read other scripts than Latin.
    """
    if steps := schema_steps(content, prompt):
        parsed = parse_fields(*steps)
    else:
        parsed = {"direct": parse_direct, "factors": parse_text}.get(prompt, parse_response)(content)
    return parsed if any_script else in_latin(parsed)


def in_latin(parsed: ParsedRationale) -> ParsedRationale:
    """The steps, without a step 2 that an English text encoder cannot read."""
    if is_latin(parsed.step2):
        return parsed
    why = "step 2 is not in English: most of it is not in Latin script"
    return ParsedRationale("", "", (*parsed.problems, why))


def short(value: Any) -> str:
    """At most 200 characters of a value as JSON, for a message to a person."""
    return json.dumps(value, ensure_ascii=False, default=str)[:200]


def _choice(body: Any) -> Mapping[str, Any] | None:
    """The part of a body that has the message, None if there is none."""
    if not isinstance(body, Mapping):
        return None
    for name in ("choices", "candidates"):
        if name in body:
            first = body[name][0] if isinstance(body[name], list) and body[name] else None
            return first if isinstance(first, Mapping) else None
    if isinstance(body.get("results"), list) and body["results"]:
        return body["results"][0] if isinstance(body["results"][0], Mapping) else None
    if "output" in body:
        return _of_output(body)
    return body if {"message", *_TEXTS} & body.keys() else None


def _of_output(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The same for a body with its message in "output": Bedrock, and responses of OpenAI."""
    output, details = body["output"], body.get("incomplete_details")
    if isinstance(output, Mapping):
        return {**body, **output}
    if not isinstance(output, list):
        return None
    items = [
        item for item in output if isinstance(item, Mapping) and not is_thought(str(item.get("type", "")))
    ]
    parts = [part for item in items for part in _parts(item)]
    reason = details.get("reason") if isinstance(details, Mapping) else None
    ended = reason or body.get("status")
    return {"content": parts, "reasoning": len(items) < len(output), "finish_reason": ended}


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message of a choice; Gemini calls it content, Anthropic has it in the body itself."""
    for name in ("message", "content", "delta"):
        if isinstance(choice.get(name), Mapping):
            return choice[name]
    return choice


def _content(choice: Mapping[str, Any]) -> str:
    """Text of a chat message: a string, or a list of parts that have texts."""
    message = _message(choice)
    content = next((message[name] for name in _TEXTS if message.get(name) is not None), None)
    return content if isinstance(content, str) else "".join(_texts(message, "text"))


def _thoughts(choice: Mapping[str, Any]) -> bool:
    """Whether the message has thoughts in fields of their own."""
    message = _message(choice)
    named = ((str(name), value) for name, value in message.items() if name not in _REASONS)
    apart = any(value for name, value in named if is_thought(name))
    return apart or any(_is_thought_part(part) for part in _parts(message))


def _texts(message: Mapping[str, Any], kind: str) -> list[str]:
    """The texts of this kind in the parts of a message, without thoughts."""
    parts = [part for part in _parts(message) if not _is_thought_part(part)]
    return [part[kind] for part in parts if isinstance(part.get(kind), str)]


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = message.get("content", message.get("parts"))
    every = parts if isinstance(parts, list) else [parts]
    every = [{"text": part} if isinstance(part, str) else part for part in every]
    return [part for part in every if isinstance(part, Mapping)]


def _is_thought_part(part: Mapping[str, Any]) -> bool:
    return part.get("thought") is True or is_thought(str(part.get("type", "")))


def _ended_by(choice: Mapping[str, Any]) -> str:
    """The finish reason of the service in lower case, "" without one."""
    reason = next((choice[name] for name in _REASONS if choice.get(name) is not None), "")
    return str(reason).rpartition(".")[2].strip().lower().replace("-", "_").replace(" ", "_")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _iso(seconds: Any) -> str:
    """UTC time of a Unix time stamp, "" if it is not one."""
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds < 2**36:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
