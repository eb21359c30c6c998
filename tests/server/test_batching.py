"""The thread that owns the device: what is answered together, what is refused, and what nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reland_jax.server.batching import Worker
from reland_jax.server.refusals import Refusal


def worker(queue: int = 100, batch: int = 4, seconds: float = 5.0) -> tuple[Worker, list[int]]:
    """A worker that runs, and the sizes of its batches."""
    sizes = list[int]()
    found = Worker(queue, batch, seconds, sizes.append)
    found.start()
    return found, sizes


def held(event: threading.Event) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What answers only when it is let go."""

    def run(questions: Sequence[Any]) -> Sequence[Any]:
        assert event.wait(10)
        return questions

    return run


def doubled(questions: Sequence[int]) -> list[int]:
    """Twice of each."""
    return [2 * each for each in questions]


def test_what_waits_is_answered_together_by_its_kind() -> None:
    async def ask() -> list[Any]:
        event = threading.Event()
        first = asyncio.create_task(found.ask("held", held(event), "x"))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(found.ask(n % 2, doubled, n)) for n in range(12)]
        await asyncio.sleep(0.05)
        event.set()
        return [await first, *[await each for each in others]]

    found, sizes = worker()
    assert asyncio.run(ask()) == ["x", *[2 * n for n in range(12)]]
    found.stop()
    assert sizes == [1, 4, 4, 2, 2] and len(found) == 0


def test_too_many_are_refused_and_a_late_answer_too() -> None:
    async def ask() -> tuple[Refusal, Refusal]:
        event = threading.Event()
        first = asyncio.create_task(found.ask("held", held(event), "x"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(found.ask(0, doubled, n)) for n in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as full:
            await found.ask(0, doubled, 3)
        with pytest.raises(Refusal) as late:
            await first
        await asyncio.gather(*waiting, return_exceptions=True)
        event.set()
        # What nobody waits for any more was thrown away.
        assert await found.ask(0, doubled, 4) == 8
        return full.value, late.value

    found, sizes = worker(queue=2, seconds=0.3)
    full, late = asyncio.run(ask())
    found.stop()
    assert full.status == late.status == 503 and full.wait >= 1
    assert full.what == "too many requests are waiting" and late.what == "no answer within 0.3 s"
    assert sizes == [1, 1]


def test_a_failure_is_told_without_its_reason_and_the_thread_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(questions: Sequence[int]) -> list[int]:
        raise ValueError("secret of another user")

    async def ask() -> Refusal:
        with pytest.raises(Refusal) as failed:
            await found.ask(0, fails, 1)
        with pytest.raises(Refusal):
            await found.ask(0, lambda questions: [], 1)
        assert await found.ask(0, doubled, 4) == 8
        return failed.value

    found, _ = worker()
    refusal = asyncio.run(ask())
    found.stop()
    assert refusal.status == 500 and b"secret" not in refusal.body()
    assert "secret of another user" in caplog.text


def test_a_stop_answers_what_waits_and_refuses_the_rest() -> None:
    async def ask() -> Any:
        event = threading.Event()
        first = asyncio.create_task(found.ask("held", held(event), "x"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(found.ask(0, doubled, 1))
        await asyncio.sleep(0.05)
        stopped = asyncio.create_task(asyncio.to_thread(found.stop))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="stopping"):
            await found.ask(0, doubled, 1)
        event.set()
        await stopped
        return await first, await second

    found, _ = worker()
    assert asyncio.run(ask()) == ("x", 2)
