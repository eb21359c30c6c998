"""Optimisers of a table against loops over its rows in NumPy, and against what optax does with all rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from reland_jax.rankers.row_optimizers import RowOptimizer, lazy_adam, row_wise_adagrad, summed_by_row

ROWS, WIDTH, STEPS = 7, 3, 4
RATE, EPSILON = 0.1, 1e-6
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(ROWS, WIDTH))
INDEX = np.array([[3, 1, 3, ROWS], [5, 5, 5, 5], [0, 6, 3, 2**31 - 1], [ROWS, ROWS, ROWS, ROWS]], np.int32)
"""Rows of each step: repeated, outside, none at all."""
GRADIENTS = RNG.normal(size=(STEPS, 4, WIDTH))

Loop = Callable[[], np.ndarray]


def sums(step: int) -> dict[int, np.ndarray]:
    """Gradient of every row that a step reads."""
    found: dict[int, np.ndarray] = {}
    for row, gradient in zip(INDEX[step].tolist(), GRADIENTS[step], strict=True):
        if row < ROWS:
            found[row] = found.get(row, 0) + gradient
    return found


def adagrad_by_loops() -> np.ndarray:
    table, squares = TABLE.copy(), np.full(ROWS, 0.3)
    for step in range(STEPS):
        for row, g in sums(step).items():
            squares[row] += sum(each**2 for each in g) / WIDTH
            table[row] -= RATE * g / (squares[row] ** 0.5 + EPSILON)
    return table


def adam_by_loops() -> np.ndarray:
    table, m, v = TABLE.copy(), np.zeros_like(TABLE), np.zeros_like(TABLE)
    for step in range(STEPS):
        for row, g in sums(step).items():
            m[row] = 0.8 * m[row] + 0.2 * g
            v[row] = 0.9 * v[row] + 0.1 * g**2
            m_hat, v_hat = m[row] / (1 - 0.8 ** (step + 1)), v[row] / (1 - 0.9 ** (step + 1))
            table[row] -= RATE * m_hat / (v_hat**0.5 + EPSILON)
    return table


def padded(step: int, lookups: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and gradients of a step, with further lookups that are outside."""
    index, gradients = np.full(lookups, 2**31 - 1, np.int32), np.ones((lookups, WIDTH))
    index[:4], gradients[:4] = INDEX[step], GRADIENTS[step]
    return index, gradients


@pytest.mark.parametrize("lookups", [4, ROWS])
@pytest.mark.parametrize(
    ("optimizer", "by_loops"),
    [
        (row_wise_adagrad(RATE, EPSILON, initial=0.3), adagrad_by_loops),
        (lazy_adam(RATE, 0.8, 0.9, EPSILON), adam_by_loops),
    ],
)
def test_rows_move_as_in_the_loops(optimizer: RowOptimizer, by_loops: Loop, lookups: int) -> None:
    with jax.enable_x64(True):
        update, table = jax.jit(optimizer.update), jnp.asarray(TABLE)
        state = optimizer.init(table)
        for step in range(STEPS):
            table, state = update(table, state, *padded(step, lookups))
    np.testing.assert_allclose(table, by_loops(), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(table)[[2, 4]], TABLE[[2, 4]])
    assert int(state.step) == STEPS


@pytest.mark.parametrize("optimizer", [row_wise_adagrad(RATE), lazy_adam(RATE)])
def test_a_small_table_gone_through_as_a_whole_has_the_same_bits(optimizer: RowOptimizer) -> None:
    rng = np.random.default_rng(2)
    index, gradients = rng.integers(0, 9, 40).astype(np.int32), rng.normal(size=(40, WIDTH))
    small, found = jnp.asarray(rng.normal(size=(9, WIDTH)), jnp.float32), []
    for table in (small, jnp.pad(small, ((0, 40), (0, 0)))):
        state = optimizer.init(table)
        after, state = jax.jit(optimizer.update)(table, state, index, jnp.asarray(gradients, jnp.float32))
        found.append([np.asarray(leaf)[:9] for leaf in (after, *state.moments)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lazy_adam_is_adam_where_every_step_reads_every_row() -> None:
    optimizer, every = lazy_adam(RATE, epsilon=1e-8), optax.adam(RATE, eps=1e-8)
    rows = np.random.default_rng(1).permutation(ROWS).astype(np.int32)
    with jax.enable_x64(True):
        table = expected = jnp.asarray(TABLE)
        state, other = optimizer.init(table), every.init(expected)
        for seed in range(3):
            gradient = np.random.default_rng(seed).normal(size=(ROWS, WIDTH))
            table, state = optimizer.update(table, state, rows, gradient[rows])
            updates, other = every.update(jnp.asarray(gradient), other)
            expected = optax.apply_updates(expected, updates)
    np.testing.assert_allclose(table, expected, rtol=1e-10)


def test_lookups_of_a_row_are_summed() -> None:
    index = jnp.asarray(INDEX[0])
    rows, summed = summed_by_row(index, jnp.asarray(GRADIENTS[0], jnp.float32), ROWS)
    inside = np.asarray(rows) < ROWS
    assert len(set(np.asarray(rows).tolist())) == len(index)
    found = dict(zip(np.asarray(rows)[inside].tolist(), np.asarray(summed)[inside], strict=True))
    assert found.keys() == {1, 3}
    for row, gradient in sums(0).items():
        np.testing.assert_allclose(found[row], gradient, rtol=1e-6)


def test_rows_that_meet_in_a_slot_are_summed_apart() -> None:
    """All rows are equal modulo four times the lookups, so that they meet until few are left."""
    lookups = 24
    rows = 4 * lookups * np.array([0, 1, 2, 5, 11, 90] * 4, np.int32) + 3
    gradients = np.random.default_rng(3).normal(size=(lookups, WIDTH)).astype(np.float32)
    found, summed = map(np.asarray, jax.jit(summed_by_row, static_argnums=2)(rows, gradients, 10**6))
    assert sorted(found[found < 10**6]) == sorted(set(rows.tolist()))
    for row in set(rows.tolist()):
        np.testing.assert_allclose(summed[found == row][0], gradients[rows == row].sum(0), rtol=1e-6)


def test_no_lookup_at_all() -> None:
    optimizer = row_wise_adagrad(RATE)
    table = jnp.asarray(TABLE, jnp.float32)
    after, _ = optimizer.update(table, optimizer.init(table), jnp.zeros(0, jnp.int32), jnp.zeros((0, WIDTH)))
    np.testing.assert_array_equal(after, table)


@pytest.mark.parametrize("optimizer", [row_wise_adagrad(RATE), lazy_adam(RATE)])
def test_a_step_makes_no_array_of_the_size_of_the_table(optimizer: RowOptimizer) -> None:
    """Table and moments are written in place; beside them there is memory for the rows of the step."""
    table = jnp.zeros((200_000, 4))
    arguments = table, optimizer.init(table), jnp.zeros(8, jnp.int32), jnp.zeros((8, 4))
    compiled = jax.jit(optimizer.update, donate_argnums=(0, 1)).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < table.nbytes / 10
