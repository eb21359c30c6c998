"""Dropout by bytes: rate, scale, keys and odd sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.models.dropout import Dropout


def drop(rate: float, x: np.ndarray, key: int = 0, deterministic: bool = False) -> np.ndarray:
    rngs = {"dropout": jax.random.key(key)}
    return np.asarray(Dropout(rate).apply({}, jnp.asarray(x), deterministic, rngs=rngs))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9, 0.99])
def test_share_and_scale(rate: float) -> None:
    """The share dropped is the rate to within 1/512 and chance, and the mean is kept."""
    found = drop(rate, np.ones((400, 501), np.float32))
    kept = round((1 - rate) * 256)
    assert set(np.unique(found)) == {0.0, np.float32(256 / kept)}
    chance = 4 * np.sqrt(rate * (1 - rate) / found.size)
    assert abs((found == 0).mean() - rate) < 1 / 512 + chance
    assert found.mean() == pytest.approx(1.0, abs=chance * 256 / kept)


def test_every_byte_of_a_word_is_independent() -> None:
    """Four neighbours share a random word; none of them may tell of another, nor of the next word."""
    dropped = drop(0.5, np.ones(200_000, np.float32)) == 0
    for shift in range(1, 9):
        agreement = (dropped[shift:] == dropped[:-shift]).mean()
        assert abs(agreement - 0.5) < 4 * 0.5 / np.sqrt(len(dropped))


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 1), (2, 3, 7), (0, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert drop(0.5, np.ones(shape, np.float32)).shape == shape


def test_the_key_decides() -> None:
    x = np.random.default_rng(0).normal(size=(64, 9)).astype(np.float32)
    np.testing.assert_array_equal(drop(0.3, x, key=1), drop(0.3, x, key=1))
    assert (drop(0.3, x, key=1) != drop(0.3, x, key=2)).any()


def test_nothing_is_dropped_in_evaluation_or_without_a_rate() -> None:
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    np.testing.assert_array_equal(drop(0.9, x, deterministic=True), x)
    np.testing.assert_array_equal(drop(0.0, x), x)


def test_the_gradient_goes_through_what_is_kept() -> None:
    x = jnp.ones((16, 16))
    rngs = {"dropout": jax.random.key(0)}
    gradient = jax.grad(lambda x: Dropout(0.5).apply({}, x, False, rngs=rngs).sum())(x)
    np.testing.assert_array_equal(gradient, Dropout(0.5).apply({}, x, False, rngs=rngs))
