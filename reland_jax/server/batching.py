"""One thread that owns the device, and the requests that wait for it.

What waits is answered together, as many at a time as ask the same kind of question; nothing waits for
others to come. Under load the batches grow by themselves, and a single request is answered at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from reland_jax.server.refusals import Refusal, overloaded

_log = logging.getLogger(__name__)

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""Answers questions of one key, in their order; an answer that is a `Refusal` is raised to who asked."""


@dataclasses.dataclass(slots=True, eq=False)
class _Job:
    key: Hashable
    run: Run
    question: Any
    future: asyncio.Future[Any]
    deadline: float


class Worker:
    """A thread that answers questions in batches.

    Attributes:
        batch_sizes: called with the size of every batch, for the metrics.
    """

    def __init__(self, queue: int, batch: int, seconds: float, batch_sizes: Callable[[int], None]) -> None:
        """Starts nothing yet.

        Args:
            queue: questions that may wait; further ones are refused.
            batch: questions that are answered together.
            seconds: until a question that waits is given up.
            batch_sizes: see the attribute.
        """
        self.batch_sizes = batch_sizes
        self._limit, self._batch, self._seconds = queue, batch, seconds
        self._waiting, self._changed = deque[_Job](), threading.Condition()
        self._stopping, self._per_second = False, 0.0
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Answers what waits, and ends the thread; new questions are refused."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    async def ask(self, key: Hashable, run: Run, question: Any) -> Any:
        """The answer to a question.

        Args:
            key: questions of equal keys, which must have the same `run`, are answered together.
            run: answers them, in the thread.
            question: what `run` is given.

        Raises:
            Refusal: too many wait, it took too long, or the server stops; or what `run` gave.
        """
        job = _Job(
            key, run, question, asyncio.get_running_loop().create_future(), time.monotonic() + self._seconds
        )
        with self._changed:
            if self._stopping:
                raise overloaded("the server is stopping", 1)
            if len(self._waiting) >= self._limit:
                raise overloaded("too many requests are waiting", self._wait())
            self._waiting.append(job)
            self._changed.notify()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await job.future
        except TimeoutError:
            with self._changed, contextlib.suppress(ValueError):  # it may be in work
                self._waiting.remove(job)
            raise overloaded(f"no answer within {self._seconds:g} s", self._wait()) from None
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def _wait(self) -> int:
        """Seconds until what waits now is answered, at the rate of the last batches; 1 to 60."""
        return min(max(math.ceil(len(self._waiting) / max(self._per_second, 1e-9)), 1), 60)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                jobs = self._taken()
            if jobs:
                self._answer(jobs)

    def _taken(self) -> list[_Job]:
        """The first question and those of the same key; what nobody waits for any more is thrown away."""
        found, others, now = list[_Job](), deque[_Job](), time.monotonic()
        while self._waiting and len(found) < self._batch:
            job = self._waiting.popleft()
            if job.future.done() or job.deadline < now:
                continue
            (found if not found or job.key == found[0].key else others).append(job)
        self._waiting.extendleft(reversed(others))
        return found

    def _answer(self, jobs: list[_Job]) -> None:
        begun = time.monotonic()
        answers = _tried(jobs)
        rate = len(jobs) / max(time.monotonic() - begun, 1e-9)
        self._per_second = rate if not self._per_second else 0.9 * self._per_second + 0.1 * rate
        self.batch_sizes(len(jobs))
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any]]] = {}
        for job, answer in zip(jobs, answers, strict=True):
            by_loop.setdefault(job.future.get_loop(), []).append((job, answer))
        for loop, settled in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, settled)


def _tried(jobs: list[_Job]) -> Sequence[Any]:
    """The answers; of a batch that fails as a whole the reason goes to the log, and to nobody else."""
    try:
        answers = jobs[0].run([job.question for job in jobs])
        if len(answers) == len(jobs):
            return answers
        _log.error("a batch of %d questions got %d answers", len(jobs), len(answers))
    except Refusal as refusal:
        return [refusal] * len(jobs)
    except Exception:
        _log.exception("a batch of %d questions failed", len(jobs))
    return [failed()] * len(jobs)


def failed() -> Refusal:
    """What a client is told of a fault of the program."""
    return Refusal(500, "the server made a mistake", "", "tell who runs it: its log has the reason")


def _settle(settled: list[tuple[_Job, Any]]) -> None:
    for job, answer in settled:
        if not job.future.done():
            job.future.set_result(answer)
