"""Other sequences with the same next item: the supervised view of contrastive learning (DuoRec)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.data.packing import Windows


class Inputs(NamedTuple):
    """The input of every training target, sorted by the target's item.

    An input is a run of a stream of items; the item after its last one is the target.

    Attributes:
        first: ``<int32>[n]``, index of the oldest item in the stream.
        last: ``<int32>[n]``, index of the newest item in the stream.
        begin: ``<int32>[I + 2]``; the inputs of target item ``i`` are ``begin[i] .. begin[i + 1]``.
        rank: ``<int32>[stream]``, place in this list of the input that ends at a stream index.
    """

    first: np.ndarray
    last: np.ndarray
    begin: np.ndarray
    rank: np.ndarray


def inputs_by_target(windows: Windows, num_items: int, every_token: bool) -> Inputs:
    """Lists the inputs of all targets.

    Args:
        windows: training windows.
        num_items: I.
        every_token: whether every token of a window has a target, or the last one only.
    """
    if every_token:
        window = np.repeat(np.arange(len(windows.length)), windows.length)
        begun = np.repeat(np.cumsum(windows.length) - windows.length, windows.length)
        first = windows.start[window]
        last = first + np.arange(len(window)) - begun
    else:
        first, last = windows.start, windows.start + windows.length - 1
    target = windows.stream[last + 1]
    order = np.argsort(target, kind="stable")
    begin = np.searchsorted(target[order], np.arange(num_items + 2))
    rank = np.zeros(len(windows.stream), np.int32)
    rank[last[order]] = np.arange(len(order))
    return Inputs(*(a.astype(np.int32) for a in (first[order], last[order], begin, rank)))


def draw_same_target(inputs: Inputs, target: jax.Array, last: jax.Array, key: jax.Array) -> jax.Array:
    """For each input another one with the same target, uniformly; itself where there is no other.

    Args:
        inputs: see `inputs_by_target`.
        target: ``<int32>[N]``, target item of each input.
        last: ``<int32>[N]``, index of its newest item in the stream.
        key: PRNG key.

    Returns:
        ``<int32>[N]``, places in `inputs`.
    """
    begin = inputs.begin[target]
    count = inputs.begin[target + 1] - begin
    step = jax.random.randint(key, target.shape, 1, jnp.maximum(count, 2))
    return begin + (inputs.rank[last] - begin + step) % jnp.maximum(count, 1)


def padded_inputs(
    stream: jax.Array, first: jax.Array, last: jax.Array, length: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs in a row each.

    Args:
        stream: ``<int32>[n]``.
        first: ``<int32>[N]``.
        last: ``<int32>[N]``, at least `first`.
        length: L, items of an input that are kept, the most recent ones.

    Returns:
        Items, position and segment ``<int32>[N, L]`` as in `reland_jax.data.packing.Packed`; the newest
        item of row ``i`` stands at ``min(last[i] - first[i], L - 1)``.
    """
    first = jnp.maximum(first, last - length + 1)
    offset = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (len(first), length))
    used = offset <= (last - first)[:, None]
    source = jnp.where(used, first[:, None] + offset, 0)
    return (
        jnp.where(used, stream[source], 0),
        jnp.where(used, offset, 0),
        jnp.where(used, jnp.arange(1, len(first) + 1)[:, None], 0),
    )
