"""Arrays that are set aside, so that a step has the memory of the device for itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from reland_jax.device.sizes import sizes

DEVICE = "device"


def set_aside(tree: Any) -> Any:
    """A copy of arrays in the memory that the table names; the originals may be donated."""
    if sizes().best_kept_in == DEVICE:
        return jax.tree.map(jnp.copy, tree)
    return jax.tree.map(lambda leaf: _moved(leaf, sizes().best_kept_in), tree)


def taken_back(tree: Any) -> Any:
    """The arrays in the memory of their devices."""
    return jax.tree.map(lambda leaf: _moved(leaf, DEVICE), tree)


def _moved(leaf: jax.Array, memory: str) -> jax.Array:
    if leaf.sharding.memory_kind == memory:
        return leaf
    return jax.device_put(leaf, leaf.sharding.with_memory_kind(memory), may_alias=False)
