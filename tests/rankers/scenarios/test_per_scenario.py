"""Tasks over scenarios: the logit of the row's scenario, by the papers' equations."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.mmoe import MMoE
from reland_jax.rankers.ple import PLE
from reland_jax.rankers.scenarios.per_scenario import PerScenario
from reland_jax.rankers.shared_bottom import SharedBottom
from tests.rankers import oracles
from tests.rankers.scenarios.toys import CODES, SCENARIOS, toy_rows
from tests.rankers.toys import applied

ROWS = toy_rows()


def network(name: str) -> DNN:
    return DNN((6,), name=name)


def shared_bottom(params: oracles.Params, row: np.ndarray, s: int) -> float:
    """z_s = tower_s(MLP(x))."""
    return oracles.tower(params[f"tower_{s}"], oracles.dnn(params["network"], row))


def mmoe(params: oracles.Params, row: np.ndarray, s: int) -> float:
    """z_s = tower_s(sum_j softmax(G_s x)_j E_j(x))."""
    experts = [oracles.dnn(params[f"expert_{e}"], row) for e in range(2)]
    mixed = oracles.gate(params[f"gate_{s}"], np.concatenate(list(row)), experts)
    return oracles.tower(params[f"tower_{s}"], mixed)


def ple(params: oracles.Params, row: np.ndarray, s: int) -> float:
    """One level: the scenario's own expert and the shared one."""
    own, shared = (oracles.dnn(params[f"level_0_{name}"], row) for name in (f"expert_{s}_0", "shared_0"))
    mixed = oracles.gate(params[f"level_0_gate_{s}"], np.concatenate(list(row)), [own, shared])
    return oracles.tower(params[f"tower_{s}"], mixed)


@pytest.mark.parametrize(
    ("task", "oracle"),
    [
        (SharedBottom(network, SCENARIOS, (4,)), shared_bottom),
        (MMoE(network, SCENARIOS, 2, (4,)), mmoe),
        (PLE(network, SCENARIOS, 1, 1, 1, (4,)), ple),
    ],
    ids=["shared_bottom", "mmoe", "ple"],
)
def test_every_row_has_the_logit_of_its_scenario(task: object, oracle: object) -> None:
    params, found = applied(PerScenario(task), ROWS)
    for at, code in enumerate(CODES):
        each = [oracle(params["task"], ROWS.fields[at], s) for s in range(SCENARIOS)]
        if code >= 2:
            np.testing.assert_allclose(found[at], each[code - 2], rtol=1e-10)
        else:
            np.testing.assert_allclose(found[at], np.mean(each), rtol=1e-6)
