"""Probabilities and losses of a funnel against float64, also where float32 has no probability left."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.rankers.scores import excess, funnel_loss, reached_labels, reached_logits, row_weights, scores
from tests.rankers.toys import FUNNEL, toy_batch

GIVEN = np.random.default_rng(0).normal(0, 2, (6, 3))


def test_reaching_a_label_is_the_product_of_what_is_given() -> None:
    with jax.enable_x64(True):
        logits = reached_logits(jnp.asarray(GIVEN))
        found = scores(logits)
    given = 1 / (1 + np.exp(-GIVEN))
    np.testing.assert_allclose(found.reached, np.cumprod(given, 1), rtol=1e-10)
    np.testing.assert_allclose(found.given, given, rtol=1e-10)


@pytest.mark.parametrize(("a", "b"), [(40.0, 50.0), (-60.0, 3.0), (30.0, -80.0), (-90.0, -90.0), (0.0, 0.0)])
def test_the_log_loss_of_a_product_is_exact_where_probabilities_are_not(a: float, b: float) -> None:
    """-log p and -log(1 - p) of p = sigma(a) sigma(b) in float32, against exact logarithms in float64."""
    logit = reached_logits(jnp.asarray([[a, b]], jnp.float32))[:, 1:]
    assert logit.dtype == jnp.float32
    against = math.log1p(math.exp(-a)) + math.log1p(math.exp(-b))  # -log p
    log_odds_against = math.log(math.exp(-a) + math.exp(-b) + math.exp(-a - b))
    for label, expected in ((1.0, against), (0.0, against - log_odds_against)):
        found = funnel_loss(logit, jnp.full((1, 1), label), jnp.ones(1))
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_far_out() -> None:
    def loss(given: jax.Array) -> jax.Array:
        return funnel_loss(reached_logits(given), jnp.zeros_like(given), jnp.ones(len(given)))

    far = jnp.asarray([[80.0, 90.0], [-80.0, -90.0], [80.0, -90.0], [0.0, 0.0]])
    assert np.isfinite(jax.grad(loss)(far)).all()


def test_the_loss_is_the_mean_over_rows_that_count() -> None:
    batch = toy_batch()
    logits = np.random.default_rng(1).normal(size=(6, 2))
    reached = np.stack([batch["click"], batch["click"] * batch["conversion"]], 1)
    np.testing.assert_array_equal(reached_labels(batch, FUNNEL), reached)
    total = 0.0
    for row in range(6):
        for at in range(2):
            p = 1 / (1 + math.exp(-logits[row, at]))
            total -= float(batch["weight"][row]) * math.log(p if reached[row, at] else 1 - p)
    with jax.enable_x64(True):
        found = funnel_loss(jnp.asarray(logits), jnp.asarray(reached), jnp.asarray(batch["weight"]))
    assert float(found) == pytest.approx(total / float(batch["weight"].sum()), rel=1e-10)
    assert float(funnel_loss(jnp.asarray(logits), jnp.asarray(reached), jnp.zeros(6))) == 0


def test_rows_can_be_those_with_a_label() -> None:
    batch = toy_batch()
    np.testing.assert_array_equal(row_weights(batch), batch["weight"])
    np.testing.assert_array_equal(row_weights(batch, "click"), batch["weight"] * batch["click"])


def test_a_later_step_more_probable_than_an_earlier_one_is_punished() -> None:
    logits = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [0.5, 0.7]])
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    expected = (p[0, 1] - p[0, 0] + 0 + 2 * (p[2, 1] - p[2, 0])) / 4
    assert float(excess(logits, jnp.asarray([1.0, 1.0, 2.0]))) == pytest.approx(expected, rel=1e-5)
