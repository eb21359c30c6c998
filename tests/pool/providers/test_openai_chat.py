"""The official client against a local service that misbehaves: what every fault means, and no secrets."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.chat import ChatError, Trouble
from reland_jax.pool.contract import NoAnswer, RationaleRequest
from reland_jax.pool.providers.openai_chat import (
    OpenAIChat,
    OpenAIProvider,
    ask_openai,
    shown,
    without_secrets,
)
from reland_jax.types import RelandError
from tests.pool import fault_server
from tests.pool.fault_server import MALFORMED_MARK, REFUSED_MARK, content_of

KEY = "sk-a-very-secret-key-0123456789"
CONFIG = PoolConfig(provider="openai", model="m", max_tokens=50)

StartServer = Callable[..., fault_server.Process]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    """Starts servers, points the environment at the newest, and ends them."""
    with fault_server.started(monkeypatch, KEY) as start:
        yield start


def trouble_of(**llm: object) -> ChatError:
    """The error of a single request."""

    async def once() -> ChatError:
        async with OpenAIChat(CONFIG, LLMConfig(**llm)) as chat:  # type: ignore[arg-type]
            with pytest.raises(ChatError) as raised:
                await chat.ask([{"role": "user", "content": "a prompt"}], 50)
            return raised.value

    return asyncio.run(once())


def test_a_good_answer_and_what_is_sent(server: StartServer, tmp_path: Path) -> None:
    address = server(require_key=KEY)
    prompts = {"alice": "one", "bob": "two", "eve": "one"}
    requests = [RationaleRequest(user, prompt) for user, prompt in prompts.items()]
    result = OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests)
    alice, bob, eve = result.rationales
    assert alice is not None and alice == eve and bob is not None and bob.step2 != alice.step2
    assert alice.response == content_of(alice.prompt_hash) and result.problems == []
    assert alice.model == "m-0613" and alice.created.startswith("2023-11-") and alice.prompt_tokens == 1
    assert address.get("stats")["asked"] == 2
    assert OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests) == result
    assert address.get("stats")["asked"] == 2


@pytest.mark.parametrize(
    ("kind", "trouble", "waits", "why"),
    [
        ("limited", Trouble.LIMITED, False, "status 429"),
        ("limited_wait", Trouble.LIMITED, True, "status 429"),
        ("limited_date", Trouble.LIMITED, True, "status 429"),
        ("error", Trouble.FAILED, False, "status 500"),
        ("drop", Trouble.UNANSWERED, False, "no whole answer"),
        ("hang", Trouble.UNANSWERED, False, "no whole answer"),
    ],
)
def test_every_fault_has_its_meaning(
    server: StartServer, kind: str, trouble: Trouble, waits: bool, why: str
) -> None:
    server(faults=1.0, kinds=kind, wait=2.5)
    error = trouble_of(timeout_seconds=0.5)
    assert error.trouble is trouble and error.why.startswith(why)
    assert (error.retry_after is not None) == waits
    if waits:
        assert 2.5 <= (error.retry_after or 0) <= 5.0


def test_nobody_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    error = trouble_of()
    assert error.trouble is Trouble.FAILED and "ConnectError" in error.why


def test_a_wrong_key_stops_at_once_and_is_never_shown(
    server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = server(require_key="another")
    caplog.set_level(logging.DEBUG)
    requests = [RationaleRequest(str(number), f"prompt {number}") for number in range(30)]
    said = "status 401: .*Incorrect API key provided: .*30 prompts are unanswered"
    with pytest.raises(RelandError, match=said) as raised:
        OpenAIProvider(CONFIG, LLMConfig(concurrency=2), tmp_path).rationales(requests)
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert KEY not in shown and KEY[3:12] not in shown and address.get("stats")["asked"] == 0
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_password_in_the_address_is_never_shown(
    server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = server()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:pass-word@{address.address.removeprefix('http://')}/v1")
    caplog.set_level(logging.INFO)
    asked = ask_openai(["a"], CONFIG, LLMConfig(), tmp_path)
    assert len(asked.answers) == 1 and "pass-word" not in caplog.text and "HTTP Request" not in caplog.text
    assert KEY[:4] not in shown({"message": "x" * 180 + KEY}) and "***" in shown({"key": "sk-abc***wxyz"})
    assert without_secrets(f"at http://me:pass-word@host with {KEY}") == "at http://***@host with ***"


def test_a_key_that_is_a_word_does_not_change_answers(
    server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server()
    monkeypatch.setenv("OPENAI_API_KEY", "Soap")
    (answer,) = ask_openai(["a"], CONFIG, LLMConfig(), tmp_path).answers.values()
    assert "Oat Soap" in answer.content


def test_refused_and_always_malformed_prompts_are_listed(server: StartServer, tmp_path: Path) -> None:
    address = server()
    prompts = {"a": "fine", "b": f"no {REFUSED_MARK}", "c": f"half {MALFORMED_MARK}"}
    requests = [RationaleRequest(user, prompt) for user, prompt in prompts.items()]
    result = OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests)
    assert [rationale is not None for rationale in result.rationales] == [True, False, False]
    refused, malformed = result.problems
    assert refused.user_id == "b" and refused.why.startswith("status 400")
    assert malformed.user_id == "c"
    assert malformed.why.startswith("in quarantine, malformed again at the second try")
    assert address.get("stats")["kinds"] == {"good": 1, "refused": 1, "no_step2": 2}


def test_answers_to_prompts_of_another_kind(server: StartServer, tmp_path: Path) -> None:
    server()
    provider = OpenAIProvider(CONFIG, LLMConfig(), tmp_path)
    texts = provider.answers(["x", f"y {REFUSED_MARK}"], 5, lambda text: "")
    assert isinstance(texts[0], str) and texts[0].startswith("Step 1")
    assert isinstance(texts[1], NoAnswer) and not texts[1].again and texts[1].why.startswith("status 400")


def test_hundreds_of_prompts_and_every_fault(server: StartServer, tmp_path: Path) -> None:
    address = server(faults=0.4, latency=0.01, spike=0.2, long_spike=20, wait=0.2, seed=3)
    requests = [RationaleRequest(str(number), f"prompt {number}") for number in range(300)]
    llm = LLMConfig(timeout_seconds=1.5, attempts=20, concurrency=32)
    result = OpenAIProvider(CONFIG, llm, tmp_path).rationales(requests)
    stats = address.get("stats")
    assert all(result.rationales) and stats["most_under_way"] <= 32
    kinds = {*fault_server.TRANSPORT, *fault_server.CONTENT}
    assert kinds < stats["kinds"].keys(), "a fault did not happen; take more prompts"
    assert {problem.why for problem in result.problems} == {"used, but step 1 is missing"}


def test_the_environment_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RelandError, match="OPENAI_API_KEY is not set .nor OPENAI_BASE_URL"):
        ask_openai(["a"], CONFIG, LLMConfig(), tmp_path)


def test_the_package_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RelandError, match="openai is not installed; pip install -r requirements-llm.txt"):
        ask_openai(["a"], CONFIG, LLMConfig(), tmp_path)


class Particular:
    """Stands in for the client: a service that takes `max_completion_tokens` and temperature 1 only."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def post(self, path: str, *, cast_to: type, body: dict[str, Any]) -> str:
        import openai

        self.bodies.append(body)
        await asyncio.sleep(0)  # requests are under way together
        wrong = "max_tokens" if "max_tokens" in body else "temperature" if body["temperature"] != 1 else ""
        if not wrong:
            return "{}"
        response: Any = SimpleNamespace(request=None, status_code=400, headers={}, reason_phrase="Bad")
        said = {"message": f"Unsupported: {wrong}", "param": wrong, "code": "unsupported_parameter"}
        raise openai.BadRequestError("no", response=response, body=said)


def test_a_model_that_wants_the_bound_under_its_newer_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so once; a temperature that it does not take stops the job, with the setting's name."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    service = Particular()

    async def ask(temperature: float) -> None:
        chat = OpenAIChat(dataclasses.replace(CONFIG, temperature=temperature), LLMConfig())
        monkeypatch.setattr(chat, "_client", service)
        messages = [{"role": "user", "content": "p"}]
        await asyncio.gather(*(chat.ask(messages, CONFIG.max_tokens) for _ in range(3)))
        await chat.ask(messages, CONFIG.max_tokens)

    asyncio.run(ask(1.0))
    assert ["max_tokens" in body for body in service.bodies] == [True] * 3 + [False] * 4
    assert service.bodies[-1]["max_completion_tokens"] == CONFIG.max_tokens
    with pytest.raises(ChatError, match="see config.pool.temperature") as raised:
        asyncio.run(ask(0.0))
    assert raised.value.trouble is Trouble.FATAL
