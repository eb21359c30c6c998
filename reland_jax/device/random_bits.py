"""Random numbers: which generator, and how many bits an element of a dropout mask takes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from reland_jax.device.sizes import sizes

_NEAR = 0.05
"""By so much of itself a dropout rate may be rounded."""


def random_key(seed: jax.Array | int) -> jax.Array:
    """A PRNG key of the generator in the table of the device, whatever JAX is set to.

    Args:
        seed: ``<int32>[]``.
    """
    return jax.random.key(seed, impl=sizes().random_bits)


def bits_of(rate: float) -> int:
    """Random bits per element that dropout draws: 8, or 32 where bytes would miss the rate by 5% of it.

    Args:
        rate: share of elements dropped, in [0, 1).
    """
    rounded = 1 - round((1 - rate) * 256) / 256
    near = abs(rounded - rate) <= _NEAR * rate and rounded < 1
    return 8 if near and sizes().dropout_by_bytes else 32


def drawn_rate(rate: float) -> float:
    """The share of elements that dropout drops: `rate`, rounded to what its random bits can tell apart.

    Args:
        rate: as it was set, in [0, 1).
    """
    bits = bits_of(rate)
    return 1 - round((1 - rate) * 2**bits) / 2**bits


def kept(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Which elements dropout keeps, ``<bool>`` of `shape`.

    Args:
        key: PRNG key.
        shape: of what is dropped from.
        rate: share of elements dropped, in (0, 1).
    """
    bits = bits_of(rate)
    least = round((1 - rate) * 2**bits)
    if bits == 32:
        return jax.random.bits(key, shape, jnp.uint32) < jnp.uint32(least)
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape) < least
