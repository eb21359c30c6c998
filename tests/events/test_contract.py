"""What a schema refuses, and a log without its later rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reland_jax.events import Feature, Label, Multi, Schema, refuse_later
from reland_jax.types import Ragged, RelandError
from tests.events.toys import DAY, LABELS, START, read_toy


def _schema(*features: Feature, labels: tuple[Label, ...] = LABELS) -> Schema:
    return Schema("user_id", "item_id", "time", labels, features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _schema(labels=()), "declares no label"),
        (lambda: _schema(labels=(Label("a"), Label("a"))), "'a' is declared twice"),
        (
            lambda: _schema(labels=(Label("buy", given="click"), Label("click"))),
            "given 'click', which is not",
        ),
        (lambda: _schema(Feature("is_click", "numeric", "context")), "is the label 'click'"),
        (lambda: _schema(Feature("x", "numeric", "context", " Buy")), "is the label 'buy'"),
        (
            lambda: _schema(Feature("x", "numeric", "context", "n"), labels=(Label("a", "n"),)),
            "is the label 'a'",
        ),
        (lambda: _schema(Feature("item_id", "numeric", "item")), "every log has it anyway"),
        (lambda: _schema(*[Feature("x", "multi", "item")] * 2), "'x' is declared twice; rename"),
        (
            lambda: _schema(Feature("x", "number", "item")),
            "kind 'number' is not known; did you mean 'numeric'",
        ),
        (lambda: _schema(Feature("weight", "numeric", "user")), "is a column of every batch"),
        (lambda: _schema(labels=(Label("scenario"),)), "is a column of every batch"),
        (lambda: _schema(Feature("x", "multi", "video")), "side 'video' is not known"),
        (lambda: _schema(Feature("x", "multi", "user", shares="videos")), "share the vocabulary of 'videos'"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Schema], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        make()


def test_an_unknown_label_is_named() -> None:
    assert _schema().label("buy").given == "click"
    with pytest.raises(RelandError, match="label 'bye' is not declared"):
        _schema().label("bye")


def test_rows_of_lists() -> None:
    lists = Ragged(np.array([0, 2, 2, 3]), np.array([7, 8, 9], np.int32))
    found = lists.take(np.array([2, 1, 0, 0]))
    assert [found.row(row).tolist() for row in range(4)] == [[9], [], [7, 8], [7, 8]]


def test_a_log_as_it_was_has_no_later_row(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    until = START + 2 * DAY
    before = events.before(until)
    assert before.num_rows == 3 and before.time.max() < until
    assert before.num_users == events.num_users  # ids stay the same
    hour = before.features["hour"]
    assert not isinstance(hour, np.ndarray | Multi) and len(hour.code) == 3
    refuse_later(before, until, "training")
    with pytest.raises(RelandError, match=r"training may only see .*2022-05-03.*3 of 6 rows are not"):
        refuse_later(events, until, "training")
    # A row at that very time is not before it.
    assert events.before(int(events.time[2])).num_rows == 2


def test_days_are_by_the_clock_of_the_schema(tmp_path: Path) -> None:
    events = read_toy(tmp_path)
    first = START // DAY
    assert (events.day() - first).tolist() == [0, 0, 1, 2, 2, 3]
    late = events._replace(schema=events.schema.__class__(
        "user_id", "item_id", "time", LABELS, events.schema.features, "tab", "milliseconds", -1.0
    ))  # fmt: skip
    assert (late.day() - first).tolist() == [-1, -1, 0, 1, 1, 2]
