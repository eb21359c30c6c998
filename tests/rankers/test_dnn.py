"""DNN against its layers unit by unit."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dnn import DNN
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def test_hidden_layers_on_the_fields() -> None:
    params, found = applied(DNN((6, 5)), FIELDS)
    np.testing.assert_allclose(found, [oracles.dnn(params, row) for row in FIELDS], rtol=1e-10, atol=1e-10)
