"""DCN-V2 against the cross layers of its paper, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.rankers.dcn_v2 import DCNV2
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


@pytest.mark.parametrize("only_read", [0, 1])
def test_cross_layers_beside_hidden_layers(only_read: int) -> None:
    params, found = applied(DCNV2(2, (6, 5), only_read=only_read), FIELDS)
    expected = []
    for row in FIELDS:
        every, width = np.concatenate(list(row)), 3 * (4 - only_read)
        crossed = first = every[:width]
        for number in range(2):
            read = np.concatenate([crossed, every[width:]])
            crossed = first * oracles.linear(params[f"cross_{number}"], read) + crossed
        expected.append([*oracles.layers(params["layers"], every), *crossed, *every[width:]])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
