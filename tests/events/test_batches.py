"""Batches: every row once an epoch, fixed shapes, and the same at every step whoever asks."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.events import Batches
from reland_jax.types import RelandError

ROWS = np.arange(100, 123)


def _epoch(batches: Batches, epoch: int) -> list[int]:
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    found = [batches.at(step) for step in steps]
    assert {each.rows.shape for each in found} == {(batches.size // batches.processes,)}
    return [row for each in found for row in each.rows[each.weight > 0].tolist()]


def test_every_row_is_there_once_an_epoch_in_another_order() -> None:
    batches = Batches(ROWS, size=5, seed=3)
    assert batches.steps_per_epoch == 5
    first, second = _epoch(batches, 0), _epoch(batches, 1)
    assert sorted(first) == sorted(second) == ROWS.tolist()
    assert first != second and first != ROWS.tolist()
    assert batches.at(4).weight.tolist() == [1, 1, 1, 0, 0]


def test_a_step_depends_on_nothing_before_it() -> None:
    whole = Batches(ROWS, size=4, seed=1)
    steps = [whole.at(step).rows for step in range(20)]
    resumed = Batches(ROWS, size=4, seed=1)
    for step in (13, 2, 19):
        np.testing.assert_array_equal(resumed.at(step).rows, steps[step])
    assert not np.array_equal(Batches(ROWS, size=4, seed=2).at(0).rows, steps[0])


def test_without_a_seed_the_order_stays() -> None:
    assert _epoch(Batches(ROWS, size=7, seed=None), 2) == ROWS.tolist()


def test_processes_share_the_batch_of_one() -> None:
    alone = Batches(ROWS, size=6, seed=8)
    parts = [Batches(ROWS, size=6, seed=8, process=each, processes=3) for each in range(3)]
    for step in range(9):
        shared = [part.at(step) for part in parts]
        np.testing.assert_array_equal(np.concatenate([each.rows for each in shared]), alone.at(step).rows)
        np.testing.assert_array_equal(np.concatenate([each.weight for each in shared]), alone.at(step).weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ROWS[:0]}, "no rows"),
        ({"processes": 3}, "4 rows cannot be shared by 3"),
        ({"process": 2, "processes": 2}, "process 2 is not one of 2"),
        ({"size": 0}, "a batch of 0 rows"),
    ],
)
def test_bad_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        Batches(**({"rows": ROWS, "size": 4} | changes))  # type: ignore[arg-type]
    with pytest.raises(RelandError, match="step -1"):
        Batches(ROWS, 4).at(-1)
