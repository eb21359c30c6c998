"""The optimiser by hand, and the key of a step."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import MAX_SEED, TrainConfig
from reland_jax.train.state import (
    Purpose,
    TrainState,
    create_optimizer,
    init_state,
    make_dispatch,
    purpose_key,
    step_key,
)
from tests.train.toys import slope_task


@pytest.mark.parametrize(("decay", "shrinkage"), [(0.0, 1.0), (0.5, 0.95)])
def test_adam_takes_one_learning_rate_a_step_down_a_slope(decay: float, shrinkage: float) -> None:
    """Under a constant gradient; decoupled decay shrinks a matrix by rate x decay a step, and no vector."""
    optimizer = create_optimizer(TrainConfig(learning_rate=0.1, weight_decay=decay), 1)
    params = {"matrix": jnp.full((2, 2), 3.0), "vector": jnp.full(2, 3.0)}
    state = optimizer.init(params)
    expected = {"matrix": 3.0, "vector": 3.0}
    for _ in range(4):
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, -7.0), params)
        updates, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        expected = {"matrix": expected["matrix"] * shrinkage + 0.1, "vector": expected["vector"] + 0.1}
    for name, value in expected.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-5)


@pytest.mark.parametrize("projection", [None, 0.01])
def test_steps_fall_along_half_a_cosine_to_nothing(projection: float | None) -> None:
    """Over epochs x steps; those of shared parameters as those of the others, from their own size."""
    config = TrainConfig(
        learning_rate=0.1, projection_learning_rate=projection, schedule="cosine", max_epochs=2
    )
    optimizer = create_optimizer(config, 3)
    params = {"embedding": jnp.zeros(2), "attention": jnp.zeros(2)}
    state, taken = optimizer.init(params), []
    for _ in range(8):
        updates, state = optimizer.update(jax.tree.map(lambda leaf: leaf - 5.0, params), state, params)
        taken.append([float(updates[name][0]) for name in params])
    fall = (1 + np.cos(np.pi * np.minimum(np.arange(8), 6) / 6)) / 2
    expected = np.stack([0.1 * fall, (projection or 0.1) * fall], 1)
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-7)


def numbers_of(key: jax.Array) -> tuple[int, ...]:
    return tuple(jax.random.key_data(key).tolist())


def test_no_two_training_seeds_share_a_stream() -> None:
    """Keys of the parameters, of many steps and of many shuffles, over neighbouring seeds."""
    counts = jnp.arange(200)
    keys = [numbers_of(purpose_key(seed, purpose)) for seed in range(8) for purpose in Purpose]
    for seed in range(8):
        for purpose in Purpose:
            folded = jax.vmap(partial(jax.random.fold_in, purpose_key(seed, purpose)))(counts)
            keys += map(tuple, jax.random.key_data(folded).tolist())
    assert len(set(keys)) == len(keys) == 8 * 3 * 201


def test_training_seed_0_keeps_the_streams_of_the_kept_results() -> None:
    keys = [numbers_of(purpose_key(jnp.int32(0), purpose)) for purpose in Purpose]
    assert keys == [numbers_of(jax.random.key(number)) for number in range(3)]


def test_the_largest_seed_has_keys_of_its_own() -> None:
    keys = {numbers_of(purpose_key(jnp.int32(seed), p)) for seed in (0, MAX_SEED) for p in Purpose}
    assert len(keys) == 6


def test_the_key_of_a_step_depends_on_seed_and_step_alone() -> None:
    def of(seed: int, step: int, height: float = 0.0) -> tuple[int, ...]:
        return numbers_of(step_key(TrainState(height, (), jnp.int32(step), jnp.int32(seed))))

    keys = [of(seed, step) for seed in (0, 1, 2) for step in (0, 1, 1000)]
    assert len(set(keys)) == len(keys)
    assert of(1, 1000, 5.0) == keys[5]


def test_one_program_serves_all_seeds() -> None:
    """What is lowered for one seed is, word for word, what is lowered for another."""
    programs = set()
    for seed in (0, 1):
        config = TrainConfig(seed=seed)
        task = slope_task()
        given = (init_state(task, config), task.tables, task.data, task.data, jnp.arange(4))
        programs.add(jax.jit(make_dispatch(task, config)).lower(*given).as_text())
    assert len(programs) == 1
