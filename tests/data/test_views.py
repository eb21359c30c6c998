"""Inputs with the same target against brute force: each once, drawn uniformly, never oneself without need."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.data.packing import Windows, prefix_windows, shifted_windows
from reland_jax.data.views import Inputs, draw_same_target, inputs_by_target, padded_inputs
from tests.toys import ragged, random_ragged

NUM_ITEMS = 7
LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


def listed(inputs: Inputs, stream: np.ndarray) -> Counter[tuple[int, tuple[int, ...]]]:
    """(target, items) of every input, by the target under which it is found."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for item in range(NUM_ITEMS + 1):
        for place in range(inputs.begin[item], inputs.begin[item + 1]):
            first, last = inputs.first[place], inputs.last[place]
            assert stream[last + 1] == item
            assert inputs.rank[last] == place
            found[item, tuple(stream[first : last + 1].tolist())] += 1
    return found


def windows_of(lengths: list[int], every_token: bool, max_length: int) -> tuple[Windows, Counter]:
    """Windows, and what a plain loop over the windows says their inputs are."""
    make = shifted_windows if every_token else prefix_windows
    windows = make(random_ragged(lengths, NUM_ITEMS), max_length)
    expected: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for start, length in zip(windows.start.tolist(), windows.length.tolist(), strict=True):
        for end in range(start + 1 if every_token else start + length, start + length + 1):
            expected[int(windows.stream[end]), tuple(windows.stream[start:end].tolist())] += 1
    return windows, expected


@pytest.mark.parametrize("every_token", [True, False], ids=["shifted", "prefix"])
@given(lengths=LENGTHS, max_length=st.integers(2, 5))
def test_every_target_has_its_input_once(every_token: bool, lengths: list[int], max_length: int) -> None:
    windows, expected = windows_of(lengths, every_token, max_length)
    assert expected.total() == sum(max(length - 1, 0) for length in lengths)
    inputs = inputs_by_target(windows, NUM_ITEMS, every_token)
    assert len(inputs.first) == len(inputs.last) == expected.total() == inputs.begin[-1]
    assert listed(inputs, windows.stream) == expected


# Item 5 is next four times, item 6 twice, item 7 once.
HISTORY = ragged([[1, 5], [2, 5, 6], [3, 4, 5], [7, 1, 6, 5], [2, 7]])


@pytest.mark.parametrize("every_token", [True, False], ids=["shifted", "prefix"])
def test_another_input_with_the_same_target_is_drawn(every_token: bool) -> None:
    windows = (shifted_windows if every_token else prefix_windows)(HISTORY, 3)
    inputs = jax.tree.map(jnp.asarray, inputs_by_target(windows, NUM_ITEMS, every_token))
    last, stream = np.asarray(inputs.last), windows.stream
    target = stream[last + 1]
    draw = jax.jit(jax.vmap(draw_same_target, in_axes=(None, None, None, 0)))
    keys = jax.random.split(jax.random.key(0), 600)
    drawn = np.asarray(draw(inputs, jnp.asarray(target), jnp.asarray(last), keys))
    place, count = np.arange(len(target)), Counter(target.tolist())
    assert (count[5], count[6], count[7]) == (4, 2, 1)
    np.testing.assert_array_equal(target[drawn], np.tile(target, (600, 1)))
    for mine in place:
        others = np.flatnonzero((target == target[mine]) & (place != mine))
        if not len(others):
            assert (drawn[:, mine] == mine).all()
            continue
        times = np.array([(drawn[:, mine] == other).sum() for other in others])
        assert times.sum() == 600, "it drew itself"
        # Six standard deviations of a binomial share.
        share = 1 / len(others)
        assert np.abs(times / 600 - share).max() <= 6 * np.sqrt(share * (1 - share) / 600)


def test_a_draw_follows_from_the_key() -> None:
    windows = shifted_windows(HISTORY, 3)
    inputs = jax.tree.map(jnp.asarray, inputs_by_target(windows, NUM_ITEMS, True))
    last = jnp.tile(inputs.last, 20)
    target = jnp.asarray(windows.stream)[last + 1]
    first, again, other = (draw_same_target(inputs, target, last, jax.random.key(key)) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("length", [1, 3, 6])
def test_padded_inputs_keep_the_newest(length: int) -> None:
    """Item, position and segment of every place, one row at a time."""
    stream = np.arange(11, 31, dtype=np.int32)
    first, last = np.array([0, 4, 4, 9, 19], np.int32), np.array([0, 6, 9, 14, 19], np.int32)
    rows = [stream[a : b + 1][-length:] for a, b in zip(first, last, strict=True)]
    arrays = jnp.asarray(stream), jnp.asarray(first), jnp.asarray(last)
    items, position, segment = map(np.asarray, padded_inputs(*arrays, length))
    assert items.shape == position.shape == segment.shape == (5, length)
    for number, row in enumerate(rows):
        newest = min(last[number] - first[number], length - 1)
        assert items[number, newest] == stream[last[number]]
        rest = [0] * (length - len(row))
        assert items[number].tolist() == [*row.tolist(), *rest]
        assert position[number].tolist() == [*range(len(row)), *rest]
        assert segment[number].tolist() == [number + 1] * len(row) + rest
