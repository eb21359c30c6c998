"""EPNet, PPNet and both against their paper's equations, and where gradients do not go."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.scenarios.epnet import EPNet, Gated
from reland_jax.rankers.scenarios.ppnet import PPNet
from reland_jax.rankers.single import Single
from tests.rankers import oracles
from tests.rankers.scenarios.toys import toy_rows
from tests.rankers.toys import applied, random_like

ROWS = toy_rows()


def gate(params: oracles.Params, read: np.ndarray) -> np.ndarray:
    """2 sigmoid(MLP(read))."""
    return 2 * oracles.sigmoid(
        oracles.linear(params["outer"], oracles.relu(oracles.linear(params["inner"], read)))
    )


def gated_fields(params: oracles.Params, at: int) -> np.ndarray:
    """e o 2 sigmoid(MLP([domain ; e]))."""
    e = np.concatenate(list(np.asarray(ROWS.fields[at], np.float64)))
    return e * gate(params["gate"], np.concatenate([np.asarray(ROWS.domain[at]), e]))


def test_epnet_scales_the_embeddings() -> None:
    params, found = applied(Gated(Single(lambda name: DNN((6,), name=name)), 4), ROWS)
    for at in range(len(found)):
        e = gated_fields(params["epnet"], at)
        hidden = oracles.layers(params["task"]["network"]["layers"], e)
        np.testing.assert_allclose(found[at], oracles.output(params["task"]["logit"], hidden), rtol=1e-10)


@pytest.mark.parametrize("both", [False, True], ids=["ppnet", "pepnet"])
def test_ppnet_scales_the_input_of_every_layer(both: bool) -> None:
    params, found = applied(PPNet((6, 5), 4, both), ROWS)
    for at in range(len(found)):
        x = gated_fields(params["epnet"], at) if both else np.concatenate(list(ROWS.fields[at]))
        read = np.concatenate([np.asarray(ROWS.prior[at]), x])
        for number in range(2):
            scaled = x * gate(params[f"gate_{number}"], read)
            x = oracles.relu(oracles.linear(params[f"layer_{number}"], scaled))
        scaled = x * gate(params["gate_output"], read)
        np.testing.assert_allclose(found[at], oracles.linear(params["output"], scaled)[0], rtol=1e-10)


def test_embeddings_get_gradients_by_the_main_path_only() -> None:
    """With gates held at what they are, the gradient is the same."""
    module = EPNet(4)
    params = random_like(jax.eval_shape(module.init, jax.random.key(0), ROWS))
    fields = np.asarray(ROWS.fields)
    scale = np.asarray(module.apply(params, ROWS)) / fields
    found = jax.grad(lambda e: module.apply(params, ROWS._replace(fields=e)).sum())(fields)
    np.testing.assert_allclose(found, scale, rtol=1e-4)
