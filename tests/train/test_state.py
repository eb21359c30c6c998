"""The optimiser by hand, and the key of a step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import TrainConfig
from reland_jax.train.state import create_optimizer, step_key


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


@pytest.mark.parametrize("projection", [0.0, 0.01])
def test_steps_fall_along_half_a_cosine_to_nothing(projection: float) -> None:
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


def test_the_key_of_a_step_depends_on_seed_and_step_alone() -> None:
    keys = [
        tuple(jax.random.key_data(step_key(TrainConfig(seed=seed), jnp.int32(step))).tolist())
        for seed in (0, 1, 2)
        for step in (0, 1, 1000)
    ]
    assert len(set(keys)) == len(keys)
    again = step_key(TrainConfig(seed=1, learning_rate=0.5), jnp.int32(1000))
    assert tuple(jax.random.key_data(again).tolist()) == keys[5]
