"""The rule by which approximate engines are tuned."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.scale.tuning import wanted_share


def test_two_standard_errors_by_hand() -> None:
    assert wanted_share(0.9, 900) == pytest.approx(0.9 + 2 * 0.01)
    assert wanted_share(0.9, 9) == 1.0


def test_a_setting_that_just_falls_short_is_seldom_taken() -> None:
    """Draws of samples of a setting whose recall is 0.99 less a little: about one in 44 reaches the share."""
    found = np.random.default_rng(0).binomial(10_000, 0.9899, 20_000) / 10_000
    assert (found >= wanted_share(0.99, 10_000)).mean() < 0.03
