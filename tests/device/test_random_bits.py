"""Random numbers: the generator, and dropout's rates and masks by 8 and by 32 bits."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from reland_jax.device import drawn_rate, kept, random_key, sizes, use_sizes

BY_WORDS = dataclasses.replace(sizes(), dropout_by_bytes=False)


@pytest.mark.parametrize(
    ("rate", "drawn"), [(0.5, 0.5), (0.1, 26 / 256), (0.2, 51 / 256), (0.05, 13 / 256), (0.99, 253 / 256)]
)
def test_bytes_round_the_rate(rate: float, drawn: float) -> None:
    assert drawn_rate(rate) == drawn
    with use_sizes(BY_WORDS):
        assert drawn_rate(rate) == pytest.approx(rate, abs=2**-32)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.999])
def test_a_rate_that_bytes_would_miss_takes_words(rate: float) -> None:
    """With bytes 0.001 would drop nothing, and 0.01 17% more than was asked for."""
    assert drawn_rate(rate) == pytest.approx(rate, abs=2**-32)
    share = 1 - np.asarray(kept(random_key(0), (1000, 1000), rate)).mean()
    assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 1e6))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_both_widths_keep_the_share_they_say(rate: float) -> None:
    for column in (sizes(), BY_WORDS):
        with use_sizes(column):
            mask = np.asarray(kept(random_key(3), (999, 301), rate))
            again, other = (np.asarray(kept(random_key(seed), mask.shape, rate)) for seed in (3, 4))
        assert mask.mean() == pytest.approx(1 - drawn_rate(rate), abs=4e-3)
        assert (mask == again).all() and (mask != other).any()


def test_the_generator_is_that_of_the_table() -> None:
    with jax.default_prng_impl("rbg"):
        own = random_key(5)
    np.testing.assert_array_equal(jax.random.key_data(own), jax.random.key_data(jax.random.key(5)))
    with use_sizes(dataclasses.replace(sizes(), random_bits="rbg")):
        assert jax.random.key_impl(random_key(5)) == "rbg"
