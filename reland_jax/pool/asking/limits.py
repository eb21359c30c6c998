"""Rate limits, waits after errors, and the decision to give up on a service."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class RateLimit:
    """Bounds a quantity per minute (requests, or tokens), spread evenly with bursts of one second.

    Requests above the limit wait in order of arrival. For use in one asyncio loop.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with the whole limit free.

        Args:
            per_minute: the limit; None means no limit.
            clock: seconds that never go back.
        """
        # A minute may begin with one second's burst: 61 shares keep every minute within the bound.
        self._per_second, self._clock = (per_minute or 0.0) / 61.0, clock
        self._free_at = clock()

    def reserve(self, amount: float) -> float:
        """Reserves an amount, and returns the seconds to wait before it may be used."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        start = max(self._free_at, now - 1.0)
        self._free_at = start + amount / self._per_second
        return max(0.0, start - now)

    def give_back(self, amount: float) -> None:
        """Releases a reserved amount that was not used; a negative amount reserves more."""
        if self._per_second:
            self._free_at -= amount / self._per_second


class Backoff:
    """Waits between the tries of one prompt: exponential with full jitter, never less than asked for."""

    def __init__(self, first: float = 0.5, longest: float = 60.0, seed: int | None = None) -> None:
        """Sets the bounds.

        Args:
            first: longest wait after the first failure, in seconds; it doubles with every further one.
            longest: bound of that.
            seed: of the jitter; None for one that differs from process to process.
        """
        self._first, self._longest, self._random = first, longest, random.Random(seed)

    def wait(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after that many failures of a prompt (1 or more).

        With `retry_after` (seconds, from the service) it is that plus a jitter of at most a tenth of it or
        the first wait, so that clients do not retry at the same moment.
        """
        if retry_after is not None:
            asked = max(retry_after, 0.0)
            return asked + self._random.uniform(0.0, self._first + asked / 10)
        return self._random.uniform(0.0, min(self._longest, self._first * 2.0 ** min(failures - 1, 60)))


class Patience:
    """Bounds how long a service may make a job wait (`Retry-After`) while no answer comes."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts the clock of the waiting time.

        Args:
            longest: seconds.
            clock: seconds that never go back.
        """
        self._longest, self._clock = longest, clock
        self._since: float | None = None

    def answered(self) -> None:
        """An answer came."""
        self._since = None

    def allows(self, seconds: float) -> bool:
        """Whether a wait of that many seconds, which the service asks for, is within the limit."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        return now + seconds - self._since <= self._longest


class Breaker:
    """A circuit breaker: opens after a number of failures in a row, when the service is down.

    Refusals with "too many requests" count less: concurrent ones count once, because a live service refuses
    many at a time.
    """

    def __init__(self, failures: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts closed.

        Args:
            failures: in a row that open it; 0 means never.
            clock: seconds that never go back.
        """
        self._bound, self._clock = failures, clock
        self._count, self._last_limited = 0, float("-inf")

    @property
    def open(self) -> bool:
        """Whether sending should stop."""
        return 0 < self._bound <= self._count

    def now(self) -> float:
        """The time to give to `failed` for a request that is sent now."""
        return self._clock()

    def succeeded(self) -> None:
        """The service answered."""
        if not self.open:
            self._count = 0

    def failed(self, sent_at: float, limited: bool) -> None:
        """The service did not answer a request that was sent at that time."""
        if limited and sent_at < self._last_limited:
            return
        if limited:
            self._last_limited = self._clock()
        self._count += 1


def retry_after_seconds(
    value: str | None, date: str | None = None, milliseconds: str | None = None
) -> float | None:
    """Seconds to wait by the headers of a response, None without such a header.

    Args:
        value: `Retry-After`: seconds, or an HTTP date.
        date: `Date`, the clock of the service; without it this machine's clock is used for an HTTP date.
        milliseconds: `retry-after-ms`, which some services send and which is more exact.
    """
    if (exact := _number(milliseconds)) is not None:
        return exact / 1000
    if (seconds := _number(value)) is not None:
        return seconds
    until = _moment(value)
    if until is None:
        return None
    return max(0.0, (until - (_moment(date) or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _moment(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError, OverflowError):  # a year of 20 digits
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
