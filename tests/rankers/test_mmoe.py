"""MMoE against its paper's mixtures, row by row."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.mmoe import MMoE
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def as_the_paper(params: oracles.Params, row: np.ndarray) -> list[float]:
    """f_t = tower_t(sum_e softmax(W_t x)_e expert_e(x))."""
    experts = [oracles.dnn(params[f"expert_{e}"], row) for e in range(3)]
    by = np.concatenate(list(row))
    mixed = [oracles.gate(params[f"gate_{t}"], by, experts) for t in range(2)]
    return [oracles.tower(params[f"tower_{t}"], each) for t, each in enumerate(mixed)]


def test_gates_mix_the_experts_for_every_label() -> None:
    params, found = applied(MMoE(lambda name: DNN((6,), name=name), 2, 3, (4,)), FIELDS)
    expected = [as_the_paper(params, row) for row in FIELDS]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert params["gate_0"]["weights"].keys() == {"kernel"}
