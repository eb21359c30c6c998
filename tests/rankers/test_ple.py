"""PLE against its paper's levels, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.ple import PLE
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))
LABELS, SHARED, OWN = 2, 2, 1


def as_the_paper(params: oracles.Params, row: np.ndarray, levels: int) -> list[float]:
    """Equations of progressive layered extraction; x_t and x_s start as the fields."""
    x = [np.concatenate(list(row))] * LABELS
    x_shared = x[0]

    def expert(level: int, name: str, of: np.ndarray) -> np.ndarray:
        own = params[f"level_{level}_{name}"]
        return oracles.dnn(own, row) if level == 0 else oracles.layers(own, of)

    for level in range(levels):
        shared = [expert(level, f"shared_{n}", x_shared) for n in range(SHARED)]
        own = [[expert(level, f"expert_{t}_{n}", x[t]) for n in range(OWN)] for t in range(LABELS)]
        mixed = [
            oracles.gate(params[f"level_{level}_gate_{t}"], x[t], own[t] + shared) for t in range(LABELS)
        ]
        if level < levels - 1:
            x_shared = oracles.gate(params[f"level_{level}_gate_shared"], x_shared, sum(own, []) + shared)
        x = mixed
    return [oracles.tower(params[f"tower_{t}"], x[t]) for t in range(LABELS)]


@pytest.mark.parametrize("levels", [1, 3])
def test_levels_of_experts(levels: int) -> None:
    module = PLE(lambda name: DNN((6,), name=name), LABELS, SHARED, OWN, levels, (4,))
    params, found = applied(module, FIELDS)
    expected = [as_the_paper(params, row, levels) for row in FIELDS]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert f"level_{levels - 1}_gate_shared" not in params
