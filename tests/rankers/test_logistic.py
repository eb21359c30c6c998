"""Logistic regression against a sum."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.logistic import LogisticRegression
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 1))


def test_the_logit_is_the_sum_of_the_weights_and_a_bias() -> None:
    params, found = applied(LogisticRegression(), FIELDS)
    assert list(params) == ["bias"]
    expected = [[sum(float(weight[0]) for weight in row) + float(params["bias"][0])] for row in FIELDS]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
