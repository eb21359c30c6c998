"""Requests over HTTP at a given rate, and how long each of them took."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import numpy as np

LOST = 0
"""The status of a request that no answer came to."""


class Load(NamedTuple):
    """What a stretch of load showed.

    Attributes:
        asked: requests a second that were due.
        answered: answers with status 200 a second.
        seconds: how long it took.
        p50: milliseconds from when a request was due to its answer, of half of those with status 200.
        p99: the same of 99 in a hundred.
        statuses: how many answers had which status; `LOST` counts those that never came.
    """

    asked: float
    answered: float
    seconds: float
    p50: float
    p99: float
    statuses: dict[int, int]


class Clients:
    """Connections that are kept open."""

    def __init__(self, host: str, port: int, bodies: Sequence[bytes], path: str = "/recommend") -> None:
        """Opens nothing yet.

        Args:
            host: of the server.
            port: of the server.
            bodies: of the requests, which are sent in turn.
            path: that they are posted to.
        """
        self._host, self._port = host, port
        self._requests = itertools.cycle([_request(path, body) for body in bodies])
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def open(self, count: int) -> AsyncIterator[Clients]:
        """Opens connections, and closes them afterwards."""
        for _ in range(count):
            self._free.put_nowait(await asyncio.open_connection(self._host, self._port))
        try:
            yield self
        finally:
            while not self._free.empty():
                self._free.get_nowait()[1].close()

    async def at_rate(self, rate: float, seconds: float) -> Load:
        """Asks at a rate, whether answers come or not."""
        found, under_way = list[tuple[int, float]](), set[asyncio.Task[None]]()

        async def one(due: float) -> None:
            found.append(await self._ask(due))

        with _undisturbed():
            begun = time.perf_counter()
            for number in range(round(rate * seconds)):
                due = begun + number / rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                under_way.add(task := asyncio.create_task(one(due)))
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)
            return _told(rate, begun, found)

    async def as_fast_as_possible(self, at_once: int, seconds: float) -> Load:
        """Asks anew whenever an answer has come."""
        async def one() -> list[tuple[int, float]]:
            found = []
            while time.perf_counter() < begun + seconds:
                found.append(await self._ask(time.perf_counter()))
            return found

        with _undisturbed():
            begun = time.perf_counter()
            found = await asyncio.gather(*(one() for _ in range(at_once)))
            together = list(itertools.chain(*found))
            return _told(len(together) / (time.perf_counter() - begun), begun, together)

    async def _ask(self, due: float) -> tuple[int, float]:
        """The status and the seconds since the request was due."""
        reader, writer = await self._free.get()
        try:
            writer.write(next(self._requests))
            status = await _status(reader)
        except (OSError, EOFError, ValueError):
            writer.close()
            status = LOST
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        self._free.put_nowait((reader, writer))
        return status, time.perf_counter() - due


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No search for garbage here meanwhile: it would hold up the requests and count as the server's time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """Reads one answer to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def _told(rate: float, begun: float, found: Sequence[tuple[int, float]]) -> Load:
    seconds, statuses = time.perf_counter() - begun, Counter(status for status, _ in found)
    good = [1e3 * took for status, took in found if status == 200] or [float("nan")]
    p50, p99 = np.percentile(good, [50, 99]).tolist()
    return Load(rate, statuses[200] / seconds, seconds, p50, p99, dict(statuses))


def shares(text: Sequence[str]) -> Iterator[float]:
    """Shares of the capacity as they are written, in percent."""
    for each in text:
        yield float(each) / 100
