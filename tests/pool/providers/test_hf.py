"""The local provider: with a writer that is a few lines of Python, so that PyTorch is not needed."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import BudgetReached
from reland_jax.pool.contract import NoAnswer, RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.providers.hf import HfProvider
from reland_jax.pool.providers.hf_model import LocalModel, Written, by_length, prompt_seed
from reland_jax.types import RelandError

CONFIG = PoolConfig(provider="hf", model="tiny", max_tokens=40)
LLM = LLMConfig(concurrency=2)
PROMPTS = ["prompt of a", "prompt of b, a longer one", "prompt c", "prompt of d, the longest of them all"]
REQUESTS = [RationaleRequest(f"user-{number}", prompt) for number, prompt in enumerate(PROMPTS)]


def good(messages: Sequence[Mapping[str, str]]) -> str:
    """A usable answer to any prompt."""
    return f"Step 1: Likes {messages[0]['content']}.\nStep 2: More {messages[0]['content']}."


class Stub:
    """A writer whose tokens are the UTF-8 bytes of a conversation.

    Attributes:
        batches: prompts of every batch.
    """

    name, context = "stub", 0

    def __init__(self, answer: Callable[[Sequence[Mapping[str, str]]], str] = good) -> None:
        self._answer = answer
        self.batches: list[list[str]] = []

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The bytes of the messages as JSON."""
        return list(json.dumps([dict(message) for message in messages]).encode())

    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_tokens: int) -> list[Written]:
        """The answers, of five tokens each."""
        chats = [json.loads(bytes(prompt)) for prompt in prompts]
        assert list(seeds) == [prompt_seed(chat) for chat in chats]
        self.batches.append([chat[0]["content"] for chat in chats])
        return [Written(self._answer(chat), 5) for chat in chats]


def provider(folder: Path, stub: Stub, llm: LLMConfig = LLM, config: PoolConfig = CONFIG) -> HfProvider:
    return HfProvider(config, llm, folder, lambda *_: stub)


def test_a_pool_in_batches_of_similar_length(tmp_path: Path) -> None:
    stub = Stub()
    result = provider(tmp_path, stub).rationales([*REQUESTS, REQUESTS[0]])
    assert [r.step2 for r in result.rationales] == [f"More {prompt}." for prompt in [*PROMPTS, PROMPTS[0]]]
    assert stub.batches == [[PROMPTS[3], PROMPTS[1]], [PROMPTS[0], PROMPTS[2]]]
    first = result.rationales[0]
    length = len(stub.encode([{"role": "user", "content": PROMPTS[0]}]))
    assert (first.model, first.prompt_tokens, first.response_tokens) == ("stub", length, 5)
    assert first.prompt_hash == prompt_hash(PROMPTS[0]) and first.created.endswith("+00:00")
    assert result.problems == []


def test_nothing_is_loaded_when_the_journal_answers_all(tmp_path: Path) -> None:
    result = provider(tmp_path, Stub()).rationales(REQUESTS)

    def load(*_: object) -> Stub:
        raise AssertionError("there is nothing to ask")

    assert HfProvider(CONFIG, LLM, tmp_path, load).rationales(REQUESTS) == result
    stub = Stub()
    more = [*REQUESTS, RationaleRequest("new", "new")]
    assert provider(tmp_path, stub).rationales(more).rationales[:4] == result.rationales
    assert stub.batches == [["new"]]


def test_malformed_answers_are_asked_again_once_and_then_left(tmp_path: Path) -> None:
    seen: list[Sequence[Mapping[str, str]]] = []

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        seen.append(messages)
        prompt, again = messages[0]["content"], len(messages) > 1
        usable = prompt == PROMPTS[2] or (again and prompt != PROMPTS[1])
        return good(messages) if usable else "I'm sorry, I cannot help."

    result = provider(tmp_path, Stub(answer)).rationales(REQUESTS)
    assert [r is None for r in result.rationales] == [False, True, False, False]
    (problem,) = result.problems
    assert problem.user_id == "user-1" and "quarantine" in problem.why and "refusal" in problem.why
    again = [messages for messages in seen if len(messages) > 1]
    assert sorted(messages[0]["content"] for messages in again) == sorted({*PROMPTS} - {PROMPTS[2]})
    assert all("refusal" in messages[2]["content"] for messages in again) and len(seen) == 7
    assert provider(tmp_path, Stub()).rationales(REQUESTS) == result
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.usage()["tiny"].requests == 7


def test_empty_answers_are_listed_and_asked_once_per_run(tmp_path: Path) -> None:
    stub = Stub(lambda messages: "" if messages[0]["content"] == PROMPTS[0] else good(messages))
    result = provider(tmp_path, stub).rationales(REQUESTS)
    assert [r is None for r in result.rationales] == [True, False, False, False]
    assert result.problems == [("user-0", "the answer has no content")]
    assert sum(map(len, stub.batches)) == 4


def test_prompts_that_are_too_long_are_listed(tmp_path: Path) -> None:
    stub = Stub()
    stub.context = len(stub.encode([{"role": "user", "content": PROMPTS[1]}])) + CONFIG.max_tokens
    result = provider(tmp_path, stub).rationales(REQUESTS)
    assert [r is None for r in result.rationales] == [False, False, False, True]
    length = len(stub.encode([{"role": "user", "content": PROMPTS[3]}]))
    assert result.problems[0].why.startswith(
        f"the prompt has {length} tokens, and with config.pool.max_tokens=40 does not fit into the "
        f"{stub.context} of stub; set config.pool.prompt_tokens"
    )


def test_the_budget_in_tokens_holds(tmp_path: Path) -> None:
    stub = Stub()
    lengths = sorted(len(stub.encode([{"role": "user", "content": prompt}])) for prompt in PROMPTS)
    first_batch = sum(lengths[2:]) + 2 * CONFIG.max_tokens
    with pytest.raises(BudgetReached) as reached:
        provider(tmp_path, stub, dataclasses.replace(LLM, budget_tokens=first_batch)).rationales(REQUESTS)
    assert (reached.value.left, reached.value.spent_tokens) == (2, sum(lengths[2:]) + 2 * 5)
    assert len(stub.batches) == 1
    assert None not in provider(tmp_path, stub).rationales(REQUESTS).rationales
    assert len(stub.batches) == 2


def test_prompts_of_step_0(tmp_path: Path) -> None:
    stub = Stub(lambda messages: messages[0]["content"].upper())
    writer = provider(tmp_path, stub)
    one, other, same = writer.answers(["x", "y", "x"], 9, lambda text: "" if text == "X" else "no")
    assert one == same == "X" and isinstance(other, NoAnswer) and not other.again
    assert other.why == "in quarantine, malformed when asked again too: no"


def test_two_at_a_time_take_turns(tmp_path: Path) -> None:
    stubs = [Stub(), Stub()]
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda s=s: results.append(provider(tmp_path, s).rationales(REQUESTS)))
        for s in stubs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    asked = [prompt for stub in stubs for batch in stub.batches for prompt in batch]
    assert sorted(asked) == sorted(PROMPTS) and len(results) == 2 and results[0] == results[1]


def _die(folder: Path, batch: int, recorded: bool) -> None:
    """Writes until a batch, and is killed before it is recorded, or right after."""
    real, left = Journal.record, [batch]

    def record(*arguments: object) -> None:
        left[0] -= 1
        if recorded or left[0]:
            real(*arguments)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.record = record
    provider(folder, Stub()).rationales(REQUESTS)


@pytest.mark.parametrize(("batch", "recorded", "left"), [(1, False, 4), (1, True, 2), (2, False, 2)])
def test_killed_only_the_batch_under_way_is_written_again(
    tmp_path: Path, batch: int, recorded: bool, left: int
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reland_jax.pool.providers.hf"])
    process = context.Process(target=_die, args=(tmp_path, batch, recorded))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    stub = Stub()
    result = provider(tmp_path, stub).rationales(REQUESTS)
    assert sum(map(len, stub.batches)) == left
    assert [r.step2 for r in result.rationales] == [f"More {prompt}." for prompt in PROMPTS]


def test_order_by_length() -> None:
    assert list(by_length([3, 1, 3, 2, 9], 2)) == [[4, 0], [2, 3], [1]]
    assert list(by_length([], 2)) == []


def test_the_seed_is_that_of_the_conversation() -> None:
    one = [{"role": "user", "content": "é"}]
    assert prompt_seed(one) == prompt_seed([{"content": "é", "role": "user"}]) != prompt_seed(one * 2)
    assert 0 <= prompt_seed(one) < 2**63


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(RelandError, match="pip install -r requirements-hf.txt"):
        LocalModel(CONFIG, LLM)


def test_an_answer_that_the_bound_on_tokens_ended_is_not_used(tmp_path: Path) -> None:
    class Cut(Stub):
        """The second prompt is never answered to the end."""

        def write(
            self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_tokens: int
        ) -> list[Written]:
            """As a model with too little room."""
            written = super().write(prompts, seeds, max_tokens)
            asked = [json.loads(bytes(prompt))[0]["content"] for prompt in prompts]
            return [
                text._replace(ended=name != PROMPTS[1]) for name, text in zip(asked, written, strict=True)
            ]

    stub = Cut()
    result = provider(tmp_path, stub).rationales(REQUESTS)
    assert [r is None for r in result.rationales] == [False, True, False, False]
    (problem,) = result.problems
    assert "quarantine" in problem.why and "the bound on tokens cut the answer off" in problem.why
    assert sum(map(len, stub.batches)) == 5
