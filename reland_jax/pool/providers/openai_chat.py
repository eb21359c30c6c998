"""Rationales from a service that speaks the OpenAI chat protocol: OpenAI, vLLM, Ollama, TGI and others.

Its address and key come from the environment (OPENAI_BASE_URL, OPENAI_API_KEY), and never appear in an error,
log, journal or result.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import (
    FORMAT,
    NO_SCHEMA,
    is_about_format,
    response_format,
    without_schema,
)
from reland_jax.pool.asking.chat import BOUND, NEWER_BOUND, PASSING, ChatError, Messages, Trouble
from reland_jax.pool.asking.engine import ask_all, run_apart, settled_in_journal
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.limits import retry_after_seconds
from reland_jax.pool.asking.records import journal_path, request_record
from reland_jax.pool.asking.replies import MORE_ROOM, Asked, Judge
from reland_jax.pool.asking.secrets import API_KEY, BASE_URL, without_secrets
from reland_jax.pool.contract import MayAsk
from reland_jax.pool.providers.llm import LLMProvider
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import openai

_log = logging.getLogger(__name__)
_FOR_ALL = frozenset({401, 402, 403, 404, 405})
"""Client errors of every prompt: the key, the account, the address or the model is wrong."""
_MAYBE_PAID = frozenset({408, 502, 504, 520, 522, 524})
"""Status codes of a gateway behind which the service may have answered."""
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|hf|gsk)[-_][\w*.-]{6,}|Bearer\s+\S+|(?<=://)[^/\s@]+@", re.IGNORECASE)


class OpenAIChat:
    """The official client, without its own retries: the engine has its own.

    For one asyncio loop; used as an asynchronous context manager it is closed at the end.
    """

    def __init__(self, config: PoolConfig, llm: LLMConfig) -> None:
        """Sends nothing yet.

        Raises:
            RelandError: the package is missing, or the environment names neither a key nor a service.
        """
        self._client = async_client(llm, MORE_ROOM * config.max_tokens)
        self._settings: dict[str, Any] = {"model": config.model, "temperature": config.temperature}
        self._bound, self._answers = BOUND, config.answers
        self._format = response_format(config)
        self._in_fields, self._taken, self._plain = self._format is not None, False, 0

    async def __aenter__(self) -> OpenAIChat:
        """The chat itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ask(self, messages: Messages, max_tokens: int) -> str:
        """The unparsed body of the chat completion.

        Raises:
            ChatError: there is no answer.
        """
        import openai

        from reland_jax.pool.providers.clients import Redirected, Unusable

        try:
            return await self._post(messages, max_tokens, self._format)
        except openai.APIStatusError as error:
            raise _status_error(error) from None  # the cause would show the request
        except openai.APIConnectionError as error:
            raise _connection_error(error) from None
        except Redirected as error:
            raise ChatError(Trouble.FATAL, redirected(error)) from None
        except Unusable as error:
            raise ChatError(Trouble.UNANSWERED, without_secrets(f"no whole answer: {error}")) from None
        except openai.OpenAIError as error:
            raise ChatError(Trouble.FAILED, without_secrets(f"{type(error).__name__}: {error}")) from None

    def remarks(self) -> tuple[str, ...]:
        """Remarks on the service as a whole."""
        return (without_schema(self._plain, self._settings["model"]),) if self._plain else ()

    async def _post(self, messages: Messages, max_tokens: int, schema: dict[str, Any] | None) -> str:
        """Sends a request, and another one if the service refused a parameter, which costs nothing."""
        import openai

        bound = self._bound
        body = {"messages": list(messages), **self._settings, bound: max_tokens}
        try:
            # The body as text: it is journalled unchanged, and a broken one raises no exception here.
            answer = await self._client.post(
                "/chat/completions", cast_to=str, body=body | ({FORMAT: schema} if schema else {})
            )
        except openai.APIStatusError as error:
            if error.param == BOUND and bound == BOUND:
                self._bound = NEWER_BOUND
                return await self._post(messages, max_tokens, schema)
            if schema and self._may_refuse_schema(error):
                return await self._without_schema(messages, max_tokens, error)
            raise
        self._taken = self._taken or schema is not None
        self._plain += self._in_fields and schema is None
        return answer

    def _may_refuse_schema(self, error: openai.APIStatusError) -> bool:
        """Whether the schema may be refused: it is named, or nothing is and none was accepted so far."""
        if error.status_code in PASSING | _FOR_ALL | _MAYBE_PAID:
            return False
        if is_about_format(json.dumps(error.body, default=str)):
            return True
        return self._answers == "auto" and not (self._taken or error.param) and error.status_code < 500

    async def _without_schema(self, messages: Messages, max_tokens: int, error: openai.APIStatusError) -> str:
        """The answer without a schema; if it succeeds, later prompts are sent without a schema at once."""
        if self._answers == "json_schema":
            why = f"status {error.status_code}: {shown(error.body)}; {NO_SCHEMA}"
            raise ChatError(Trouble.FATAL, why) from None
        answer = await self._post(messages, max_tokens, None)
        if self._format and not self._taken:
            self._format = None
            said = shown(error.body)
            _log.warning("the service refuses a JSON schema, so prompts are sent without one: %s", said)
        return answer


class OpenAIProvider(LLMProvider):
    """A provider that asks a chat service."""

    def _ask(self, prompts: Sequence[str], config: PoolConfig, judge: Judge) -> Asked:
        return ask_openai(prompts, config, self._llm, self._folder, judge=judge, may_ask=self._may_ask)


def ask_openai(
    prompts: Sequence[str],
    config: PoolConfig,
    llm: LLMConfig,
    folder: Path,
    *,
    judge: Judge | None = None,
    may_ask: MayAsk | None = None,
) -> Asked:
    """Sends every prompt without an accepted answer in the journal.

    If all are answered, neither the service nor its key is needed.

    Args:
        prompts: the prompts, possibly with duplicates.
        config: model and sampling settings.
        llm: limits, budget, tries, journal.
        folder: where the journal is, if `llm.journal` does not say.
        judge: which answers are usable; those with a rationale by default.
        may_ask: guards every prompt; None allows all.

    Raises:
        BudgetReached: the budget is used up.
        RelandError: the package, the key or the service is missing; the service is down or refuses; the
            journal cannot be used.
    """
    records = [request_record(prompt, config) for prompt in prompts]

    async def ask() -> Asked:
        async with OpenAIChat(config, llm) as chat:
            asked = await ask_all(records, chat, journal, config, llm, judge=judge)
            return asked._replace(remarks=chat.remarks())

    with Journal(journal_path(llm, folder), may_ask=may_ask) as journal:
        found = settled_in_journal(list({record.key: record for record in records}), journal)
        if all(record.key in found.answers or record.key in found.problems for record in records):
            return found
        return run_apart(ask)


def async_client(llm: LLMConfig, max_tokens: int) -> openai.AsyncOpenAI:
    """The official asynchronous client, configured by the environment, without its own retries.

    Args:
        llm: time-out.
        max_tokens: token limit of an answer; longer bodies are refused.

    Raises:
        RelandError: the package is missing, or the environment names neither a key nor a service.
    """
    try:
        import openai
    except ImportError as error:
        raise RelandError(
            "the package openai is not installed; pip install -r requirements-llm.txt, or choose another "
            "config.pool.provider"
        ) from error
    from reland_jax.pool.providers.clients import Bound, answer_bytes, async_http_client

    # They log the address of every request at level INFO.
    for name in ("httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    key, address = os.environ.get(API_KEY, ""), os.environ.get(BASE_URL, "")
    if not key and not address:
        raise RelandError(
            f"the environment variable {API_KEY} is not set (nor {BASE_URL}, the address of a service "
            "without a key, such as vLLM or Ollama); set it, or choose another config.pool.provider"
        )
    try:
        # The client requires a key; a service that needs none accepts any.
        return openai.AsyncOpenAI(
            api_key=key or "none", base_url=address or None, max_retries=0, timeout=llm.timeout_seconds,
            http_client=async_http_client(Bound(answer_bytes(max_tokens))),
        )  # fmt: skip
    except Exception as error:  # an invalid address
        raise RelandError(f"{BASE_URL} is not usable ({type(error).__name__})") from None


def shown(said: object) -> str:
    """At most 200 characters of a service's message, as JSON, without secrets and what looks like a key."""
    # Removed before the text is cut: a part of a key would not be recognised.
    text = json.dumps(said, ensure_ascii=False, default=str)
    return _KEY_LIKE.sub("***", without_secrets(text))[:200]


def _status_error(error: openai.APIStatusError) -> ChatError:
    """The error of a response with an error status."""
    headers, status = error.response.headers, error.status_code
    why = f"status {status}: {shown(error.body) if error.body else error.response.reason_phrase}"
    wait = retry_after_seconds(headers.get("retry-after"), headers.get("date"), headers.get("retry-after-ms"))
    if status == 429 and not _SPENT & {error.code, error.type}:
        return ChatError(Trouble.LIMITED, why, wait)
    if error.param == "temperature":
        why += "; see config.pool.temperature (some models take 1 only)"
    if status == 429 or status in _FOR_ALL or error.param == "temperature":
        return ChatError(Trouble.FATAL, why)
    if status < 400:
        return ChatError(Trouble.FATAL, f"{why}; {BASE_URL} is not the address of a chat service")
    if status in _MAYBE_PAID:
        return ChatError(Trouble.UNANSWERED, why, wait)
    if status >= 500 or status in PASSING:
        return ChatError(Trouble.FAILED, why, wait)
    return ChatError(Trouble.REFUSED, why)


def _connection_error(error: openai.APIConnectionError) -> ChatError:
    """The error of a connection: one that was never made cost nothing; a lost one may have."""
    cause = error.__cause__
    name = type(cause).__name__ if cause else type(error).__name__
    detail = f": {cause}" if cause and str(cause) else ""
    why = without_secrets(f"no whole answer ({name}{detail})")
    unmade = name in ("ConnectError", "ConnectTimeout", "PoolTimeout")
    return ChatError(Trouble.FAILED if unmade else Trouble.UNANSWERED, why)


def redirected(to: Exception) -> str:
    """The message for a service that redirects to another host."""
    said = without_secrets(str(to))
    return (
        f"the service redirects to another address, {said}; nothing was sent there, since the prompts are "
        f"personal data: if it is the right one, set {BASE_URL} to it"
    )
