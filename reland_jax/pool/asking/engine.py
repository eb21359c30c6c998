"""The engine that sends prompts to an LLM service: each once, within all limits, without losing an answer.

Every answer is journalled before it is used. The engine may be stopped at any moment, even killed; started
again, it sends only prompts without an accepted answer. Its result does not depend on the order in which
answers arrived, nor on interruptions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import format_messages
from reland_jax.pool.asking.chat import Chat, ChatError, Trouble
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.limits import Backoff, Breaker, Patience, RateLimit
from reland_jax.pool.asking.money import Budget
from reland_jax.pool.asking.recorder import Recorder
from reland_jax.pool.asking.records import (
    ACCEPTED,
    REMOVED,
    UNREADABLE,
    Malformed,
    Reception,
    RequestRecord,
    Sent,
)
from reland_jax.pool.asking.replies import (
    Asked,
    Judge,
    Turn,
    judge_for,
    no_reception,
    reception_of,
    turn_of,
)
from reland_jax.pool.asking.reserve import BYTES_PER_REQUEST
from reland_jax.pool.prompting.tokens import TokenCounter, chat_bound, chat_tokens, token_counter
from reland_jax.progress import Progress
from reland_jax.types import RelandError

_log = logging.getLogger(__name__)

LIMITED_TRIES = 10
"""How often "too many requests" counts as one of `config.llm.attempts`."""

_OPEN_PER_SLOT = 4
"""Prompts in progress per concurrent request: while one is sent, the others wait to retry or for a slot."""

_WATCH_SECONDS = 1.0
"""Interval at which `may_ask` is checked, in seconds."""

_TOLD_FROM_SECONDS, _TELL_SECONDS = 5.0, 30.0
"""Waits of at least the first duration are logged, and at most one per second duration, in seconds."""

_QUARANTINE = "in quarantine, malformed again at the second try: {}"


async def ask_all(
    requests: Sequence[RequestRecord],
    chat: Chat,
    journal: Journal,
    config: PoolConfig,
    llm: LLMConfig,
    *,
    judge: Judge | None = None,
    backoff: Backoff | None = None,
) -> Asked:
    """Asks every prompt that has no accepted answer in the journal, and returns the answers to all.

    If the judge rejects an answer, the prompt is sent again once, with the reason, or with a larger token
    limit if the answer was cut off. After a second rejection the prompt is in quarantine and is not sent
    again. While another process uses the same journal, this call waits.

    Args:
        requests: the prompts; duplicates are sent once.
        chat: the service.
        journal: open; this call holds its lock.
        config: model, tokenizer and token limit of an answer.
        llm: limits, budget, tries.
        judge: which answers are usable; those with a rationale by default.
        backoff: waits between tries.

    Raises:
        BudgetReached: the budget is used up; pending requests were waited for.
        RelandError: the service is down or refuses this key or model, or the journal cannot be written.
    """
    distinct = list({request.key: request for request in requests}.values())
    for seconds in journal.lock():
        await asyncio.sleep(seconds)
    try:
        # Requests that were pending when a process ended count as paid by now.
        job = _Job(chat, journal, config, llm, judge or judge_for(config), backoff or Backoff())
        return await job.run(distinct)
    finally:
        with suppress(RelandError):  # a journal that cannot be written has raised its error already
            journal.release()


def run_apart(coroutine: Callable[[], Coroutine[None, None, Asked]]) -> Asked:
    """Runs the engine from synchronous code, in a notebook too."""
    from concurrent.futures import ThreadPoolExecutor

    if not _in_a_loop():
        return asyncio.run(coroutine())
    with ThreadPoolExecutor(1) as thread:  # a loop cannot be started inside a running one
        return thread.submit(lambda: asyncio.run(coroutine())).result()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Item(NamedTuple):
    """A prompt with its chat, and the expected and the largest number of tokens of the request."""

    request: RequestRecord
    turn: Turn
    tokens: int
    bound: int


class _Stopped(Exception):
    """The job was stopped before the request was sent."""


def settled_in_journal(keys: Sequence[str], journal: Journal) -> Asked:
    """The prompts that the journal settles without asking: answers, and reasons for quarantine."""
    quarantined = journal.quarantined(keys)
    problems = {key: _QUARANTINE.format(why) for key, why in quarantined.items()}
    return Asked(journal.answers(keys), problems, frozenset(problems))


class _Job:
    """One call of `ask_all`."""

    def __init__(
        self, chat: Chat, journal: Journal, config: PoolConfig, llm: LLMConfig, judge: Judge, backoff: Backoff
    ) -> None:
        self._journal, self._llm, self._stopped = journal, llm, asyncio.Event()
        self._chat, self._config, self._judge, self._backoff = chat, config, judge, backoff
        self._counter: TokenCounter = token_counter(config)
        self._budget = Budget(llm, config.model, journal.usage())
        self._requests, self._tokens = RateLimit(llm.requests_per_minute), RateLimit(llm.tokens_per_minute)
        self._breaker, self._patience = Breaker(llm.breaker_failures), Patience(llm.longest_wait)
        self._told = -_TELL_SECONDS
        self._slots, self._under_way, self._room = asyncio.Semaphore(llm.concurrency), 0, asyncio.Event()
        # A few are journalled while all slots of the service are taken, so that none waits for the disk.
        self._ahead = asyncio.Semaphore(llm.concurrency + llm.concurrency // 4)
        self._recorder, self._asked = Recorder(journal), Asked({}, {})
        self._malformed: dict[str, Malformed] = {}
        self._why_stopped: Callable[[int], RelandError] | None = None

    async def run(self, requests: Sequence[RequestRecord]) -> Asked:
        """Asks until all prompts are settled or the job is stopped."""
        all_keys = [request.key for request in requests]
        self._asked = await asyncio.to_thread(settled_in_journal, all_keys, self._journal)
        to_ask = [request for request in requests if not self._is_settled(request.key)]
        if to_ask:
            keys = [request.key for request in to_ask]
            self._malformed = await asyncio.to_thread(self._journal.malformed, keys)
            room = BYTES_PER_REQUEST * min(self._llm.concurrency, len(to_ask))
            await asyncio.to_thread(self._journal.hold_room, room)
        workers = min(_OPEN_PER_SLOT * self._llm.concurrency, len(to_ask))
        left, done = iter(to_ask), len(requests) - len(to_ask)
        with Progress("ask", len(requests), "prompt", done=done) as self._progress:
            try:
                await _together([self._work(left) for _ in range(workers)], self._watch())
            finally:
                await self._recorder.finish()
        if self._why_stopped:
            raise self._why_stopped(sum(not self._is_settled(request.key) for request in requests))
        return self._asked

    def _item(self, request: RequestRecord, malformed: Malformed | None) -> _Item:
        """The prompt with its chat: the first one, or that after a malformed answer."""
        turn, counter = turn_of(request.prompt, malformed, self._config), self._counter
        read = [*turn.messages, *format_messages(self._config)]
        return _Item(request, turn, chat_tokens(counter, read), chat_bound(counter, read))

    def _settled(self, asked: Asked) -> None:
        """Records the outcome of settled prompts."""
        self._asked.answers.update(asked.answers)
        self._asked.problems.update(asked.problems)
        self._asked = self._asked._replace(closed=self._asked.closed | asked.closed)
        money = "" if self._budget.spent is None else f", {self._budget.spent:.4f} {self._llm.currency}"
        settled = len(asked.answers) + len(asked.problems)
        self._progress.advance(settled, f"{self._budget.spent_tokens:,} tokens{money}")

    async def _pause(self, seconds: float) -> None:
        """Waits, at most until the job is stopped."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            pass

    def _is_settled(self, key: str) -> bool:
        return key in self._asked.answers or key in self._asked.problems

    def _stop(self, why: Callable[[int], RelandError]) -> None:
        """Stops sending; the first error is kept."""
        self._why_stopped = self._why_stopped or why
        self._stopped.set()
        self._room.set()

    def _stop_until(self, then: str, why: str) -> None:
        """Stops sending, with advice on how to continue."""
        self._stop(lambda left: RelandError(
            f"{why}; {left} prompts are unanswered. Every answer so far is in {self._journal.path}: {then}"
            "run the same command again"
        ))  # fmt: skip

    async def _work(self, left: Iterator[RequestRecord]) -> None:
        """One of the workers, which share an iterator over the prompts."""
        for request in left:
            if self._stopped.is_set():
                return
            if await self._allows(request.prompt):
                await self._settle(self._item(request, self._malformed.get(request.key)))
            else:
                self._give_up(request, REMOVED, closed=True)

    async def _watch(self) -> None:
        """Stops the job when asking is forbidden, even while all workers wait to retry."""
        while self._journal.is_guarded:
            await asyncio.sleep(_WATCH_SECONDS)
            await self._allows("")

    async def _settle(self, item: _Item) -> None:
        """Asks one prompt until it has an answer, is given up, or the job is stopped."""
        failures = limited = 0
        while not self._stopped.is_set():
            try:
                reception = await self._once(item)
            except _Stopped:
                return
            except ChatError as error:
                limited += error.trouble is Trouble.LIMITED
                failures += error.trouble is not Trouble.LIMITED
                if error.trouble is Trouble.REFUSED:
                    self._give_up(item.request, error.why, closed=True)
                    return
                tries = failures + limited
                if failures + limited // LIMITED_TRIES >= self._llm.attempts:
                    self._give_up(item.request, f"no answer in {tries} tries; the last error: {error.why}")
                    return
                await self._wait(self._backoff.wait(tries, error.retry_after), error)
                continue
            if reception.kind == ACCEPTED or item.turn.again:
                self._settled(_outcome(reception))
                return
            malformed = Malformed(reception.answer.content, reception.why, reception.kind)
            item, failures, limited = self._item(item.request, malformed), 0, 0

    def _give_up(self, request: RequestRecord, why: str, closed: bool = False) -> None:
        self._settled(Asked({}, {request.key: why}, frozenset({request.key} if closed else ())))

    async def _wait(self, seconds: float, error: ChatError) -> None:
        """Waits before another try, and reports long waits; stops the job if the wait would be too long."""
        if error.retry_after is not None and not self._patience.allows(seconds):
            self._stop_until(
                "when that is over, ",
                f"{error.why}; the service asks to wait for {error.retry_after:.0f} s; without an answer "
                f"meanwhile this job waits at most {self._llm.longest_wait:g} s (config.llm.longest_wait)",
            )
            return
        now = asyncio.get_running_loop().time()
        if seconds >= _TOLD_FROM_SECONDS and now - self._told >= _TELL_SECONDS:
            self._told = now
            said = "as the service asks" if error.retry_after is not None else "before another try"
            _log.warning("waiting for %.0f s %s: %s", seconds, said, error.why)
        await self._pause(seconds)

    async def _once(self, item: _Item) -> Reception:
        """Sends one request and journals the answer; the slot of the service is free while it is written.

        Raises:
            ChatError: there is no answer.
            _Stopped: the job was stopped before sending.
        """
        reserved = (item.bound, item.turn.max_tokens)
        async with self._ahead:
            await self._reserve(reserved)
            # On disk before it is sent, so that it counts as paid if this process is killed.
            await self._recorder.record(Sent(item.request, *reserved))
            async with self._slots:
                await self._turn(item)
                reception: Reception | None = None
                error: ChatError | None = None
                if not await self._allows(item.request.prompt):
                    error = ChatError(Trouble.REFUSED, REMOVED)
                elif not self._stopped.is_set():
                    reception, error = await self._send(item, reserved)
            self._release(reserved, reception.paid if reception else (0, 0))
        if reception and not await self._allows(item.request.prompt):
            reception = no_reception(item.request, REMOVED, item.turn, reception.paid)  # paid, not kept
            error = ChatError(Trouble.REFUSED, REMOVED)
        await self._recorder.record(reception or Sent(item.request, 0, 0))
        if self._journal.out_of_room:
            self._stop_until("make room and ", f"{self._journal.path}: the disk is full")
        if error:
            raise error
        if reception is None:
            raise _Stopped
        return reception

    async def _allows(self, prompt: str) -> bool:
        """Whether the prompt may be sent; stops the job if asking is forbidden."""
        if not self._journal.is_guarded:
            return True
        try:
            return await asyncio.to_thread(self._journal.allows, prompt)
        except RelandError as error:
            why = str(error)
            self._stop(lambda left: RelandError(f"{why} ({left} prompts are unanswered)"))
            return True

    async def _send(
        self, item: _Item, reserved: tuple[int, int]
    ) -> tuple[Reception | None, ChatError | None]:
        """Sends one request; returns its journal entry, and the error if there is no answer."""
        reception, sent = None, self._breaker.now()
        try:
            async with asyncio.timeout(self._llm.timeout_seconds):
                raw = await self._chat.ask(item.turn.messages, item.turn.max_tokens)
        except TimeoutError:
            error = ChatError(Trouble.UNANSWERED, f"no answer in {self._llm.timeout_seconds:g} s")
        except ChatError as raised:
            error = raised
        else:
            reception = reception_of(item.request, raw, self._judge, item.turn, reserved)
            if reception.kind != UNREADABLE:
                self._breaker.succeeded()
                self._patience.answered()
                self._correct(item, reception)
                return reception, None
            error = ChatError(Trouble.FAILED, reception.why)
        if error.trouble is Trouble.UNANSWERED:
            reception = no_reception(item.request, error.why, item.turn, reserved)
        self._failed(error, sent)
        return reception, error

    def _failed(self, error: ChatError, sent: float) -> None:
        """Stops the job if the service is down, or refuses this key or model."""
        if error.trouble is Trouble.FATAL:
            self._stop_until("once this is put right, ", error.why)
            return
        self._breaker.failed(sent, error.trouble is Trouble.LIMITED)
        if self._breaker.open:
            self._stop_until(
                "when the service works again, ",
                f"{self._llm.breaker_failures} requests in a row failed (config.llm.breaker_failures), the "
                f"last one: {error.why}",
            )

    async def _reserve(self, reserved: tuple[int, int]) -> None:
        """Reserves the largest cost of a request; waits for others to settle if the budget has no room.

        Raises:
            _Stopped: there is no room left in the budget, and the job is stopped.
        """
        while not self._budget.reserve(*reserved):
            if not self._under_way:
                self._stop(self._budget.reached)
            if self._stopped.is_set():
                raise _Stopped
            self._room.clear()
            await self._room.wait()
        self._under_way += 1

    def _release(self, reserved: tuple[int, int], paid: tuple[int, int]) -> None:
        self._budget.settle(reserved, paid)
        self._under_way -= 1
        self._room.set()

    async def _turn(self, item: _Item) -> None:
        """Waits until the limits per minute allow the request."""
        delay = self._requests.reserve(1)
        delay = max(delay, self._tokens.reserve(item.tokens + item.turn.max_tokens))
        if delay:
            await self._pause(delay)

    def _correct(self, item: _Item, reception: Reception) -> None:
        """Corrects the limit per minute by the actual usage, if the service reports it."""
        used = reception.answer.prompt_tokens + reception.answer.response_tokens
        if used:
            self._tokens.give_back(item.tokens + item.turn.max_tokens - used)


def _outcome(reception: Reception) -> Asked:
    """The outcome of a prompt: a usable answer, or quarantine."""
    key = reception.request.key
    if reception.kind == ACCEPTED:
        return Asked({key: reception.answer}, {})
    return Asked({}, {key: _QUARANTINE.format(reception.why)}, frozenset({key}))


async def _together(work: Sequence[Coroutine[None, None, None]], beside: Coroutine[None, None, None]) -> None:
    """Runs the work, and a second coroutine until the work ends; the first error ends both."""
    tasks, background = [asyncio.create_task(one) for one in work], asyncio.create_task(beside)
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in [*tasks, background]:
            task.cancel()
        await asyncio.gather(*tasks, background, return_exceptions=True)
