"""Rankers of scenarios: the start at the backbone, steps, and parts that do not go together."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest

from reland_jax.rankers import (
    ARMS,
    BACKBONES,
    CONTROLS,
    Field,
    FieldSchema,
    Parameters,
    RankerConfig,
    ScenarioRanker,
    Texts,
    controlled,
    create_scenario_ranker,
    init_params,
    init_state,
    lazy_adam,
    parameter_counts,
    predict,
    train_step,
)
from reland_jax.rankers.scenarios.ranker import is_meta, with_own_rate
from reland_jax.rankers.scenarios.star import MOVING
from reland_jax.scenario_settings import BACKBONES as NAMES
from reland_jax.scenario_settings import ScenarioConfig
from reland_jax.types import RelandError

SCHEMA = FieldSchema(
    (
        Field("user_id", "categorical", 8), Field("item_id", "categorical", 9),
        Field("scenario", "categorical", 5), Field("age", "numeric"),
    ),
    ("click",),
)  # fmt: skip
CONFIG = RankerConfig(network="dnn", width=3, layers=(6, 5), tower=(4,), experts=2, own_experts=1)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TEXTS = Texts(
    rationales=RNG.normal(size=(4, 6)).astype(np.float32),
    seed=np.array([0, 1, 2, -1, 3], np.int32),
    scenarios=RNG.normal(size=(3, 6)).astype(np.float32),
)


def batch(codes: tuple[int, ...] = (2, 3, 2, 1, 3, 2), seed: int = 0) -> dict[str, np.ndarray]:
    rng, n = np.random.default_rng(seed), len(codes)
    return {
        "user_id": rng.integers(1, 8, n, dtype=np.int32), "item_id": rng.integers(1, 9, n, dtype=np.int32),
        "scenario": np.array(codes, np.int32), "age": rng.normal(size=n).astype(np.float32),
        "click": (np.arange(n) % 2).astype(np.float32),
        "weight": (np.arange(n) < n - 1).astype(np.float32),
        "user_row": rng.integers(-1, 5, n, dtype=np.int32), "item_row": np.zeros(n, np.int32),
    }  # fmt: skip


def ranker(backbone: str, control: str = "backbone", **changed: Any) -> ScenarioRanker:
    plan = CONTROLS[control].plan(ScenarioConfig(backbone, meta_hidden=4, meta_rank=2, **changed))
    return create_scenario_ranker(CONFIG, plan, SCHEMA, ARMS["id"])


def fresh(module: ScenarioRanker, texts: Texts) -> Parameters:
    return jax.jit(init_params, static_argnums=0)(module, KEY, batch(), texts)


def with_backbone_of(params: Parameters, earlier: Parameters) -> Parameters:
    """Parameters with meta layers, and those of a backbone in the place of theirs."""
    own = {**params.dense["params"], **earlier.dense["params"]}
    return Parameters(earlier.table, {**earlier.dense, "params": own})


def test_the_table_has_every_backbone() -> None:
    assert tuple(BACKBONES) == NAMES


@pytest.mark.parametrize("form", ["low_rank", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backbone", ["star", pytest.param("mmoe", marks=pytest.mark.slow)])
def test_training_begins_at_the_backbone_bit_for_bit(backbone: str, form: str) -> None:
    plain, meta = ranker(backbone), ranker(backbone, "knowledge", meta_form=form)
    texts = controlled(CONTROLS["knowledge"], TEXTS)
    earlier = fresh(plain, Texts())
    begun = with_backbone_of(fresh(meta, texts), earlier)
    scored = jax.jit(predict, static_argnums=0)
    found = scored(meta, begun, batch(), texts).reached
    np.testing.assert_array_equal(found, scored(plain, earlier, batch(), Texts()).reached)


@pytest.mark.slow
def test_the_first_steps_move_the_gates_and_then_the_meta_layers() -> None:
    module, texts = ranker("one", "knowledge"), controlled(CONTROLS["knowledge"], TEXTS)
    rows, dense = lazy_adam(0.01), module.adapted(optax.adam(0.01))
    step = jax.jit(partial(train_step, module, rows, dense))
    begun = init_state(fresh(module, texts), rows, dense)
    first, _ = step(begun, batch(), texts, KEY)
    second, _ = step(first, batch(), texts, KEY)
    for layer in ("user_layer", "scenario_layer"):
        before, after = (each.params.dense["params"][layer] for each in (first, second))
        assert abs(float(before["gate"])) > 0
        moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize(
    "backbone", [each if each == "star" else pytest.param(each, marks=pytest.mark.slow) for each in NAMES]
)
def test_a_scenario_that_no_batch_has_is_safe(backbone: str) -> None:
    """Losses and parameters are finite, and what is known of the absent scenario stays as it was."""
    module, texts = ranker(backbone, "knowledge"), controlled(CONTROLS["knowledge"], TEXTS)
    rows, dense = lazy_adam(0.01), module.adapted(optax.adam(0.01))
    begun = state = init_state(fresh(module, texts), rows, dense)
    step = jax.jit(partial(train_step, module, rows, dense))
    losses = []
    for number in range(20):
        state, loss = step(state, batch((2, 3, 2, 3, 3, 2), seed=number % 3), texts, KEY)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    if backbone == "star":
        before, after = (each.params.dense[MOVING]["backbone"]["norm"] for each in (begun, state))
        for name in ("mean", "variance", "steps"):
            np.testing.assert_array_equal(after[name][2], before[name][2])
            assert np.all(after[name][:2] != before[name][:2])


def test_moving_statistics_are_no_parameters() -> None:
    params = fresh(ranker("star"), Texts())
    assert params.dense[MOVING]["backbone"]["norm"]["mean"].shape == (3, 12)
    learned = sum(leaf.size for leaf in jax.tree.leaves(params.dense["params"]))
    assert parameter_counts(params)["dense"] == learned


def test_meta_layers_have_a_learning_rate_of_their_own() -> None:
    module, texts = ranker("one", "knowledge"), controlled(CONTROLS["knowledge"], TEXTS)
    shapes = jax.eval_shape(lambda: init_params(module, KEY, batch(), texts)).dense
    ones = params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    optimizer = with_own_rate(optax.sgd(1.0), 0.25)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        inside = "_layer" in jax.tree_util.keystr(path[:2])
        assert is_meta(path) == inside
        np.testing.assert_allclose(leaf, -0.25 if inside else -1.0)


@pytest.mark.parametrize(
    ("changed", "plan", "message"),
    [
        ({"labels": ("click", "click2"), "task": "mmoe"}, {}, "label 'click2' is not declared"),
        ({"network": "logistic"}, {}, "network=logistic: a ranker of scenarios has one label"),
        ({}, {"feature": "age"}, "feature 'age' is not categorical"),
        ({}, {"backbone": "ppnet", "prior": ("usr_id",)}, "did you mean 'user_id'"),
        ({}, {"backbone": "stars"}, "did you mean 'star'"),
        ({}, {"meta": ("users",)}, "did you mean 'user'"),
    ],
)
def test_parts_that_do_not_go_together(changed: Any, plan: Any, message: str) -> None:
    import dataclasses

    with pytest.raises(RelandError, match=message):
        create_scenario_ranker(
            dataclasses.replace(CONFIG, **changed), ScenarioConfig(**plan), SCHEMA, ARMS["id"]
        )
