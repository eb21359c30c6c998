"""Limits per minute, waits between tries, and the breaker, with a clock that only moves when told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.asking.limits import Backoff, Breaker, Patience, RateLimit, retry_after_seconds


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(limit: RateLimit, clock: Clock, amounts: list[float], idle: list[float]) -> list[tuple[float, float]]:
    """(time of use, amount) of requests that come one after the other, each after a pause."""
    used = []
    for amount, pause in zip(amounts, idle, strict=True):
        clock.now += pause
        used.append((clock.now + limit.reserve(amount), amount))
    return used


@given(st.lists(st.floats(0.0, 200.0), min_size=1, max_size=300), st.sampled_from([30, 60, 600]))
def test_no_minute_has_more_than_the_bound(idle: list[float], per_minute: int) -> None:
    clock = Clock()
    used = run(RateLimit(per_minute, clock), clock, [1.0] * len(idle), idle)
    for start, _ in used:
        # One request may stand on each edge of the minute.
        assert sum(start <= time < start + 60 for time, _ in used) <= per_minute + 1


def test_a_waiting_line_is_served_at_the_bound() -> None:
    clock = Clock()
    used = run(RateLimit(600, clock), clock, [1.0] * 601, [0.0] * 601)
    assert used[-1][0] - used[0][0] == pytest.approx(61.0)
    assert [time for time, _ in used] == sorted(time for time, _ in used)


def test_what_was_not_used_is_given_back() -> None:
    clock = Clock()
    limit = RateLimit(61, clock)
    assert limit.reserve(100) == 0.0
    limit.give_back(90)
    assert limit.reserve(1) == pytest.approx(10.0)


def test_no_bound_means_no_wait() -> None:
    limit = RateLimit(0)
    assert [limit.reserve(1e9) for _ in range(5)] == [0.0] * 5


def test_jitter_is_full_and_its_bound_doubles() -> None:
    backoff = Backoff(first=1.0, longest=8.0, seed=0)
    for failures, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (50, 8.0), (5000, 8.0)]:
        waits = [backoff.wait(failures) for _ in range(400)]
        assert 0.0 <= min(waits) < 0.1 * bound and 0.9 * bound < max(waits) <= bound
        assert sum(waits) / len(waits) == pytest.approx(bound / 2, rel=0.1)


def test_a_wait_is_never_shorter_than_asked_for() -> None:
    backoff = Backoff(first=0.5, seed=0)
    waits = [backoff.wait(1, 20.0) for _ in range(200)]
    assert min(waits) >= 20.0 and max(waits) <= 22.5 and len(set(waits)) > 100
    assert 0.0 <= backoff.wait(1, -5.0) <= 0.5


def test_a_service_may_make_a_job_wait_for_so_long_and_no_longer() -> None:
    clock = Clock()
    patience = Patience(100.0, clock)
    assert patience.allows(100.0) and not patience.allows(100.5)
    clock.now += 60.0
    assert patience.allows(40.0) and not patience.allows(41.0), "no answer came since the first wait"
    patience.answered()
    assert patience.allows(100.0)
    clock.now += 1e9  # the service was slow, and did not ask to wait
    patience.answered()
    assert patience.allows(100.0) and not patience.allows(float("inf"))


def test_the_breaker_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(3)
    for _ in range(2):
        breaker.failed(0.0, limited=False)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0.0, limited=False)
    assert not breaker.open
    breaker.failed(0.0, limited=False)
    assert breaker.open
    breaker.succeeded()
    assert breaker.open, "the job is being stopped; a late answer changes nothing"


def test_requests_turned_away_together_count_once() -> None:
    clock = Clock()
    breaker = Breaker(3, clock)
    for _ in range(3):
        sent = breaker.now()
        clock.now += 1.0
        assert not breaker.open
        for _ in range(64):
            breaker.failed(sent, limited=True)
    assert breaker.open


def test_a_breaker_without_bound_never_opens() -> None:
    breaker = Breaker(0)
    for _ in range(100):
        breaker.failed(0.0, limited=False)
    assert not breaker.open


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (("12", None, None), 12.0),
        (("0.5", None, None), 0.5),
        (("12", None, "250"), 0.25),
        (("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", None), 30.0),
        (("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:30 GMT", None), 0.0),
        (("Wed, 21 Oct 2015 07:28:30 GMT", None, None), 0.0),
        ((None, None, None), None),
        (("soon", None, None), None),
        (("-3", None, None), None),
        (("nan", None, "inf"), None),
        (("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None, None), None),
        (("7", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None), 7.0),
    ],
)
def test_retry_after(headers: tuple[str | None, str | None, str | None], seconds: float | None) -> None:
    assert retry_after_seconds(*headers) == seconds


@given(st.text(), st.text(), st.text())
def test_retry_after_of_any_text(value: str, date: str, milliseconds: str) -> None:
    seconds = retry_after_seconds(value, date, milliseconds)
    assert seconds is None or 0.0 <= seconds < float("inf")
