"""One label: an output on a network, or the network's own logit."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.logistic import LogisticRegression
from reland_jax.rankers.single import Single
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def test_an_output_on_the_network() -> None:
    params, found = applied(Single(lambda name: DNN((6,), name=name)), FIELDS)
    expected = [[oracles.output(params["logit"], oracles.dnn(params["network"], row))] for row in FIELDS]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_a_linear_network_is_the_logit() -> None:
    params, found = applied(
        Single(lambda name: LogisticRegression(name=name), is_logit=True), FIELDS[..., :1]
    )
    expected = FIELDS[..., 0].sum(1, keepdims=True) + params["network"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
