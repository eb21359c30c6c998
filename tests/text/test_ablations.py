"""Rationales that say nothing: what they keep of the real ones, and what not."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.text.ablations import ABLATED, ablated

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))
RATIONALES = (RNG.normal(size=(4000, 6)) @ MIXING + np.arange(6)).astype(np.float32)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_permuted_moves_every_row_and_loses_none(count: int) -> None:
    rationales = RATIONALES[:count]
    found = ablated(rationales, "permuted")
    assert not (found == rationales).all(axis=1).any()
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(rationales, axis=0))
    assert {row.tobytes() for row in found} == {row.tobytes() for row in rationales}


def test_noise_has_the_statistics_of_the_rationales_and_nothing_of_a_row() -> None:
    found = ablated(RATIONALES, "noise")
    assert found.dtype == np.float32 and found.shape == RATIONALES.shape
    np.testing.assert_allclose(found.mean(0), RATIONALES.mean(0), atol=0.25)
    covariance, expected = (np.cov(side, rowvar=False) for side in (found, RATIONALES))
    np.testing.assert_allclose(covariance, expected, atol=0.05 * np.trace(expected))
    units = [side - side.mean(0) for side in (found, RATIONALES)]
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in units]
    assert abs(np.mean(np.sum(units[0] * units[1], axis=1))) < 0.05


@pytest.mark.parametrize("ablation", list(ABLATED))
def test_the_seed_decides(ablation: str) -> None:
    first, again, other = (ablated(RATIONALES[:20], ablation, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
