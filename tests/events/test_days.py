"""Splits by days: every row in its part, gaps counted, and what cannot be split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reland_jax.events import Days, last_days, shop, split_days
from reland_jax.types import RelandError
from tests.events.toys import read_toy

SHOP = shop.generate(shop.ShopSettings(users=50, items=20, days=10, rows=400)).events
FIRST = np.datetime64("2024-01-01").astype(int)


def _day(rows: np.ndarray) -> list[int]:
    return sorted(set((SHOP.day()[rows] - FIRST).tolist()))


def test_parts_hold_their_days_and_gaps_nothing() -> None:
    split = split_days(SHOP, Days(("", "2024-01-05"), ("2024-01-07", "2024-01-07"), ("2024-01-09", "")))
    assert _day(split.train) == [0, 1, 2, 3, 4] and _day(split.valid) == [6] and _day(split.test) == [8, 9]
    day = SHOP.day() - FIRST
    assert split.left_out == int(((day == 5) | (day == 7)).sum())
    assert len(split.train) == int((day < 5).sum()) and len(split.test) == int((day > 7).sum())


def test_the_usual_split_is_the_last_days() -> None:
    days = last_days(SHOP, valid=2, test=3, gap=1)
    assert days == Days(("", "2024-01-03"), ("2024-01-05", "2024-01-06"), ("2024-01-08", ""))
    split = split_days(SHOP, days)
    assert max(_day(split.train)) < min(_day(split.valid)) <= max(_day(split.valid)) < min(_day(split.test))
    assert split_days(SHOP, last_days(SHOP)).left_out == 0


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (
            Days(("", "2024-01-05"), ("2024-01-05", "2024-01-06"), ("2024-01-07", "")),
            "valid begins on 2024-01-05",
        ),
        (
            Days(("", "2024-01-03"), ("2024-01-05", "2024-01-07"), ("2024-01-06", "")),
            "test begins on 2024-01-06",
        ),
        (
            Days(("", "2024-01-03"), ("2024-01-07", "2024-01-05"), ("2024-01-08", "")),
            "valid ends on 2024-01-05",
        ),
        (Days(("", "yesterday"), ("2024-01-05", "2024-01-06"), ("2024-01-07", "")), "train has 'yesterday'"),
        (
            Days(("", "2024-01-05"), ("2024-01-06", "2024-01-07"), ("2024-02-01", "2024-02-02")),
            "no rows in test",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(days: Days, message: str) -> None:
    with pytest.raises(RelandError, match=message):
        split_days(SHOP, days)


def test_too_few_days_are_refused(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    with pytest.raises(RelandError, match="the log has 4 days, 2022-05-01 to 2022-05-04: none is left"):
        last_days(events, valid=2, test=2)
    with pytest.raises(RelandError, match="valid=0"):
        last_days(events, valid=0)
    with pytest.raises(RelandError, match="no rows"):
        last_days(events.before(0))
