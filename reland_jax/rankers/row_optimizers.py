"""Optimisers of a table of embeddings that touch the rows of a step alone.

A step of Adam on all parameters reads and writes the whole table and two more of its size, for a few thousand
rows that the batch reads. These functions are given the rows, and the gradient of each lookup. What they read
and write never grows beyond the lookups of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_OUTSIDE_IS_ZERO: dict[str, Any] = {"mode": "fill", "fill_value": 0.0}


class RowState(NamedTuple):
    """What an optimiser keeps.

    Attributes:
        step: ``<int32>[]``, steps taken.
        moments: arrays with a row, or a number, for every row of the table.
    """

    step: jax.Array
    moments: tuple[jax.Array, ...]


class RowOptimizer(NamedTuple):
    """A pure optimiser of a table.

    Attributes:
        init: table ``<float32>[R, k]`` -> its state.
        update: (table, state, index ``<int32>[n]``, gradients ``<float32>[n, k]``) -> (table, state). The
            gradient of a row is the sum of those of its lookups; rows outside of the table are left out.
    """

    init: Callable[[jax.Array], RowState]
    update: Callable[[jax.Array, RowState, jax.Array, jax.Array], tuple[jax.Array, RowState]]


Change = Callable[[jax.Array, jax.Array, tuple[jax.Array, ...]], tuple[jax.Array, tuple[jax.Array, ...]]]
"""(number of the step, gradients ``<float32>[r, k]``, their moments) -> what is added, new moments."""


def row_wise_adagrad(learning_rate: float, epsilon: float = 1e-8, initial: float = 0.0) -> RowOptimizer:
    """Adagrad with one number per row, ``s += mean(g^2)``, ``row -= rate g / (sqrt(s) + epsilon)``.

    Args:
        learning_rate: rate.
        epsilon: added to the root.
        initial: s at the start.
    """

    def init(table: jax.Array) -> RowState:
        return RowState(jnp.zeros((), jnp.int32), (jnp.full(len(table), initial, table.dtype),))

    def change(
        step: jax.Array, gradient: jax.Array, moments: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        del step
        grown = moments[0] + jnp.mean(gradient**2, -1)
        return -learning_rate * gradient / (jnp.sqrt(grown) + epsilon)[:, None], (grown,)

    return RowOptimizer(init, partial(_update, change))


def lazy_adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8
) -> RowOptimizer:
    """Adam whose moments decay in the steps alone in which their row is read.

    The correction of the start counts all steps, as PyTorch's sparse Adam does: a row that is read
    for the first time after many steps takes the smaller step that its uncorrected moments give.

    Args:
        learning_rate: rate.
        b1: decay of the mean of gradients.
        b2: decay of the mean of their squares.
        epsilon: added to the root.
    """

    def init(table: jax.Array) -> RowState:
        return RowState(jnp.zeros((), jnp.int32), (jnp.zeros_like(table), jnp.zeros_like(table)))

    def change(
        step: jax.Array, gradient: jax.Array, moments: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        first, second = moments
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        corrected = first / (1 - b1**step), second / (1 - b2**step)
        return -learning_rate * corrected[0] / (jnp.sqrt(corrected[1]) + epsilon), (first, second)

    return RowOptimizer(init, partial(_update, change))


def _update(
    change: Change, table: jax.Array, state: RowState, index: jax.Array, gradients: jax.Array
) -> tuple[jax.Array, RowState]:
    """`RowOptimizer.update` by what a step changes of the rows that it reads."""
    step = state.step + 1
    # A table with no more rows than the step has lookups is gone through as a whole: finding the distinct
    # rows, which needs a sort, takes longer. The numbers are the same.
    if len(table) <= len(index):
        summed, is_read = _summed_of_all(index, gradients, len(table))
        added, moments = change(step, summed, state.moments)
        kept = tuple(_where(is_read, *both) for both in zip(moments, state.moments, strict=True))
        return table + _where(is_read, added, jnp.zeros_like(table)), RowState(step, kept)
    rows, summed = summed_by_row(index, gradients, len(table))
    added, moments = change(step, summed, tuple(m.at[rows].get(**_OUTSIDE_IS_ZERO) for m in state.moments))
    both = zip(state.moments, moments, strict=True)
    kept = tuple(moment.at[rows].set(new, mode="drop") for moment, new in both)
    return table.at[rows].add(added, mode="drop"), RowState(step, kept)


def _summed_of_all(index: jax.Array, gradients: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Of every row of the table the sum of its gradients ``<float32>[R, k]``, and whether it is read."""
    counted = jnp.pad(gradients, ((0, 0), (0, 1)), constant_values=1)
    summed = jnp.zeros((num_rows, counted.shape[1]), gradients.dtype).at[index].add(counted, mode="drop")
    return summed[:, :-1], summed[:, -1] > 0


def _where(is_read: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(is_read.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def summed_by_row(index: jax.Array, gradients: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Every row once, with the sum of the gradients of its lookups.

    Args:
        index: ``<int32>[n]``, the rows, from 0 on; `num_rows` and above for none.
        gradients: ``<float32>[n, k]``.
        num_rows: R.

    Returns:
        Rows ``<int32>[n]``, each at the place of one of its lookups, the other places filled up with numbers
        from R on; and their sums ``<float32>[n, k]``.
    """
    own = jnp.arange(len(index), dtype=jnp.int32)
    place = _one_place_per_row(jnp.minimum(index, num_rows), num_rows, own)
    is_there = (place == own) & (index < num_rows)
    return jnp.where(is_there, index, num_rows + own), jnp.zeros_like(gradients).at[place].add(gradients)


def _one_place_per_row(index: jax.Array, num_rows: int, own: jax.Array) -> jax.Array:
    """For each lookup ``<int32>[n]`` the place of one that all lookups of its row agree on.

    All lookups write their places to a small table, where rows that meet in a slot settle it by the largest
    place; rows that lost meet elsewhere in the next round. Sorting would take twenty times as long on a CPU.
    """
    slots = max(min(num_rows, 4 * len(own)), 1)

    def meet(carried: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        number, place = carried
        # Two rows with one slot in a round have two in every other one.
        slot = (index + number * (index // slots)) % slots
        is_open = place < 0
        taken = jnp.zeros(slots, jnp.int32).at[jnp.where(is_open, slot, slots)].max(own, mode="drop")
        winner = taken[slot]
        return number + 1, jnp.where(is_open & (index[winner] == index), winner, place)

    start = jnp.int32(0), jnp.where(index < num_rows, -1, own)
    return jax.lax.while_loop(lambda carried: jnp.any(carried[1] < 0), meet, start)[1]
