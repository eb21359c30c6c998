"""ESMM against the product of probabilities that its paper defines."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.esmm import ESMM
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))


def test_reaching_a_conversion_is_a_product() -> None:
    params, found = applied(ESMM(lambda name: DNN((6,), name=name), 2), FIELDS)
    for row, logits in zip(FIELDS, found, strict=True):
        click, conversion = (
            oracles.sigmoid(oracles.output(params[f"logit_{at}"], oracles.dnn(params[f"network_{at}"], row)))
            for at in range(2)
        )
        reached = oracles.sigmoid(logits)
        np.testing.assert_allclose(reached, [click, click * conversion], rtol=1e-10)
