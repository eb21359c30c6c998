"""DCN-V2 against the cross layers of its paper, row by row."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dcn_v2 import DCNV2
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def test_cross_layers_beside_hidden_layers() -> None:
    params, found = applied(DCNV2(2, (6, 5)), FIELDS)
    expected = []
    for row in FIELDS:
        first = np.concatenate(list(row))
        crossed = first
        for number in range(2):
            crossed = first * oracles.linear(params[f"cross_{number}"], crossed) + crossed
        expected.append([*oracles.layers(params["layers"], first), *crossed])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
