"""AITM against its paper's transfer, row by row."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.aitm import AITM
from reland_jax.rankers.dnn import DNN
from tests.rankers import oracles
from tests.rankers.toys import applied

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))
LABELS = 3


def transfer(params: oracles.Params, handed: np.ndarray, own: np.ndarray) -> np.ndarray:
    """z = sum_u w_u h1(u), w = softmax(<h2(u), h3(u)> / sqrt(width)), u in {handed on, own}."""
    pairs = [handed, own]
    values, keys, queries = (
        [oracles.linear(params[name], each) for each in pairs] for name in ("value", "key", "query")
    )
    likeness = np.array([key @ query for key, query in zip(keys, queries, strict=True)]) / len(own) ** 0.5
    return sum(share * value for share, value in zip(oracles.softmax(likeness), values, strict=True))


def as_the_paper(params: oracles.Params, row: np.ndarray) -> list[float]:
    """Every step of the funnel after the one before it."""
    logits, hidden = [], np.zeros(0)
    for t in range(LABELS):
        own = oracles.layers(params[f"tower_{t}"], oracles.dnn(params[f"network_{t}"], row))
        if t:
            own = transfer(params[f"transfer_{t}"], oracles.layers(params[f"handed_{t}"], hidden), own)
        hidden = own
        logits.append(oracles.output(params[f"logit_{t}"], hidden))
    return logits


def test_each_step_is_told_what_the_one_before_knows() -> None:
    params, found = applied(AITM(lambda name: DNN((6,), name=name), LABELS, (5, 4)), FIELDS)
    expected = [as_the_paper(params, row) for row in FIELDS]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
