"""The engine with a service that does what a script says: tries, re-asks, budget, breaker, limits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.chat import ChatError, Messages, Trouble
from reland_jax.pool.asking.engine import LIMITED_TRIES, ask_all, run_apart, settled_in_journal
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.limits import Backoff
from reland_jax.pool.asking.money import BudgetReached, Usage
from reland_jax.pool.asking.records import Reception, RequestRecord, Sent, request_record
from reland_jax.pool.asking.replies import MORE_ROOM, Asked
from reland_jax.pool.asking.reserve import DiskReserve
from reland_jax.types import RelandError

CONFIG = PoolConfig(
    provider="openai", model="m", max_tokens=10, tokenizer="characters", answers="text"
)  # fmt: skip
GOOD, BAD = "Step 1: Likes soap.\nStep 2: soap; cream", "Step 1: Likes soap."
PAID = (5, 3)


def completion(content: str, paid: tuple[int, int] = PAID) -> str:
    usage = {"prompt_tokens": paid[0], "completion_tokens": paid[1]}
    return json.dumps(
        {"choices": [{"message": {"content": content}}], "usage": usage, "created": 1_700_000_000}
    )


class ScriptedChat:
    """Plays, for every prompt, the steps of a script: a body to return or an error to raise; then `last`."""

    def __init__(self, *script: str | ChatError, last: str | ChatError | None = None) -> None:
        self.script, self.last = script, last or completion(GOOD)
        self.asked: Counter[str] = Counter()
        self.chats: list[Messages] = []
        self.rooms: list[int] = []
        self.under_way = self.most = 0
        self.delay: Callable[[str], float] = lambda prompt: 0.0

    async def ask(self, messages: Messages, max_tokens: int) -> str:
        prompt = messages[0]["content"]
        number = self.asked[prompt]
        self.asked[prompt] += 1
        self.chats.append(messages)
        self.rooms.append(max_tokens)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.delay(prompt))
        finally:
            self.under_way -= 1
        step = self.script[number] if number < len(self.script) else self.last
        if isinstance(step, ChatError):
            raise step
        return step


def records(count: int) -> list[RequestRecord]:
    return [request_record(f"prompt {number}", CONFIG) for number in range(count)]


def ask(folder: Path, chat: ScriptedChat, count: int = 1, **llm: object) -> Asked:
    with Journal(folder / "j.sqlite") as journal:
        return asyncio.run(
            ask_all(
                records(count), chat, journal, CONFIG, LLMConfig(**llm),  # type: ignore[arg-type]
                backoff=Backoff(first=0.001, longest=0.002, seed=0),
            )
        )  # fmt: skip


def usage(folder: Path) -> dict[str, Usage]:
    with Journal(folder / "j.sqlite") as journal:
        return journal.usage()


def failed(trouble: Trouble = Trouble.FAILED, wait: float | None = None) -> ChatError:
    return ChatError(trouble, f"it is {trouble.value}", wait)


def test_every_prompt_is_asked_once_and_never_again(tmp_path: Path) -> None:
    chat = ScriptedChat()
    chat.delay = lambda prompt: 0.02
    with Journal(tmp_path / "j.sqlite") as journal:
        twice = [*records(20), *records(20)]
        asked = asyncio.run(ask_all(twice, chat, journal, CONFIG, LLMConfig(concurrency=3)))
    assert set(asked.answers) == {record.key for record in records(20)} and not asked.problems
    assert set(chat.asked.values()) == {1} and len(chat.asked) == 20 and chat.most == 3
    assert usage(tmp_path) == {"m": Usage(20, 100, 60)}
    again = ScriptedChat()
    assert ask(tmp_path, again, 20) == asked and not again.asked
    assert ask(tmp_path, again, 21).answers.keys() > asked.answers.keys() and again.asked == {"prompt 20": 1}


def test_nothing_to_ask(tmp_path: Path) -> None:
    assert ask(tmp_path, ScriptedChat(), 0) == Asked({}, {})


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    one, other = ScriptedChat(), ScriptedChat(failed())
    other.delay = lambda prompt: 0.03 - int(prompt.split()[1]) * 0.001
    first = ask(tmp_path / "a", one, 30)
    assert ask(tmp_path / "b", other, 30, concurrency=7, breaker_failures=0) == first


@pytest.mark.parametrize(
    "trouble", [failed(), failed(Trouble.UNANSWERED), failed(Trouble.LIMITED), "{broken", '{"choices": []}']
)
def test_passing_troubles_are_tried_again(tmp_path: Path, trouble: ChatError | str) -> None:
    chat = ScriptedChat(trouble, trouble)
    asked = ask(tmp_path, chat, 3, attempts=3)
    assert len(asked.answers) == 3 and set(chat.asked.values()) == {3}


def test_a_prompt_is_given_up_after_its_tries_and_asked_anew_by_the_next_job(tmp_path: Path) -> None:
    chat = ScriptedChat(last=failed())
    asked = ask(tmp_path, chat, 2, attempts=4, breaker_failures=0)
    assert set(chat.asked.values()) == {4} and not asked.answers
    assert set(asked.problems.values()) == {"no answer in 4 tries; the last error: it is failed"}
    assert usage(tmp_path) == {}
    assert len(ask(tmp_path, ScriptedChat(), 2).answers) == 2


def test_being_turned_away_counts_less(tmp_path: Path) -> None:
    chat = ScriptedChat(*[failed(Trouble.LIMITED)] * (2 * LIMITED_TRIES - 1))
    assert len(ask(tmp_path, chat, 1, attempts=2, breaker_failures=0).answers) == 1
    chat = ScriptedChat(last=failed(Trouble.LIMITED))
    assert len(ask(tmp_path / "b", chat, 1, attempts=2, breaker_failures=0).problems) == 1
    assert chat.asked["prompt 0"] == 2 * LIMITED_TRIES


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    start = time.monotonic()
    ask(tmp_path, ScriptedChat(failed(Trouble.LIMITED, 0.3)), 1)
    assert time.monotonic() - start >= 0.3


def test_a_refused_prompt_is_not_asked_again_in_this_job(tmp_path: Path) -> None:
    chat = ScriptedChat(last=failed(Trouble.REFUSED))
    asked = ask(tmp_path, chat, 3)
    assert set(asked.problems.values()) == {"it is refused"} and set(chat.asked.values()) == {1}


def test_a_time_out_may_have_been_billed(tmp_path: Path) -> None:
    chat = ScriptedChat()
    chat.delay = lambda prompt: 5.0
    asked = ask(tmp_path, chat, 1, timeout_seconds=0.05, attempts=2)
    assert list(asked.problems.values()) == ["no answer in 2 tries; the last error: no answer in 0.05 s"]
    # Each may have cost the bytes of the prompt, the chat format around it, and a longest answer.
    assert usage(tmp_path) == {"m": Usage(2, 2 * (len("prompt 0") + 32), 2 * 10)}


def test_a_malformed_answer_is_asked_for_again_with_what_is_wrong(tmp_path: Path) -> None:
    chat = ScriptedChat(completion(BAD))
    asked = ask(tmp_path, chat, 1)
    assert [answer.content for answer in asked.answers.values()] == [GOOD]
    first, again = chat.chats
    assert [m["role"] for m in again] == ["user", "assistant", "user"]
    assert again[0] == first[0] and again[1]["content"] == BAD and "step 2 is missing" in again[2]["content"]
    assert usage(tmp_path) == {"m": Usage(2, 10, 6)}


def test_a_prompt_malformed_twice_is_in_quarantine_for_good(tmp_path: Path) -> None:
    chat = ScriptedChat(last=completion(BAD))
    asked = ask(tmp_path, chat, 2)
    assert set(chat.asked.values()) == {2} and not asked.answers
    assert all(why.startswith("in quarantine, malformed again") for why in asked.problems.values())
    later = ScriptedChat()
    assert ask(tmp_path, later, 2) == asked and not later.asked
    with Journal(tmp_path / "j.sqlite") as journal:
        assert settled_in_journal([record.key for record in records(2)], journal) == asked


def test_a_job_stopped_between_the_two_asks_goes_on_with_the_second(tmp_path: Path) -> None:
    with pytest.raises(RelandError):
        ask(tmp_path, ScriptedChat(completion(BAD), last=failed(Trouble.FATAL)), 1)
    chat = ScriptedChat()
    ask(tmp_path, chat, 1)
    assert len(chat.chats) == 1 and len(chat.chats[0]) == 3


def test_a_judge_of_ones_own(tmp_path: Path) -> None:
    chat = ScriptedChat(completion("no"), last=completion("yes"))
    with Journal(tmp_path / "j.sqlite") as journal:
        job = ask_all(
            records(2),
            chat,
            journal,
            CONFIG,
            LLMConfig(),
            judge=lambda text: "" if text == "yes" else "not yes",
        )
        asked = asyncio.run(job)
    assert {answer.content for answer in asked.answers.values()} == {"yes"}
    assert "could not be read: not yes." in chat.chats[-1][2]["content"]


def test_a_fatal_error_stops_the_job_and_names_what_is_left(tmp_path: Path) -> None:
    chat = ScriptedChat(last=failed(Trouble.FATAL))
    with pytest.raises(RelandError, match="it is fatal; 500 prompts are unanswered.*j.sqlite"):
        ask(tmp_path, chat, 500, concurrency=5)
    assert len(chat.asked) <= 5


def test_the_breaker_stops_a_job_with_a_dead_service(tmp_path: Path) -> None:
    chat = ScriptedChat(last=failed())
    with pytest.raises(
        RelandError, match="12 requests in a row failed .*it is failed; 900 prompts are unanswered"
    ):
        ask(tmp_path, chat, 900, concurrency=4, breaker_failures=12)
    assert 12 <= sum(chat.asked.values()) <= 12 + 4


def test_answers_under_way_at_a_stop_are_kept(tmp_path: Path) -> None:
    chat = ScriptedChat()
    chat.delay = lambda prompt: 0.2 if prompt == "prompt 0" else 0.0
    scripted = chat.ask

    async def mixed(messages: Messages, max_tokens: int) -> str:
        body = await scripted(messages, max_tokens)
        if messages[0]["content"] != "prompt 0":
            raise failed(Trouble.FATAL)
        return body

    chat.ask = mixed  # type: ignore[method-assign]
    with pytest.raises(RelandError, match="9 prompts are unanswered"):
        ask(tmp_path, chat, 10, concurrency=2)
    assert usage(tmp_path) == {"m": Usage(1, *PAID)}


def test_the_budget_is_never_exceeded_and_can_be_raised(tmp_path: Path) -> None:
    bound = len("prompt 0") + 32 + 10
    chat = ScriptedChat()
    with pytest.raises(BudgetReached) as reached:
        ask(tmp_path, chat, 40, budget_tokens=150, concurrency=8)
    spent = sum(usage(tmp_path)["m"][1:])
    assert spent == 8 * sum(chat.asked.values()) == reached.value.spent_tokens <= 150
    assert spent > 150 - bound, "it stopped although there was room for another request"
    assert reached.value.left == 40 - len(chat.asked)
    chat = ScriptedChat()
    assert len(ask(tmp_path, chat, 40, budget_tokens=1000).answers) == 40
    assert len(chat.asked) == reached.value.left
    with pytest.raises(BudgetReached):
        ask(tmp_path, ScriptedChat(), 41, budget_tokens=330)


def test_a_budget_of_money(tmp_path: Path) -> None:
    prices, chat = ("m=1000000/2000000",), ScriptedChat()
    with pytest.raises(BudgetReached, match="USD"):
        ask(tmp_path, chat, 40, budget=200.0, prices=prices)
    cost = usage(tmp_path)["m"].prompt_tokens + 2 * usage(tmp_path)["m"].response_tokens
    assert 200 - 60 < cost <= 200


def test_requests_refused_for_nothing_cost_no_budget(tmp_path: Path) -> None:
    chat = ScriptedChat(failed(), failed(Trouble.LIMITED))
    assert len(ask(tmp_path, chat, 5, budget_tokens=90, concurrency=1).answers) == 5


def test_requests_and_tokens_per_minute(tmp_path: Path) -> None:
    start = time.monotonic()
    ask(tmp_path / "a", ScriptedChat(), 13, requests_per_minute=61 * 20)
    assert 0.6 <= time.monotonic() - start < 3.0
    start = time.monotonic()
    # 35 and 10 tokens are foreseen for each, and 8 used; what was not used is given back.
    ask(tmp_path / "b", ScriptedChat(), 5, tokens_per_minute=61 * 200, concurrency=1)
    assert 0.15 <= time.monotonic() - start < 3.0


def test_it_runs_inside_a_running_loop_too(tmp_path: Path) -> None:
    async def notebook() -> Asked:
        with Journal(tmp_path / "j.sqlite") as journal:
            return run_apart(lambda: ask_all(records(2), ScriptedChat(), journal, CONFIG, LLMConfig()))

    assert len(asyncio.run(notebook()).answers) == 2


def test_a_journal_that_cannot_be_written_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: Journal, receptions: list[Reception], sent: object = ()) -> None:
        raise RelandError("the disk is full")

    monkeypatch.setattr(Journal, "record", full)
    with pytest.raises(RelandError, match="the disk is full"):
        ask(tmp_path, ScriptedChat(), 50, concurrency=2)


def test_answers_come_in_groups_of_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, record = [], Journal.record

    def counted(journal: Journal, receptions: list[Reception], sent: object = ()) -> None:
        time.sleep(0.02)
        sizes.append(len(receptions))
        record(journal, receptions)

    monkeypatch.setattr(Journal, "record", counted)
    asked = ask(tmp_path, ScriptedChat(), 200, concurrency=50)
    assert len(asked.answers) == sum(sizes) == 200 and len(sizes) < 40


def test_another_job_on_the_same_journal_waits_and_asks_nothing_again(tmp_path: Path) -> None:
    chat = ScriptedChat()
    chat.delay = lambda prompt: 0.005

    async def both() -> list[Asked]:
        jobs = [ask_all(records(60), chat, journal, CONFIG, LLMConfig(concurrency=4)) for journal in journals]
        return await asyncio.gather(*jobs)

    journals = [Journal(tmp_path / "j.sqlite") for _ in range(2)]
    one, other = asyncio.run(both())
    for journal in journals:
        journal.close()
    assert one == other and len(one.answers) == 60
    assert len(chat.asked) == 60 and set(chat.asked.values()) == {1}


def test_a_cut_or_filtered_answer_is_never_used_and_asked_for_again(tmp_path: Path) -> None:
    for reason, why in (("length", "cut the answer off"), ("content_filter", "filtered the answer")):
        body = json.loads(completion(GOOD))
        body["choices"][0]["finish_reason"] = reason
        chat = ScriptedChat(json.dumps(body))
        asked = ask(tmp_path / reason, chat, 1)
        assert [answer.content for answer in asked.answers.values()] == [GOOD]
        assert len(chat.chats) == 2
        if reason == "length":  # the same prompt, and more room
            assert chat.chats[1] == chat.chats[0] and chat.rooms == [10, 10 * MORE_ROOM]
        else:
            assert why in chat.chats[1][2]["content"] and chat.rooms == [10, 10]
        never = ScriptedChat(last=json.dumps(body))
        (problem,) = ask(tmp_path / f"{reason}-never", never, 1).problems.values()
        assert len(never.chats) == 2 and problem.startswith("in quarantine") and why in problem


def test_a_malformed_answer_is_not_paid_for_again_at_any_length(tmp_path: Path) -> None:
    chat = ScriptedChat(completion(BAD + " soap" * 100_000))
    ask(tmp_path, chat, 1)
    assert len(chat.chats[1][1]["content"]) < 1100


def test_what_is_closed_and_what_may_still_come(tmp_path: Path) -> None:
    keys = [record.key for record in records(4)]
    chat = ScriptedChat()
    scripted = chat.ask

    async def mixed(messages: Messages, max_tokens: int) -> str:
        number = int(messages[0]["content"].split()[1])
        chat.last = [completion(GOOD), completion(BAD), failed(Trouble.REFUSED), failed()][number]
        return await scripted(messages, max_tokens)

    chat.ask = mixed  # type: ignore[method-assign]
    asked = ask(tmp_path, chat, 4, attempts=1, breaker_failures=0, concurrency=1)
    assert asked.answers.keys() == {keys[0]} and asked.problems.keys() == {*keys[1:]}
    assert asked.closed == {keys[1], keys[2]}, "in quarantine, and refused"


def test_a_wait_is_bounded_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chat = ScriptedChat(last=failed(Trouble.LIMITED, 3600.0))
    with pytest.raises(RelandError, match="asks to wait for 3600 s; .* at most 600 s.* 40 prompts are"):
        ask(tmp_path, chat, 40, concurrency=4)
    chat = ScriptedChat(last=failed(Trouble.LIMITED, 0.2))
    with pytest.raises(RelandError, match="asks to wait for 0 s; .* at most 0.5 s"):
        ask(tmp_path, chat, 2, breaker_failures=0, longest_wait=0.5)
    assert 2 <= chat.asked["prompt 0"] <= 4, "several waits in a row, with no answer between, add up"
    chat = ScriptedChat(failed(Trouble.LIMITED, 5.0))
    with Journal(tmp_path / "w.sqlite") as journal, pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(ask_all(records(1), chat, journal, CONFIG, LLMConfig()), 0.5))
    # With some jitter.
    assert re.search("waiting for [5-6] s as the service asks: it is limited", caplog.text)


def test_what_was_under_way_at_a_kill_is_paid_before_the_budget_is_read(tmp_path: Path) -> None:
    """A process that has ended left a note of what it had sent."""
    journal = Journal(tmp_path / "j.sqlite")  # it is never closed, as after a kill
    journal.record([], [Sent(record, 30, 10) for record in records(3)])
    chat = ScriptedChat()
    with pytest.raises(BudgetReached) as reached:
        ask(tmp_path, chat, 40, budget_tokens=200, concurrency=1)
    assert reached.value.spent_tokens <= 200 and usage(tmp_path)["m"].prompt_tokens >= 90
    assert sum(usage(tmp_path)["m"][1:]) == 120 + 8 * len(chat.asked)


def test_what_the_service_does_not_count_is_counted_at_its_most(tmp_path: Path) -> None:
    for count, paid in (
        ({"prompt_tokens": 5}, (5, 10)), ({"completion_tokens": 3}, (40, 3)), ({}, (40, 10)),
        ({"prompt_tokens": 5, "completion_tokens": -3}, (5, 10)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 30}, (5, 25)),
    ):  # fmt: skip
        body = json.loads(completion(GOOD)) | {"usage": count}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        ask(folder, ScriptedChat(json.dumps(body)), 1)
        assert usage(folder)["m"][1:] == paid


def test_a_full_disk_stops_the_job_and_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound on pages raises the error of a full disk, which the room set aside puts off."""
    record, release = Journal.record, DiskReserve.release

    def nearly_full(journal: Journal, receptions: list[Reception], sent: list[Sent] = ()) -> None:
        if receptions and not journal.out_of_room:
            pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
            journal._database.execute(f"PRAGMA max_page_count = {pages}")
        record(journal, receptions, sent)

    def released(reserve: DiskReserve) -> bool:
        journal._database.execute("PRAGMA max_page_count = 100000")
        return release(reserve)

    monkeypatch.setattr(Journal, "record", nearly_full)
    monkeypatch.setattr(DiskReserve, "release", released)
    chat = ScriptedChat(last=json.dumps(json.loads(completion(GOOD)) | {"more": "x" * 9000}))
    chat.delay = lambda prompt: 0.01
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(RelandError, match="the disk is full; .* prompts are unanswered"):
            asyncio.run(ask_all(records(40), chat, journal, CONFIG, LLMConfig(concurrency=5)))
        assert len(journal.answers([each.key for each in records(40)])) == len(chat.asked) < 40


def test_an_answer_that_came_is_on_disk_before_the_lock_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the job ends by an error that nobody foresaw; what was under way counts as paid, once."""
    record, chat = Journal.record, ScriptedChat()
    came = asyncio.Event()

    def slowly(journal: Journal, receptions: list[Reception], sent: list[Sent] = ()) -> None:
        time.sleep(0.1 if receptions else 0.0)
        record(journal, receptions, sent)

    async def broken(messages: Messages, max_tokens: int) -> str:
        if messages[0]["content"] == "prompt 0":
            came.set()
            return completion(GOOD)
        await came.wait()
        await asyncio.sleep(0.03)
        raise ZeroDivisionError

    monkeypatch.setattr(Journal, "record", slowly)
    monkeypatch.setattr(chat, "ask", broken)
    with Journal(tmp_path / "j.sqlite") as journal, pytest.raises(ZeroDivisionError):
        asyncio.run(ask_all(records(2), chat, journal, CONFIG, LLMConfig()))
    with Journal(tmp_path / "j.sqlite") as journal:
        assert set(journal.answers([each.key for each in records(2)])) == {records(1)[0].key}
        assert journal.usage()["m"].requests == 2
