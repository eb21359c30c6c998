"""Turns responses of a service into entries of the journal, and those into rationales.

Shared by all providers that use an LLM, one request at a time or in batches.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
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
    Malformed,
    Reception,
    RequestRecord,
    request_key,
)
from reland_jax.pool.asking.secrets import SURELY_SECRET, without_secrets
from reland_jax.pool.contract import NoAnswer, Problem, ProviderResult, RationaleRequest, Unanswered
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.reading.answers import (
    Answer,
    answer_of,
    flaw_of,
    is_model,
    rationale_of,
    readable_steps,
    tokens_of,
)
from reland_jax.pool.reading.parser import ends_by_itself
from reland_jax.types import Rationale

Judge = Callable[[str], str]
"""Returns why the text of an answer cannot be used; "" if it can."""

MORE_ROOM = 4
"""Factor of the token limit at the second try of an answer that was cut off."""

_SHOWN_AGAIN = 1000
"""Characters of a malformed answer that are quoted to the LLM at the second try."""
_SHOWN = 80
_MOST_TOKENS = 1 << 40
_AGAIN = """\
Your answer could not be read: {why}.
Answer the first message again, completely, and in exactly the form that it asks for."""


class Asked(NamedTuple):
    """The outcome of asking; every key is in exactly one of the first two.

    Attributes:
        answers: request key -> usable answer.
        problems: request key -> why there is none.
        closed: keys of the problems that are not asked again: in quarantine, or refused by the service.
        remarks: remarks on the service as a whole.
    """

    answers: dict[str, Answer]
    problems: dict[str, str]
    closed: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()


class Turn(NamedTuple):
    """The request for a prompt.

    Attributes:
        messages: the chat.
        max_tokens: token limit of the answer.
        again: whether it is the second try, after an unusable answer.
    """

    messages: Messages
    max_tokens: int
    again: bool


def judge_for(config: PoolConfig) -> Judge:
    """The judge of answers to the prompts of a pool."""
    return partial(why_unusable, prompt=config.prompt, any_script=config.any_script)


def why_unusable(content: str, prompt: str = "steps", any_script: bool = False) -> str:
    """Why there is no rationale in the text of an answer, "" if there is one."""
    parsed = readable_steps(content, prompt, any_script)
    return "" if parsed.step2 else "; ".join(parsed.problems) or "step 2 is missing"


def first_messages(prompt: str) -> Messages:
    """The chat that asks a prompt."""
    return [{"role": "user", "content": prompt}]


def messages_again(prompt: str, content: str, why: str) -> Messages:
    """The chat of the second try, with the malformed answer and what is wrong with it."""
    again = {"role": "user", "content": _AGAIN.format(why=why.rstrip("."))}
    # Some services refuse an empty message, and some chat templates two of one role in a row.
    shown = content if len(content) <= _SHOWN_AGAIN else f"{content[:_SHOWN_AGAIN]} …"
    answered = {"role": "assistant", "content": shown if shown.strip() else "…"}
    return [*first_messages(prompt), answered, again]


def first_turn(prompt: str, config: PoolConfig) -> Turn:
    """The first request for a prompt."""
    return Turn(first_messages(prompt), config.max_tokens, False)


def turn_again(prompt: str, malformed: Malformed, config: PoolConfig) -> Turn:
    """The second try: with what is wrong with the answer, and a higher token limit if it was cut off."""
    if malformed.kind == CUT:
        return Turn(first_messages(prompt), MORE_ROOM * config.max_tokens, True)
    return Turn(messages_again(prompt, malformed.content, malformed.why), config.max_tokens, True)


def turn_of(prompt: str, malformed: Malformed | None, config: PoolConfig) -> Turn:
    """The next request for a prompt, by its entries in the journal."""
    return turn_again(prompt, malformed, config) if malformed else first_turn(prompt, config)


def reception_of(
    request: RequestRecord, raw: str, judge: Judge, turn: Turn, reserved: tuple[int, int] = (0, 0)
) -> Reception:
    """The entry of the journal for a response body.

    The service's own report counts before the text: an answer cut off by the token limit is `CUT`, one that
    was filtered or declined is `MALFORMED`, whatever its text.

    Args:
        request: what was asked.
        raw: the body, which should be a chat completion as JSON.
        judge: of its text.
        turn: the request.
        reserved: tokens that count as paid if the body does not report them.
    """
    raw = without_secrets(raw, SURELY_SECRET)
    try:
        body = json.loads(raw.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        body = None
    answer = answer_of(body, request.model) if body is not None else _no_json(raw)
    read, written = paid_tokens(body)
    paid = read or reserved[0], written or reserved[1]
    again = (turn.again, _chat_json(turn))
    flaw, content = flaw_of(body), "" if isinstance(answer, str) else answer.content
    # The limit may have cut off only text that the LLM added behind its answer.
    if flaw and not (flaw.cut and ends_by_itself(content) and not judge(content)):
        answer = _no_answer(request) if isinstance(answer, str) else answer
        return Reception(request, CUT if flaw.cut else MALFORMED, answer, raw, flaw.why, paid, *again)
    if isinstance(answer, str):
        return Reception(request, UNREADABLE, _no_answer(request), raw, answer, paid, *again)
    why = judge(content)
    return Reception(request, MALFORMED if why else ACCEPTED, answer, raw, why, paid, *again)


def _no_json(raw: str) -> str:
    """The message about a body that is not JSON, with its beginning: it may be the page of a gateway."""
    start = " ".join(raw[:_SHOWN].split())
    return f"the body is not JSON: {start!r}" if start else "the body is empty"


def paid_tokens(body: Any) -> tuple[int, int]:
    """Tokens read and written as the service reports them; 0 if it does not.

    Some services count thoughts only in the total.
    """
    read, written = tokens_of(body)
    usage = body.get("usage") if isinstance(body, Mapping) else None
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    if isinstance(total, int) and read and total > read + written:
        written = min(total, _MOST_TOKENS) - read
    return read, written


def no_reception(request: RequestRecord, why: str, turn: Turn, reserved: tuple[int, int]) -> Reception:
    """The entry of the journal where no answer came but one may have been billed."""
    chat = _chat_json(turn)
    return Reception(request, UNANSWERED, _no_answer(request), "", why, reserved, turn.again, chat)


def provider_result(requests: Sequence[RationaleRequest], asked: Asked, config: PoolConfig) -> ProviderResult:
    """The rationales in the answers, aligned with the requests, and the problems."""
    rationales: list[Rationale | None] = []
    problems = []
    for request in requests:
        key, kind = request_key(request.prompt, config), Problem
        rationale: Rationale | None = None
        if key in asked.answers:
            digest = prompt_hash(request.prompt)
            answer = asked.answers[key]
            rationale, remarks = rationale_of(answer, digest, config.prompt, config.any_script)
        else:
            remarks = [asked.problems.get(key, "the prompt was not asked")]
            kind = Problem if key in asked.closed else Unanswered
        rationales.append(rationale and _plain(rationale))
        problems += [kind(request.user_id, remark) for remark in remarks]
    problems += [Problem("", remark) for remark in asked.remarks]
    problems += _other_models(asked.answers.values(), config.model)
    return ProviderResult(rationales, problems)


def _other_models(answers: Collection[Answer], asked: str) -> list[Problem]:
    """A remark for every other model that answered."""
    others = Counter(answer.model for answer in answers if not is_model(answer.model, asked))
    return [
        Problem("", f"{count} of {len(answers)} answers are by {model!r}; config.pool.model is {asked!r}")
        for model, count in sorted(others.items())
    ]


def texts_of(prompts: Sequence[str], asked: Asked, config: PoolConfig) -> list[str | NoAnswer]:
    """The texts of the answers to prompts, in their order."""
    keys = [request_key(prompt, config) for prompt in prompts]
    return [
        asked.answers[key].content
        if key in asked.answers
        else NoAnswer(asked.problems.get(key, "the prompt was not asked"), key not in asked.closed)
        for key in keys
    ]


def _plain(rationale: Rationale) -> Rationale:
    """The rationale without secrets: parsing may have joined the parts of one."""
    return rationale._replace(
        step1=without_secrets(rationale.step1, SURELY_SECRET),
        step2=without_secrets(rationale.step2, SURELY_SECRET),
        response=without_secrets(rationale.response, SURELY_SECRET),
        model=without_secrets(rationale.model, SURELY_SECRET),
    )


def _no_answer(request: RequestRecord) -> Answer:
    return Answer("", request.model, 0, 0, "")


def _chat_json(turn: Turn) -> str:
    """The messages of a second try as JSON; "" for a first try, whose prompt the journal has."""
    plain: list[dict[str, Any]] = [dict(message) for message in turn.messages]
    return json.dumps(plain, ensure_ascii=False) if turn.again else ""
