"""STAR against its paper's equations, scenario by scenario and row by row."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from reland_jax.rankers.scenarios.rows import Rows
from reland_jax.rankers.scenarios.star import MOVING, PartitionedNorm, Star
from tests.rankers import oracles
from tests.rankers.scenarios.toys import CODES, SCENARIOS, toy_rows
from tests.rankers.toys import in_float64, random_like

ROWS = toy_rows()
MODULE = Star((6, 5), (4,), 0.9)


def variables(module: Any = MODULE, *inputs: Any) -> dict[str, Any]:
    """Random parameters and positive moving variances, in float64."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *(inputs or (ROWS,)))
    found = random_like(shapes)
    moving = found[MOVING].get("norm", found[MOVING])
    moving["variance"] = moving["variance"] ** 2 + 0.1
    moving["steps"] = np.full((SCENARIOS, 1), 3.0)
    return found


def statistics(x: np.ndarray, counts: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Scenario -> mean and variance of its rows that count."""
    found = {}
    for s in range(SCENARIOS):
        own = [row for row, code, there in zip(x, CODES, counts, strict=True) if code - 2 == s and there]
        if own:
            mean = sum(own) / len(own)
            found[s] = mean, sum((row - mean) ** 2 for row in own) / len(own)
    return found


def star(layer: dict[str, np.ndarray], s: int, x: np.ndarray) -> np.ndarray:
    """(W o W_s)^T x + b + b_s."""
    kernel = layer["kernel"] * layer["own_kernel"][s]
    return oracles.linear({"kernel": kernel, "bias": layer["bias"] + layer["own_bias"][s]}, x)


def as_the_paper(params: dict[str, Any], fields: np.ndarray, s: int, mean: Any, variance: Any) -> float:
    """z_star + z_aux of a row."""
    norm, x = params["norm"], np.concatenate(list(fields))
    h = norm["gain"] * norm["own_gain"][s] * (x - mean) / np.sqrt(variance + 1e-5)
    h = h + norm["bias"] + norm["own_bias"][s]
    for number in range(2):
        h = oracles.relu(star(params[f"layer_{number}"], s, h))
    aux = oracles.tower(params["auxiliary"], np.concatenate([ROWS.domain[0] * 0 + domain_of(s), x]))
    return float(star(params["output"], s, h)[0]) + aux


def domain_of(s: int) -> np.ndarray:
    """The embedding of a scenario."""
    return np.asarray(ROWS.domain[list(CODES).index(s + 2)], np.float64)


def known_rows() -> list[int]:
    return [at for at, code in enumerate(CODES) if code >= 2]


def test_testing_uses_the_moving_statistics_of_the_scenario() -> None:
    given = variables()
    with jax.enable_x64(True):
        found = np.asarray(MODULE.apply(given, in_float64(ROWS)))
    moving = given[MOVING]["norm"]
    for at in known_rows():
        s = CODES[at] - 2
        expected = as_the_paper(given["params"], ROWS.fields[at], s, moving["mean"][s], moving["variance"][s])
        np.testing.assert_allclose(found[at], expected, rtol=1e-10)


def test_training_uses_the_rows_of_the_scenario_alone() -> None:
    given = variables()
    with jax.enable_x64(True):
        found, moved = MODULE.apply(given, in_float64(ROWS), train=True, mutable=[MOVING])
    x = np.asarray(ROWS.fields, np.float64).reshape(len(CODES), -1)
    of = statistics(x, np.asarray(ROWS.counts))
    assert set(of) == {0, 1}  # the third scenario is not in the batch
    for at in known_rows():
        expected = as_the_paper(given["params"], ROWS.fields[at], CODES[at] - 2, *of[CODES[at] - 2])
        np.testing.assert_allclose(found[at], expected, rtol=1e-10)
    before, after = given[MOVING]["norm"], moved[MOVING]["norm"]
    np.testing.assert_array_equal(after["mean"][2], before["mean"][2])
    np.testing.assert_array_equal(after["variance"][2], before["variance"][2])
    for s, (mean, variance) in of.items():  # a quarter: the fourth step of four alike
        np.testing.assert_allclose(after["mean"][s], 0.75 * before["mean"][s] + 0.25 * mean, rtol=1e-10)
        np.testing.assert_allclose(
            after["variance"][s], 0.75 * before["variance"][s] + 0.25 * variance, rtol=1e-10
        )
    np.testing.assert_array_equal(np.asarray(after["steps"]).ravel(), [4, 4, 3])


def test_a_scenario_that_a_batch_lacks_gets_no_gradient_and_no_nan() -> None:
    given = variables()

    def loss(params: Any) -> Any:
        found, _ = MODULE.apply({**given, "params": params}, without(2), train=True, mutable=[MOVING])
        return found.sum()

    gradient = jax.jit(jax.grad(loss))(given["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for name in ("layer_0", "layer_1", "output"):
        assert not np.any(gradient[name]["own_kernel"][2]) and np.any(gradient[name]["own_kernel"][0])


def without(s: int) -> Rows:
    """The rows of the batch that are of a known scenario, other than one."""
    keep = np.array([code >= 2 and code - 2 != s for code in CODES])
    return jax.tree.map(lambda leaf: np.asarray(leaf)[keep], ROWS)


def test_an_unknown_scenario_is_the_mean_of_all() -> None:
    module = PartitionedNorm(0.9)
    x = np.asarray(ROWS.fields).reshape(len(CODES), -1)
    given = variables(module, x, ROWS)
    with jax.enable_x64(True):
        found = np.asarray(module.apply(given, *in_float64((x, ROWS))))
    at, moving, params = list(CODES).index(1), given[MOVING], given["params"]
    normal = (x[at] - moving["mean"].mean(0)) / np.sqrt(moving["variance"].mean(0) + 1e-5)
    expected = params["gain"] * params["own_gain"].mean(0) * normal
    expected = expected + params["bias"] + params["own_bias"].mean(0)
    np.testing.assert_allclose(found[at], expected, rtol=1e-6)
