"""Shared bottom against its layers."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.shared_bottom import SharedBottom
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def test_towers_on_one_network() -> None:
    params, found = applied(SharedBottom(lambda name: DNN((6,), name=name), 3, (4, 3)), FIELDS)
    expected = [
        [oracles.tower(params[f"tower_{at}"], oracles.dnn(params["network"], row)) for at in range(3)]
        for row in FIELDS
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
