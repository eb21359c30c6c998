"""Inputs with the same target against brute force: each once, drawn uniformly, never oneself without need;
and how they share rows."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.data.packing import Windows, prefix_windows, shifted_windows
from reland_jax.data.views import (
    InputsByTarget,
    RowPlan,
    draw_same_target,
    inputs_by_target,
    pack_rows,
    plan_rows,
)
from tests.toys import ragged, random_ragged

NUM_ITEMS = 7
LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


def listed(inputs: InputsByTarget, stream: np.ndarray) -> Counter[tuple[int, tuple[int, ...]]]:
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


# --- rows -------------------------------------------------------------------------------------

# One number of inputs, some of them not used, and few widths: each other shape is compiled anew.
RUNS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9)), min_size=12, max_size=12)
SHARE = st.sampled_from((1, 2, 5))
PACK = jax.jit(pack_rows, static_argnums=(3, 4))
STREAM = np.arange(11, 41, dtype=np.int32)


def shelved(first: list[int], length: list[int], row_plan: RowPlan, rows: int) -> list[list[int]]:
    """The items of every input as they lie in the rows, oldest first; [] for an input that is not used."""
    last = jnp.asarray(first) + jnp.asarray(length) - 1
    packed, newest = PACK(jnp.asarray(STREAM), jnp.asarray(first), last, row_plan, rows)
    assert packed.items.shape == (rows, row_plan.width)
    items, position, segment = (np.asarray(a).reshape(-1) for a in packed[:3])
    assert ((items == 0) == (segment == 0)).all()
    found, tokens = [], 0
    for at, used in zip(newest.tolist(), length, strict=True):
        mine = np.flatnonzero(segment == segment[at]) if used else np.zeros(0, int)
        assert position[mine].tolist() == list(range(len(mine)))
        assert not used or (mine[-1] == at and len(set(mine // row_plan.width)) == 1)
        found.append(items[mine].tolist())
        tokens += len(mine)
    assert tokens == (segment > 0).sum(), "tokens that belong to no input"
    return found


@given(runs=RUNS, share=SHARE, kept=st.sampled_from((1, 4, 9)), spare=st.integers(0, 1))
def test_shelves_hold_the_newest_items_of_every_input(
    runs: list[tuple[int, int]], share: int, kept: int, spare: int
) -> None:
    """In rows that are wide enough, with and without rows to spare."""
    first, length = map(list, zip(*runs, strict=True))
    rows = -(-len(runs) // share) + spare
    found = shelved(first, length, RowPlan(share, share * kept, kept), rows)
    assert found == [STREAM[a : a + n][-kept:].tolist() if n else [] for a, n in runs]


@given(runs=RUNS, share=SHARE, width=st.sampled_from((5, 8, 12)))
def test_a_row_that_is_too_narrow_costs_the_oldest_items(
    runs: list[tuple[int, int]], share: int, width: int
) -> None:
    first, length = map(list, zip(*runs, strict=True))
    rows = -(-len(runs) // share)
    for (a, n), items in zip(runs, shelved(first, length, RowPlan(share, width, 9), rows), strict=True):
        whole = STREAM[a : a + n].tolist()
        assert items == (whole[-len(items) :] if n else []) and bool(items) == bool(n)


def test_short_inputs_share_rows_and_long_ones_do_not() -> None:
    """As wide as random batches need: far fewer tokens than a row each where most inputs are short."""
    rng = np.random.default_rng(0)
    for lengths, expected in ((rng.geometric(0.3, 4000), range(2, 16)), (np.full(4000, 30), range(1, 2))):
        last = np.cumsum(lengths).astype(np.int32) - 1
        inputs = InputsByTarget((last - lengths + 1).astype(np.int32), last, np.zeros(1), np.zeros(1))
        row_plan = plan_rows(inputs, 100, 20)
        assert row_plan.share in expected and row_plan.length == 20
        batches = np.minimum(rng.choice(lengths, (200, 100)), 20)
        tokens = -(-100 // row_plan.share) * row_plan.width
        assert batches.sum(1).mean() <= tokens <= 2 * batches.sum(1).mean()
