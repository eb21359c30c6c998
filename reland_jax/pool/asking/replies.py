"""From what a service sent back to entries of the journal, and from those to rationales.

The same for every provider that asks an LLM, whether answer by answer, in batches, or locally.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from reland_jax.config import PoolConfig
from reland_jax.pool.asking.chat import Messages
from reland_jax.pool.asking.records import (
    ACCEPTED,
    CUT,
    MALFORMED,
    UNANSWERED,
    UNREADABLE,
    Reception,
    RequestRecord,
    request_key,
)
from reland_jax.pool.contract import Problem, ProviderResult, RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.reading.answers import (
    Answer,
    answer_of,
    flaw_of,
    rationale_of,
    readable_steps,
    tokens_of,
)
from reland_jax.pool.reading.parser import ends_by_itself
from reland_jax.types import Rationale

Judge = Callable[[str], str]
"""Says of the text of an answer why it cannot be used; "" if it can."""

MORE_ROOM = 4
"""An answer that was cut off is asked for again with this many times the tokens."""

_SHOWN_AGAIN = 1000
"""Characters of a malformed answer that the LLM is shown again; it pays for each."""

_AGAIN = """\
Your answer could not be read: {why}.
Answer the first message again, completely, and in exactly the form that it asks for."""


class Asked(NamedTuple):
    """What asking came to; every key is in exactly one of the two.

    Attributes:
        answers: request key -> usable answer.
        problems: request key -> why there is none.
    """

    answers: dict[str, Answer]
    problems: dict[str, str]


def judge_for(config: PoolConfig) -> Judge:
    """The judge of answers to the prompts of a pool."""
    return partial(why_unusable, prompt=config.prompt)


def why_unusable(content: str, prompt: str = "steps") -> str:
    """Why there is no rationale in the text of an answer, "" if there is one.

    Args:
        content: the answer.
        prompt: `config.pool.prompt`.
    """
    parsed = readable_steps(content, prompt)
    return "" if parsed.step2 else "; ".join(parsed.problems) or "step 2 is missing"


def first_messages(prompt: str) -> Messages:
    """The chat that asks a prompt."""
    return [{"role": "user", "content": prompt}]


def messages_again(prompt: str, content: str, why: str) -> Messages:
    """The chat that asks a prompt again after a malformed answer, with what is wrong with it."""
    again = {"role": "user", "content": _AGAIN.format(why=why.rstrip("."))}
    # Some services refuse an empty message, and some chat templates two of one role in a row.
    shown = content if len(content) <= _SHOWN_AGAIN else f"{content[:_SHOWN_AGAIN]} …"
    answered = {"role": "assistant", "content": shown if shown.strip() else "…"}
    return [*first_messages(prompt), answered, again]


def reception_of(
    request: RequestRecord, raw: str, judge: Judge, messages: Messages, reserved: tuple[int, int] = (0, 0)
) -> Reception:
    """The entry of the journal for a response body.

    What the service says of the answer counts before its text: one that the bound on tokens ended is
    `CUT`, one that a filter took away or the model declined is `MALFORMED`, whatever can be read in it.

    Args:
        request: what was asked.
        raw: the body, which should be a chat completion as JSON.
        judge: of its text.
        messages: the chat that was sent.
        reserved: tokens that count as paid where the body does not say.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    answer = answer_of(body, request.model) if body is not None else "the body is not JSON"
    read, written = tokens_of(body)
    paid = (read, written) if read + written else reserved
    again = _again(messages)
    flaw, content = flaw_of(body), "" if isinstance(answer, str) else answer.content
    # The bound may have cut off no more than what the LLM made up behind its answer.
    if flaw and not (flaw.cut and ends_by_itself(content) and not judge(content)):
        answer = _nothing(request) if isinstance(answer, str) else answer
        return Reception(request, CUT if flaw.cut else MALFORMED, answer, raw, flaw.why, paid, again)
    if isinstance(answer, str):
        return Reception(request, UNREADABLE, _nothing(request), raw, answer, paid, again)
    why = judge(content)
    return Reception(request, MALFORMED if why else ACCEPTED, answer, raw, why, paid, again)


def no_reception(
    request: RequestRecord, why: str, messages: Messages, reserved: tuple[int, int]
) -> Reception:
    """The entry of the journal where no answer came but one may have been billed."""
    return Reception(request, UNANSWERED, _nothing(request), "", why, reserved, _again(messages))


def provider_result(requests: Sequence[RationaleRequest], asked: Asked, config: PoolConfig) -> ProviderResult:
    """The rationales in the answers, aligned with the requests, and what there is to say about them."""
    rationales: list[Rationale | None] = []
    problems = []
    for request in requests:
        key, rationale = request_key(request.prompt, config), None
        if key in asked.answers:
            digest = prompt_hash(request.prompt)
            rationale, remarks = rationale_of(asked.answers[key], digest, config.prompt)
        else:
            remarks = [asked.problems.get(key, "the prompt was not asked")]
        rationales.append(rationale)
        problems += [Problem(request.user_id, remark) for remark in remarks]
    return ProviderResult(rationales, problems)


def _nothing(request: RequestRecord) -> Answer:
    return Answer("", request.model, 0, 0, "")


def _again(messages: Messages) -> str:
    """The messages as JSON where they are more than the prompt, which the journal has."""
    plain: list[dict[str, Any]] = [dict(message) for message in messages]
    return json.dumps(plain, ensure_ascii=False) if len(plain) > 1 else ""
