"""The attention of DIN against its paper's sum, item by item."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.din import CandidateAttention
from tests.rankers import oracles
from tests.rankers.toys import applied

RNG = np.random.default_rng(0)
HISTORY, CANDIDATE = RNG.normal(size=(4, 5, 3)), RNG.normal(size=(4, 3))
THERE = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def as_the_paper(
    params: oracles.Params, history: np.ndarray, there: np.ndarray, candidate: np.ndarray
) -> np.ndarray:
    """sum_h a(h, c) h over the items that are there; the weights are not normalised."""
    found = np.zeros(3)
    for item, is_there in zip(history, there, strict=True):
        if not is_there:
            continue
        hidden = np.concatenate([item, candidate, item - candidate, item * candidate])
        for number in range(2):
            hidden = oracles.sigmoid(oracles.linear(params[f"layer_{number}"], hidden))
        found += oracles.linear(params["weight"], hidden)[0] * item
    return found


def test_a_weighted_sum_of_the_history() -> None:
    params, found = applied(CandidateAttention((6, 4)), HISTORY, THERE, CANDIDATE)
    expected = [as_the_paper(params, *row) for row in zip(HISTORY, THERE, CANDIDATE, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(found[3], 0)


def test_what_is_not_there_has_no_part() -> None:
    other = np.where(THERE[..., None], HISTORY, 1e3)
    _, found = applied(CandidateAttention((6, 4)), HISTORY, THERE, CANDIDATE)
    _, again = applied(CandidateAttention((6, 4)), other, THERE, CANDIDATE)
    np.testing.assert_array_equal(found, again)
