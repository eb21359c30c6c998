"""Packed rows against brute force: every window once, its content the stream's, nothing on top of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.data.packing import (
    Layout,
    Windows,
    last_windows,
    pack,
    plan_layout,
    prefix_windows,
    shifted_windows,
    shuffle_order,
)
from reland_jax.types import Ragged
from tests.toys import random_ragged

LENGTHS = st.lists(st.integers(0, 23), min_size=1, max_size=30)
WIDTH = st.integers(2, 9)


def histories(lengths: list[int]) -> Ragged:
    """Rows whose items are all different, so that an item tells where it was taken from."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(indptr, np.arange(1, indptr[-1] + 1, dtype=np.int32))


def contents(windows: Windows) -> Counter[tuple[int, tuple[int, ...]]]:
    """(user, items) of every window, with how often it occurs."""
    cut = zip(windows.start.tolist(), windows.length.tolist(), windows.user.tolist(), strict=True)
    return Counter((user, tuple(windows.stream[s : s + n].tolist())) for s, n, user in cut)


def rows_of(history: Ragged) -> Iterator[tuple[int, list[int]]]:
    yield from ((user, history.row(user).tolist()) for user in range(history.num_rows))


@given(LENGTHS, WIDTH)
def test_prefix_windows_are_all_prefixes(lengths: list[int], max_length: int) -> None:
    history = histories(lengths)
    expected = Counter(
        (user, tuple(row[max(0, end - max_length) : end]))
        for user, row in rows_of(history)
        for end in range(1, len(row))
    )
    windows = prefix_windows(history, max_length)
    assert contents(windows) == expected
    assert (np.diff(windows.length) <= 0).all()


@given(LENGTHS, WIDTH)
def test_shifted_windows_cover_every_target_once(lengths: list[int], max_length: int) -> None:
    history = histories(lengths)
    windows = shifted_windows(history, max_length)
    targets, owner = [], np.repeat(np.arange(history.num_rows), history.lengths())
    for start, length, user in zip(windows.start, windows.length, windows.user, strict=True):
        assert 1 <= length <= max_length
        assert (owner[start : start + length + 1] == user).all(), "a target of somebody else"
        targets += windows.stream[start + 1 : start + length + 1].tolist()
    assert sorted(targets) == sorted(item for _, row in rows_of(history) for item in row[1:])
    # Cut from the end: only a user's oldest window may be shorter than L.
    short = Counter(windows.user[windows.length < max_length].tolist())
    assert all(count == 1 for count in short.values())
    for user in short:
        (start,) = windows.start[(windows.user == user) & (windows.length < max_length)]
        assert start == history.indptr[user]


@given(LENGTHS, WIDTH)
def test_last_windows_are_the_most_recent_items(lengths: list[int], max_length: int) -> None:
    history = histories(lengths)
    expected = Counter((user, tuple(row[-max_length:])) for user, row in rows_of(history) if row)
    assert contents(last_windows(history, max_length)) == expected


def occupied(layout: Layout, batch: int) -> list[int]:
    """Every token that a slot of the batch takes, with repetitions."""
    slots = zip(layout.place[batch].tolist(), layout.length[batch].tolist(), strict=True)
    return [place + offset for place, length in slots for offset in range(length)]


def check_layout(length: np.ndarray, num_batches: int, width: int) -> Layout:
    """Asserts all that a layout promises."""
    layout = plan_layout(length, num_batches, width)
    used = layout.length > 0
    assert sorted(layout.order[used].tolist()) == list(range(len(length))), "not every window once"
    assert (layout.length[used] == length[layout.order[used]]).all()
    assert (layout.place[~used] == layout.rows * width).all()
    assert (layout.order[~used] == len(length)).all()
    assert (np.diff(layout.place, axis=1) >= 0).all()
    for batch in range(num_batches):
        tokens = occupied(layout, batch)
        assert len(set(tokens)) == len(tokens), "two windows on the same token"
        assert all(0 <= token < layout.rows * width for token in tokens)
    first, last = layout.place[used] // width, (layout.place + layout.length - 1)[used] // width
    assert (first == last).all(), "a window runs over the end of its row"
    totals = layout.length.sum(1)
    assert totals.max() - totals.min() <= length.max(), "batches differ by more than one window"
    return layout


@given(st.lists(st.integers(1, 12), min_size=1, max_size=80), st.integers(1, 9), st.integers(0, 5))
def test_layout_of_any_lengths(lengths: list[int], num_batches: int, room: int) -> None:
    layout = check_layout(np.sort(np.array(lengths, np.int32))[::-1], num_batches, max(lengths) + room)
    assert int(layout.length.sum()) == sum(lengths)


@pytest.mark.parametrize("length", [26, 17])
def test_layout_of_windows_that_share_rows_badly(length: int) -> None:
    """Windows a little longer than a half or a third of a row need far more rows than their tokens fill."""
    layout = check_layout(np.full(60, length, np.int32), 2, 50)
    assert layout.rows == -(-30 // (50 // length))


def test_layout_fills_rows() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 20, 400).astype(np.int32))[::-1]
    layout = plan_layout(lengths, 4, 50)
    assert layout.rows <= -(-int(layout.length.sum(1).max()) // 50) + 2


def test_shuffle_moves_only_windows_of_equal_length() -> None:
    length = np.array([5] * 6 + [4] + [2] * 30, np.int32)
    orders = np.stack([shuffle_order(jax.random.key(seed), length) for seed in range(40)])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(37), (40, 1)))
    np.testing.assert_array_equal(length[orders], np.tile(length, (40, 1)))
    # Each of the six longest comes first about as often: chance below 1e-4 for fewer than 1 or more than 18.
    first = np.bincount(orders[:, 0], minlength=6)
    assert first.min() >= 1 and first.max() <= 18
    assert (orders[:, 6] == 6).all()
    np.testing.assert_array_equal(orders[0], shuffle_order(jax.random.key(0), length))


CASES = {
    "several in a row": ([7, 1, 3, 0, 5, 2, 2, 1, 6, 4, 9, 3], prefix_windows, 3),
    "longer than a row": ([30, 2, 17, 1, 9], shifted_windows, 4),
    "more batches than windows": ([3, 2], last_windows, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_of_packed_rows(case: str) -> None:
    """All windows once, each under its own segment, with its own items in order and nothing else."""
    lengths, make, num_batches = CASES[case]
    windows = make(random_ragged(lengths, 40), 8)
    layout = plan_layout(windows.length, num_batches, 8)
    shuffled = np.asarray(shuffle_order(jax.random.key(1), windows.length))
    packed_batch = jax.jit(pack, static_argnums=(4, 5))
    device = Windows(*map(jax.numpy.asarray, windows))
    seen: list[int] = []
    for batch in range(num_batches):
        chosen = shuffled[np.minimum(layout.order[batch], len(shuffled) - 1)]
        arrays = (layout.place[batch], layout.length[batch], chosen)
        items, position, segment, window = map(
            np.asarray, packed_batch(device, *arrays, layout.rows, layout.width)
        )
        assert not items[segment == 0].any()
        for number in np.unique(segment[segment > 0]):
            row, column = np.nonzero(segment == number)
            (which,) = set(window[row, column].tolist())
            start, length = windows.start[which], windows.length[which]
            assert (row == row[0]).all() and (np.diff(column) == 1).all() and len(column) == length
            np.testing.assert_array_equal(items[row, column], windows.stream[start : start + length])
            np.testing.assert_array_equal(position[row, column], np.arange(length))
            seen.append(which)
    assert sorted(seen) == list(range(len(windows.length)))
