"""Answers in the fields of a JSON schema: asked for, refused by some services, and read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import is_about_format, response_format
from reland_jax.pool.asking.money import estimate
from reland_jax.pool.contract import ProviderResult, RationaleRequest
from reland_jax.pool.providers.openai_chat import OpenAIProvider
from reland_jax.types import RelandError
from tests.pool import fault_server

REQUESTS = [RationaleRequest(str(number), f"prompt {number}") for number in range(6)]
ONE_BY_ONE = LLMConfig(concurrency=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., fault_server.Process]]:
    with fault_server.started(monkeypatch) as start:
        yield start


def ask(folder: Path, llm: LLMConfig = ONE_BY_ONE, answers: str = "auto") -> ProviderResult:
    config = PoolConfig(provider="openai", model="m", max_tokens=50, answers=answers)
    return OpenAIProvider(config, llm, folder).rationales(REQUESTS)


def test_the_schema_by_kind_of_prompt() -> None:
    """All fields are required and no others allowed, at every level: the rule of strict services."""
    steps = response_format(PoolConfig())
    direct = response_format(PoolConfig(prompt="direct"))
    assert steps and direct and response_format(PoolConfig(answers="text")) is None
    schema = steps["json_schema"]["schema"]
    assert list(schema["properties"]) == ["step1", "step2"]
    step2, items = schema["properties"]["step2"], direct["json_schema"]["schema"]
    assert list(step2["properties"]) == ["recommended_categories", "recommended_items"]
    assert list(items["properties"]) == ["recommended_items"]
    for fields in (schema, step2, items):
        assert fields["required"] == list(fields["properties"]) and fields["additionalProperties"] is False


def test_a_service_that_takes_a_schema(server: Callable[..., fault_server.Process], tmp_path: Path) -> None:
    address = server(schema="taken")
    result = ask(tmp_path)
    assert result.problems == [] and address.get("stats")["asked"] == len(REQUESTS)
    for rationale in result.rationales:
        assert rationale is not None and json.loads(rationale.response).keys() == {"step1", "step2"}
        assert rationale.step1.startswith("The shopper prefers scent number")
        assert rationale.step2.startswith("Recommended categories: perfume; soap. Recommended items: Rose")


def test_a_service_that_ignores_it_is_read_as_text(
    server: Callable[..., fault_server.Process], tmp_path: Path
) -> None:
    server()
    result = ask(tmp_path)
    assert result.problems == [] and all(rationale is not None for rationale in result.rationales)


@pytest.mark.parametrize("said", ["named", "vague"])
def test_a_service_that_refuses_it_is_asked_without(
    server: Callable[..., fault_server.Process], tmp_path: Path, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    """One refusal, which is not billed, and then none; told once, and counted among the problems."""
    address = server(schema=said)
    caplog.set_level(logging.WARNING)
    result = ask(tmp_path)
    assert all(rationale is not None for rationale in result.rationales)
    remark = "6 prompts were sent without a JSON schema: the service refuses one for 'm'"
    assert [tuple(problem) for problem in result.problems] == [("", remark)]
    assert address.get("stats")["kinds"] == {"refused_schema": 1, "good": len(REQUESTS)}
    assert caplog.text.count("refuses a JSON schema, so") == 1
    assert ask(tmp_path).problems == [] and address.get("stats")["asked"] == 1 + len(REQUESTS)


def test_many_at_a_time_are_refused_together(
    server: Callable[..., fault_server.Process], tmp_path: Path
) -> None:
    address = server(schema="named", latency=0.05)
    result = ask(tmp_path, LLMConfig(concurrency=3))
    assert all(rationale is not None for rationale in result.rationales)
    kinds = address.get("stats")["kinds"]
    assert kinds["good"] == len(REQUESTS) and kinds["refused_schema"] <= 3


def test_a_schema_that_is_demanded_and_refused_is_an_error(
    server: Callable[..., fault_server.Process], tmp_path: Path
) -> None:
    address = server(schema="named")
    with pytest.raises(RelandError, match="status 400: .*json_schema.*set config.pool.answers to text"):
        ask(tmp_path, answers="json_schema")
    assert address.get("stats")["kinds"] == {"refused_schema": 1}


def test_text_is_asked_for_without_a_schema(
    server: Callable[..., fault_server.Process], tmp_path: Path
) -> None:
    """So are prompts of another kind, such as those of step 0, whatever the setting."""
    address = server(schema="named")
    assert ask(tmp_path, answers="text").problems == []
    config = PoolConfig(provider="openai", model="m", answers="json_schema")
    (text,) = OpenAIProvider(config, ONE_BY_ONE, tmp_path).answers(["tidy up"], 50, lambda text: "")
    assert isinstance(text, str) and address.get("stats")["kinds"] == {"good": len(REQUESTS) + 1}


def test_the_schema_is_counted() -> None:
    """A service reads it with every prompt of rationales, and with none of step 0."""
    configs = [PoolConfig(tokenizer="characters", answers=answers) for answers in ("text", "auto")]
    plain, fields = (estimate(REQUESTS, config, LLMConfig(), (), ["step 0"]) for config in configs)
    extra = (fields.prompt_tokens - plain.prompt_tokens) / len(REQUESTS)
    assert extra == int(extra) and 100 < extra < 300


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported.", True),
        ("Unable to generate parser for this template: JSON schema error at #", True),
        ("guided decoding is off", True),
        ("maximum context length is 4096 tokens", False),
        ("content management policy", False),
    ],
)
def test_what_services_say_of_a_schema(said: str, about: bool) -> None:
    assert is_about_format(said) is about
