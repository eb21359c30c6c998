"""The table of sizes, what takes another column of it, and that no column changes a result."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.device import SIZES, sizes, sizes_of, use_sizes
from reland_jax.eval import plan_ranking, rank_targets
from reland_jax.models.losses import catalogue_cross_entropy, tiling
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.seeds.kmeans import kmeans
from reland_jax.train.state import compiled_dispatch, init_state, program_of
from reland_jax.types import RelandError
from tests.toys import random_ragged
from tests.train.toys import SEQUENTIAL, scored, slope_task

SMALL = dataclasses.replace(
    sizes_of("cpu"), kmeans_bytes=100, exact_queries=16, exact_keys=5, loss_targets=16, score_bytes=4000
)
COLUMNS = {**SIZES, "small": SMALL}


def test_a_cpu_works_with_its_column() -> None:
    assert sizes() == sizes_of("cpu")


@pytest.mark.parametrize(("backend", "column"), [("gpu", "gpu"), ("tpu", "tpu"), ("new", "gpu")])
def test_a_device_works_with_its_column(backend: str, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert sizes() == SIZES[column]


def test_a_device_without_a_column_is_refused_by_name() -> None:
    with pytest.raises(RelandError, match="for the device 'cuda'; known are cpu, gpu, tpu"):
        sizes_of("cuda")


def test_what_was_traced_with_other_sizes_is_not_taken() -> None:
    @jax.jit
    def tile(x: jax.Array) -> jax.Array:
        return x + sizes().loss_targets

    own = sizes_of("cpu").loss_targets
    assert int(tile(0)) == own
    with use_sizes(SMALL):
        assert int(tile(0)) == 16
        with use_sizes(dataclasses.replace(SMALL, loss_targets=7)):
            assert int(tile(0)) == 7
        assert int(tile(0)) == 16
    with pytest.raises(ValueError, match="inside"), use_sizes(SMALL):
        assert int(tile(0)) == 16
        raise ValueError("inside")
    assert int(tile(0)) == own


def test_a_training_compiled_with_other_sizes_is_not_taken() -> None:
    task = slope_task()
    state, program = init_state(task, SEQUENTIAL), program_of(task, SEQUENTIAL)
    arguments = program, state, task.tables, task.data, task.data, np.arange(2)
    own = compiled_dispatch(*arguments)
    with use_sizes(SMALL):
        assert compiled_dispatch(*arguments) is not own
    assert compiled_dispatch(*arguments) is own


def results() -> dict[str, np.ndarray]:
    """Of everything whose tiles can be compared on a CPU in a second."""
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(rows, 4)).astype(np.float32) for rows in (70, 41))
    target = jnp.asarray(rng.integers(1, 41, 70), jnp.int32)
    loss = jax.jit(
        jax.value_and_grad(
            lambda u, i: catalogue_cross_entropy(u, i, target, jnp.ones(70), 40), argnums=(0, 1)
        )
    )
    value, gradients = loss(users, items)
    plan = plan_ranking(random_ragged([2] * 70, 40), random_ragged([3] * 70, 40, 1), 40, None)
    found, cosine = ExactIndex(items[1:]).search(users, 1)
    clusters = kmeans(users, 5, jax.random.key(0), iterations=3, tolerance=0.0)
    return {
        "loss": np.asarray(value),
        "gradient of users": np.asarray(gradients[0]),
        "gradient of items": np.asarray(gradients[1]),
        "ranks": rank_targets(plan, scored(jnp.asarray(users), jnp.asarray(items))).rank,
        "nearest": found,
        "cosine": cosine,
        "cluster": clusters.cluster,
        "tiles of the loss": np.array(tiling(70)[0]),
        "users of a tile of scores": np.array(plan.users_at_a_time),
    }


@pytest.mark.parametrize("column", ["small", pytest.param("gpu", marks=pytest.mark.slow)])
def test_sizes_change_no_result(column: str) -> None:
    with use_sizes(COLUMNS["cpu"]):
        own = results()
    with use_sizes(COLUMNS[column]):
        other = results()
    for name in ("ranks", "nearest", "cluster"):
        np.testing.assert_array_equal(other[name], own[name], name)
    for name in ("loss", "gradient of users", "gradient of items", "cosine"):
        np.testing.assert_allclose(other[name], own[name], rtol=1e-5, atol=1e-6, err_msg=name)
    if column == "small":
        assert own["tiles of the loss"] == 1 and other["tiles of the loss"] == 5
        assert own["users of a tile of scores"] == 70
        assert other["users of a tile of scores"] == 4000 // (2 * 4 * 41)
