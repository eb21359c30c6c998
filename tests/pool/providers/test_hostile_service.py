"""Services that are broken or not to be trusted: bounds in bytes, waits and money, and no secrets kept."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.chat import ChatError, Trouble
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.openai_chat import OpenAIProvider, ask_openai
from reland_jax.types import RelandError
from tests.pool import fault_server
from tests.pool.fault_server import ENDLESS_MARK, LONG_MARK, MALFORMED_MARK
from tests.pool.providers.test_openai_chat import trouble_of

KEY = "sk-a-very-secret-key-0123456789"
CONFIG = PoolConfig(provider="openai", model="m", max_tokens=50, tokenizer="characters", answers="text")

StartServer = Callable[..., fault_server.Process]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    """Starts servers, points the environment at the newest, and ends them."""
    with fault_server.started(monkeypatch, KEY) as start:
        yield lambda kind="", **more: start(**({"faults": 1.0, "kinds": kind} if kind else {}), **more)


def kept(folder: Path) -> bytes:
    """Every byte that was written."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_packed_answer_is_an_answer(server: StartServer, tmp_path: Path) -> None:
    server("packed")
    assert len(ask_openai(["a"], CONFIG, LLMConfig(), tmp_path).answers) == 1


@pytest.mark.parametrize(
    ("charset", "said"),
    [
        ("utf-8", "café"),
        ("ISO-8859-1", "cafÃ©"),
        *(
            (name, "café")
            for name in ("zlib_codec", "undefined", "idna", "rot13", "utf-32", "utf-7", "klingon")
        ),
        ("iso-8859-99", "café"),
    ],
)
def test_a_body_is_text_whatever_encoding_is_named(charset: str, said: str) -> None:
    import httpx2

    from reland_jax.pool.providers.clients import Bound, http_client

    headers = {"content-type": f"application/json; charset={charset}"}
    answer = httpx2.Response(
        200, headers=headers, content="café".encode(), request=httpx2.Request("POST", "http://a/")
    )
    with http_client(Bound()) as client:
        (guard,) = client.event_hooks["response"]
        guard(answer)
    assert answer.text == said


def test_a_service_that_redirects_for_ever_is_asked_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    from reland_jax.pool.providers.clients import Bound, http_client

    asked: list[str] = []

    def again(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        return httpx2.Response(307, headers={"location": "/again"}, request=request)

    with http_client(Bound()) as client:
        monkeypatch.setattr(client, "_transport_for_url", lambda url: httpx2.MockTransport(again))
        with pytest.raises(httpx2.TooManyRedirects):
            client.post("http://a/", content=b"prompt")
    assert asked == ["POST"] * 4


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("packed_bomb", "no whole answer: the answer is longer than 1000000 bytes when it is unpacked"),
        ("endless", "no whole answer: the answer is longer than 1000000 bytes"),
        ("huge", "no whole answer: the answer is longer than 1000000 bytes"),
        ("packed_badly", "no whole answer: the compressed answer is cut off"),
        ("packed_unasked", "no whole answer: the answer has content encoding 'zstd', which was not"),
    ],
)
def test_answers_are_bounded_in_bytes(server: StartServer, tmp_path: Path, kind: str, why: str) -> None:
    """Before and after unpacking; one that was sent may have been paid for."""
    server(kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = trouble_of()
    assert error.trouble is Trouble.UNANSWERED and why in error.why
    asked = ask_openai([f"prompt {n}" for n in range(3)], CONFIG, LLMConfig(attempts=1), tmp_path)
    assert len(asked.problems) == 3 and not asked.closed
    # 200 MB unpacked or 20 MB of an answer, three at a time, would be seen here.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert len(kept(tmp_path)) < 300_000


def test_a_redirect_to_another_origin_is_not_followed(server: StartServer, tmp_path: Path) -> None:
    elsewhere = server()
    address = server("redirect", elsewhere=elsewhere.address)
    said = f"redirects to another address, {elsewhere.address}.*nothing was sent"
    with pytest.raises(RelandError, match=said):
        ask_openai(["a", "b"], CONFIG, LLMConfig(), tmp_path)
    assert elsewhere.get("stats")["asked"] == 0 < address.get("stats")["asked"]


def test_a_redirect_within_the_service_is(server: StartServer, tmp_path: Path) -> None:
    server("redirect_here")
    assert len(ask_openai(["a"], CONFIG, LLMConfig(), tmp_path).answers) == 1


def test_a_long_wait_is_told_and_stops_the_job(
    server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server("wait_long")
    start = time.monotonic()
    with pytest.raises(RelandError, match="asks to wait for 3600 s.*config.llm.longest_wait.*2 prompts are"):
        ask_openai(["a", "b"], CONFIG, LLMConfig(), tmp_path)
    assert time.monotonic() - start < 30
    server("limited_wait", wait=6)
    with pytest.raises(RelandError, match="asks to wait for 6 s"):
        ask_openai(["a", "b"], CONFIG, LLMConfig(longest_wait=8.0), tmp_path)
    assert re.search("waiting for [6-7] s as the service asks: status 429", caplog.text)


def test_what_follows_an_answer_is_no_answer(server: StartServer, tmp_path: Path) -> None:
    """A second answer on the connection would be that of the next prompt."""
    server("more")
    requests = [RationaleRequest(str(n), f"prompt {n}") for n in range(8)]
    result = OpenAIProvider(CONFIG, LLMConfig(concurrency=1), tmp_path).rationales(requests)
    assert [each and each.response for each in result.rationales] == [
        each and fault_server.content_of(each.prompt_hash) for each in result.rationales
    ]


@pytest.mark.parametrize("kind", ["echo", "echo_packed"])
def test_a_key_that_is_sent_back_is_never_kept(server: StartServer, tmp_path: Path, kind: str) -> None:
    """Letter by letter in escapes, so that it is there only once the answer is read."""
    server(kind)
    result = OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales([RationaleRequest("u", "a")])
    (rationale,) = result.rationales
    assert rationale is not None and rationale.step1.startswith("The shopper prefers scent")
    assert not any(KEY[3:] in str(field) for field in rationale)
    assert KEY[3:].encode() not in kept(tmp_path)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY[3:12])
    assert escaped.encode() not in kept(tmp_path)


def test_an_answer_that_is_cut_off_gets_more_room_once(server: StartServer, tmp_path: Path) -> None:
    address = server(room=50)
    prompts = {"a": "short", "b": f"long {LONG_MARK}", "c": f"no end {ENDLESS_MARK}"}
    requests = [RationaleRequest(user, prompt) for user, prompt in prompts.items()]
    result = OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests)
    assert [each is not None for each in result.rationales] == [True, True, False]
    (problem,) = result.problems
    assert problem.user_id == "c" and not problem.again and "cut the answer off" in problem.why
    asked = address.get("stats")["asked"]
    assert asked == 1 + 2 + 2
    assert OpenAIProvider(CONFIG, LLMConfig(), tmp_path).rationales(requests) == result
    assert address.get("stats")["asked"] == asked, "in quarantine"


WORKER = """
import sys
from pathlib import Path
from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.providers.openai_chat import ask_openai
folder, budget = Path(sys.argv[1]), int(sys.argv[2])
config = PoolConfig(provider="openai", model="m", max_tokens=50, tokenizer="characters", answers="text")
llm = LLMConfig(concurrency=24, budget_tokens=budget, timeout_seconds=1.0, attempts=20)
ask_openai([f"prompt {number}" for number in range(400)], config, llm, folder)
"""


def test_a_budget_holds_by_the_count_of_the_service_also_when_killed(
    server: StartServer, tmp_path: Path
) -> None:
    """The service bills every answer that it begins to write, with all tokens that it may have."""
    budget = 6_000
    address = server(dear=1, latency=0.3, faults=0.3, kinds="half_usage,drop,hang,not_json,error")
    kills = 0
    for goal in (30, 400):
        command = [sys.executable, "-c", WORKER, str(tmp_path), str(budget)]
        worker = subprocess.Popen(
            command, env=os.environ | address.environment, stderr=subprocess.PIPE, text=True
        )
        while worker.poll() is None and address.get("stats")["asked"] < goal:
            time.sleep(0.02)
        if worker.poll() is None:
            worker.send_signal(signal.SIGKILL)
            kills += 1
        _, said = worker.communicate()
    billed = address.get("stats")["billed"]
    assert kills == 1 and "BudgetReached" in said
    assert 0.5 * budget < billed <= budget


def test_errors_have_no_key_in_any_form(server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server(require_key="another")
    error: ChatError = trouble_of()
    assert KEY[3:] not in error.why + caplog.text and MALFORMED_MARK not in error.why
