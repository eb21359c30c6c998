"""Days of a log, stored apart from users and items, are the log again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reland_jax.events import encode, fit
from reland_jax.events.contract import Events
from reland_jax.events.parts import catalogue_of, joined, load_rows, save_rows
from reland_jax.types import RelandError
from tests.events.toys import read_toy


def apart(events: Events, folder: Path) -> list[Events]:
    catalogue = catalogue_of(events)
    found = []
    for day in np.unique(events.day()).tolist():
        place = folder / str(day)
        place.mkdir()
        save_rows(events.take(np.flatnonzero(events.day() == day)), place)
        found.append(load_rows(catalogue, place))
    return found


def test_the_days_of_a_log_are_the_log(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    days = apart(events, tmp_path)
    whole = joined(days)
    assert [day.num_rows for day in days] == [2, 1, 2, 1] and catalogue_of(events).num_rows == 0
    encoding = fit(events, np.arange(4), min_count=1)
    ours, theirs = encode(encoding, whole), encode(encoding, events)
    for mine, given in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_array_equal(mine, given)
    for mine, given in zip(ours.sides, theirs.sides, strict=True):
        np.testing.assert_array_equal(mine.categorical, given.categorical)
        np.testing.assert_array_equal(mine.numeric, given.numeric)
    assert whole.time.tolist() == events.time.tolist()
    assert not list(tmp_path.rglob("users.np*"))


def test_days_in_another_order_are_refused(tmp_path: Path) -> None:
    days = apart(read_toy(tmp_path), tmp_path)
    with pytest.raises(RelandError, match="not in the order of time"):
        joined(days[::-1])
