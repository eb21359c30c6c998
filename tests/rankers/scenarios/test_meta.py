"""Meta layers against a loop over rows; what they are where knowledge is equal; finite differences."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from reland_jax.rankers.scenarios.meta import MetaLayer, ScenarioLayer, UserLayer, meta_bytes
from reland_jax.rankers.scenarios.rows import scenario_shares
from reland_jax.scenario_settings import ScenarioConfig
from tests.rankers import oracles
from tests.rankers.scenarios.toys import CODES, SCENARIOS, toy_rows
from tests.rankers.toys import applied, in_float64, random_like

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5)).astype(np.float32)
KNOWN = RNG.normal(size=(8, 3)).astype(np.float32)
FORMS = ["low_rank", "full"]


def plan(form: str, rank: int = 2) -> ScenarioConfig:
    return ScenarioConfig(meta_form=form, meta_rank=rank, meta_hidden=4, meta_width=6)


def made(params: oracles.Params, h: np.ndarray, *shape: int) -> np.ndarray:
    return oracles.linear(params["outer"], oracles.relu(oracles.linear(params["inner"], h))).reshape(shape)


def meta(params: oracles.Params, x: np.ndarray, h: np.ndarray, width: int) -> np.ndarray:
    """x W(h) + b(h), W formed for this row."""
    if "kernel" in params:
        kernel = made(params["kernel"], h, len(x), width)
    else:
        rank = len(params["after"])
        kernel = params["before"] @ made(params["square"], h, rank, rank) @ params["after"]
    return x @ kernel + made(params["bias"], h, width)


@pytest.mark.parametrize("form", FORMS)
def test_every_row_has_a_layer_of_its_own(form: str) -> None:
    params, found = applied(MetaLayer(6, plan(form)), X, KNOWN)
    expected = [meta(params, x, h, 6) for x, h in zip(in_float64(X), in_float64(KNOWN), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.linalg.matrix_rank(found) > 2


@pytest.mark.parametrize("form", FORMS)
def test_with_equal_knowledge_it_is_a_dense_layer(form: str) -> None:
    same = np.broadcast_to(KNOWN[:1], KNOWN.shape)
    params, found = applied(MetaLayer(6, plan(form)), X, same)
    bias = meta(params, np.zeros(5), in_float64(KNOWN[0]), 6)
    kernel = np.stack([meta(params, unit, in_float64(KNOWN[0]), 6) - bias for unit in np.eye(5)])
    np.testing.assert_allclose(found, in_float64(X) @ kernel + bias, rtol=1e-9)


def test_of_full_rank_it_is_the_full_form() -> None:
    module, width = MetaLayer(5, plan("low_rank", rank=5)), 5
    low = random_like(jax.eval_shape(module.init, jax.random.key(0), X, KNOWN))["params"]
    low |= {"before": np.eye(width), "after": np.eye(width)}
    full = {"kernel": low["square"], "bias": low["bias"]}
    with jax.enable_x64(True):
        ours, theirs = (
            layer.apply({"params": params}, *in_float64((X, KNOWN)))
            for layer, params in ((module, low), (MetaLayer(5, plan("full")), full))
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_the_user_layer_changes_the_fields() -> None:
    rows, users = toy_rows(), RNG.normal(size=(4, 3)).astype(np.float32)
    row = np.array([0, 1, 2, 3, -1, 0, 1, 2], np.int32)
    params, found = applied(UserLayer(plan("low_rank")), rows.fields, users, row)
    for at, place in enumerate(row):
        e = np.concatenate(list(in_float64(rows.fields[at])))
        h = in_float64(users[place]) if place >= 0 else np.zeros(3)
        expected = e + params["gate"] * oracles.relu(meta(params["meta"], e, h, len(e)))
        np.testing.assert_allclose(found[at].ravel(), expected, rtol=1e-10)


def test_the_scenario_layer_adds_to_the_logit() -> None:
    rows, known = toy_rows(), RNG.normal(size=(SCENARIOS, 3)).astype(np.float32)
    params, found = applied(ScenarioLayer(plan("low_rank")), rows.fields, known, rows.shares)
    for at in [at for at, code in enumerate(CODES) if code >= 2]:
        e, h = np.concatenate(list(in_float64(rows.fields[at]))), in_float64(known[CODES[at] - 2])
        hidden = oracles.relu(meta(params["meta_0"], e, h, 6))
        expected = params["gate"] * meta(params["meta_1"], hidden, h, 1)[0]
        np.testing.assert_allclose(found[at], expected, rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_knowledge_is_that_of_finite_differences(form: str) -> None:
    module = MetaLayer(6, plan(form))
    params = random_like(jax.eval_shape(module.init, jax.random.key(0), X, KNOWN))
    with jax.enable_x64(True):
        x, known = in_float64((X, KNOWN))

        def value(h: Any) -> Any:
            return (module.apply(params, x, h) ** 2).sum()

        gradient, step = np.asarray(jax.grad(value)(known)), 1e-6
        for place in [(0, 0), (3, 2), (7, 1)]:
            moved = np.zeros_like(known)
            moved[place] = step
            expected = float(value(known + moved) - value(known - moved)) / (2 * step)
            np.testing.assert_allclose(gradient[place], expected, rtol=1e-5, atol=1e-6)


def test_learned_vectors_take_the_place_of_knowledge() -> None:
    learned = ScenarioConfig(scenario_vectors="trainable", vector_width=2, meta_hidden=4)
    rows, shares = toy_rows(), scenario_shares(CODES, SCENARIOS)
    known = np.zeros((SCENARIOS, 7), np.float32)
    params, found = applied(ScenarioLayer(learned), rows.fields, known, shares)
    assert params["vectors"]["learned"].shape == (SCENARIOS, 2)
    _, other = applied(ScenarioLayer(learned), rows.fields, known + 1, shares)
    np.testing.assert_array_equal(found, other)


def test_the_memory_of_the_full_form() -> None:
    """160 numbers a row, 2,048 rows: matrices and their gradient, and all weights seven times."""
    full = ScenarioConfig(meta=("user",), meta_form="full", meta_hidden=64)
    weights = 2 * 33 * 64 + 65 * (160 + 160 * 160)
    assert meta_bytes(full, 2048, 160, {"user": 32}) == 4 * (2 * 2048 * 160 * 160 + 7 * weights)
    assert meta_bytes(full, 2048, 160, {"user": 32}, 1000) == 4 * (2 * 2048 * 160 * 160 + 7 * weights) - 1000


def test_the_memory_of_the_low_rank_form() -> None:
    """Made are squares of 8 x 8 alone, so that most of it is what other layers of the rows hold."""
    low = ScenarioConfig(meta=("user",), meta_rank=8, meta_hidden=64)
    weights = 2 * 33 * 64 + 65 * (160 + 64) + 8 * (160 + 160)
    rows = 8 * 8 + 32 + 4 * 64 + 4 * 160 + 2 * 8
    assert meta_bytes(low, 2048, 160, {"user": 32}) == 4 * (2048 * rows + 6 * weights)
