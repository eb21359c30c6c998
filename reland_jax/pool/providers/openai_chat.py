"""Rationales from a service that speaks the OpenAI chat protocol: OpenAI, vLLM, Ollama, TGI and others.

Where it is and the key to it come from the environment (OPENAI_BASE_URL, OPENAI_API_KEY) and go nowhere
else: no error, log, journal or result shows them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.chat import ChatError, Messages, Trouble
from reland_jax.pool.asking.engine import ask_all, run_apart
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.limits import retry_after_seconds
from reland_jax.pool.asking.records import journal_path, request_key, request_record
from reland_jax.pool.asking.replies import Asked, Judge, provider_result
from reland_jax.pool.contract import ProviderResult, RationaleRequest
from reland_jax.pool.providers.batch_files import BOUND, NEWER_BOUND
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import openai

BASE_URL, API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"

_PASSING = frozenset({408, 409, 425, 429})
"""Client errors that another try may not meet."""
_FOR_ALL = frozenset({401, 402, 403, 404, 405})
"""Client errors that every prompt would meet: the key, the account, the address or the model."""
_SURELY_SECRET = 16
"""Length from which a key is not a word of an answer: services on this machine are given "EMPTY" and such."""
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|hf|gsk)[-_][\w*.-]{6,}|Bearer\s+\S+|(?<=://)[^/\s@]+@", re.IGNORECASE)


class OpenAIChat:
    """The official client, without its own retries: the engine has its own.

    For one asyncio loop; used as an asynchronous context manager it is closed at the end.
    """

    def __init__(self, config: PoolConfig, llm: LLMConfig) -> None:
        """Nothing is sent yet.

        Raises:
            RelandError: the package is missing, or the environment names neither a key nor a service.
        """
        self._client = async_client(llm)
        self._settings: dict[str, Any] = {
            "model": config.model,
            BOUND: config.max_tokens,
            "temperature": config.temperature,
        }

    async def __aenter__(self) -> OpenAIChat:
        """The chat itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ask(self, messages: Messages) -> str:
        """The body of the chat completion, unread.

        Raises:
            ChatError: there is none.
        """
        import openai

        body = {"messages": list(messages), **self._settings}
        try:
            # The body as text: it goes into the journal as it came, and a broken one is no exception.
            raw = await self._client.post("/chat/completions", cast_to=str, body=body)
            return without_secrets(raw, _SURELY_SECRET)
        except openai.APIStatusError as error:
            if error.param == BOUND and BOUND in body:
                self._bound_by_its_newer_name()
                return await self.ask(messages)
            raise _status_error(error) from None  # the cause would show the request
        except openai.APIConnectionError as error:
            raise _connection_error(error) from None
        except openai.OpenAIError as error:
            raise ChatError(Trouble.FAILED, without_secrets(f"{type(error).__name__}: {error}")) from None

    def _bound_by_its_newer_name(self) -> None:
        bound = self._settings.pop(BOUND, None)
        if bound is not None:
            self._settings[NEWER_BOUND] = bound


class OpenAIProvider:
    """Asks a service for the rationales; what it answered is in the journal."""

    def __init__(self, config: PoolConfig, llm: LLMConfig, folder: Path) -> None:
        """Nothing is read or sent yet.

        Args:
            config: what to ask for.
            llm: how to ask.
            folder: where the journal is, if `llm.journal` does not say.
        """
        self._config, self._llm, self._folder = config, llm, folder

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Asks what has no answer in the journal yet.

        Raises:
            RelandError: see `ask_openai`.
        """
        prompts = [request.prompt for request in requests]
        asked = ask_openai(prompts, self._config, self._llm, self._folder)
        return provider_result(requests, asked, self._config)

    def answers(self, prompts: Sequence[str], max_tokens: int, judge: Judge) -> list[str | None]:
        """Asks prompts that are not about rationales (step 0 by the LLM).

        Args:
            prompts: the prompts.
            max_tokens: bound of an answer.
            judge: which answers are usable.

        Returns:
            The texts of the answers, aligned with the prompts; None where there is none.

        Raises:
            RelandError: see `ask_openai`.
        """
        config = dataclasses.replace(self._config, max_tokens=max_tokens)
        asked = ask_openai(prompts, config, self._llm, self._folder, judge=judge)
        found = (asked.answers.get(request_key(prompt, config)) for prompt in prompts)
        return [answer.content if answer else None for answer in found]


def ask_openai(
    prompts: Sequence[str], config: PoolConfig, llm: LLMConfig, folder: Path, *, judge: Judge | None = None
) -> Asked:
    """Asks the service every prompt that has no accepted answer in the journal.

    Args:
        prompts: the prompts; the same one may stand there several times.
        config: model and sampling settings.
        llm: limits, budget, tries, journal.
        folder: where the journal is, if `llm.journal` does not say.
        judge: which answers are usable; those with a rationale by default.

    Raises:
        BudgetReached: the budget is used up.
        RelandError: the package, the key or the service is missing; the service is dead or refuses to
            work; the journal cannot be used.
    """
    records = [request_record(prompt, config) for prompt in prompts]

    async def ask() -> Asked:
        async with OpenAIChat(config, llm) as chat:
            return await ask_all(records, chat, journal, config, llm, judge=judge)

    with Journal(journal_path(llm, folder)) as journal:
        return run_apart(ask)


def async_client(llm: LLMConfig) -> openai.AsyncOpenAI:
    """The official asynchronous client, by the environment, without retries of its own.

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
    # They log the address of every single request, at a level that jobs show.
    for name in ("httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    key, address = os.environ.get(API_KEY, ""), os.environ.get(BASE_URL, "")
    if not key and not address:
        raise RelandError(
            f"the environment variable {API_KEY} is not set (nor {BASE_URL}, the address of a service "
            "without a key, such as vLLM or Ollama); set it, or choose another config.pool.provider"
        )
    try:
        # A service that needs no key takes any; the client insists on one.
        return openai.AsyncOpenAI(
            api_key=key or "none", base_url=address or None, max_retries=0, timeout=llm.timeout_seconds
        )
    except Exception as error:  # an address that is none
        raise RelandError(f"{BASE_URL} is not usable ({type(error).__name__})") from None


def without_secrets(text: str, shortest: int = 4) -> str:
    """The text without the key, and without the user and password in the address of the service.

    Args:
        text: for people, or for the journal.
        shortest: shorter secrets stay, because they are words ("none", "test") that a text may have.
    """
    for secret in (os.environ.get(API_KEY, ""), _password(os.environ.get(BASE_URL, ""))):
        if len(secret) >= shortest:
            text = text.replace(secret, "***")
    return text


def shown(said: object) -> str:
    """At most 200 characters of what a service said, as JSON, without secrets and what looks like a key."""
    # Removed before the text is cut: half a key would not be found.
    text = json.dumps(said, ensure_ascii=False, default=str)
    return _KEY_LIKE.sub("***", without_secrets(text))[:200]


def _password(address: str) -> str:
    """User and password of an address, "" without."""
    found = re.search(r"://([^/@]+)@", address)
    return found[1] if found else ""


def _status_error(error: openai.APIStatusError) -> ChatError:
    """What a response with an error status means."""
    headers, status = error.response.headers, error.status_code
    why = f"status {status}: {shown(error.body) if error.body else error.response.reason_phrase}"
    wait = retry_after_seconds(headers.get("retry-after"), headers.get("date"), headers.get("retry-after-ms"))
    if status == 429 and not _SPENT & {error.code, error.type}:
        return ChatError(Trouble.LIMITED, why, wait)
    if error.param == "temperature":
        why += "; see config.pool.temperature (some models take 1 only)"
    if status == 429 or status in _FOR_ALL or error.param == "temperature":
        return ChatError(Trouble.FATAL, why)
    if status >= 500 or status in _PASSING:
        return ChatError(Trouble.FAILED, why, wait)
    return ChatError(Trouble.REFUSED, why)


def _connection_error(error: openai.APIConnectionError) -> ChatError:
    """A connection that could not be made cost nothing; one that was lost may have."""
    cause = error.__cause__
    name = type(cause).__name__ if cause else type(error).__name__
    detail = f": {cause}" if cause and str(cause) else ""
    why = without_secrets(f"no whole answer ({name}{detail})")
    unmade = name in ("ConnectError", "ConnectTimeout", "PoolTimeout")
    return ChatError(Trouble.FAILED if unmade else Trouble.UNANSWERED, why)
