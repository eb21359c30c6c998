"""Other sequences with the same next item: the supervised view of contrastive learning (DuoRec)."""

from __future__ import annotations

from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.data.packing import Packed, Windows, pack
from reland_jax.types import Array

_SIMULATED = 64
"""Batches of random inputs by which the width of a row is chosen."""

_EVEN_WIDTH = 128
"""About where the attention of a token to its row costs as much as the layers around it, at D = 64."""


class InputsByTarget(NamedTuple, Generic[Array]):
    """The input of every training target, sorted by the target's item; of the host or of a device.

    An input is a run of a stream of items; the item after its last one is the target.

    Attributes:
        first: ``<int32>[n]``, index of the oldest item in the stream.
        last: ``<int32>[n]``, index of the newest item in the stream.
        begin: ``<int32>[I + 2]``; the inputs of target item ``i`` are ``begin[i] .. begin[i + 1]``.
        rank: ``<int32>[stream]``, place in this list of the input that ends at a stream index.
    """

    first: Array
    last: Array
    begin: Array
    rank: Array


def inputs_by_target(
    windows: Windows[np.ndarray], num_items: int, every_token: bool
) -> InputsByTarget[np.ndarray]:
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
    return InputsByTarget(*(a.astype(np.int32) for a in (first[order], last[order], begin, rank)))


def draw_same_target(
    inputs: InputsByTarget[jax.Array], target: jax.Array, last: jax.Array, key: jax.Array
) -> jax.Array:
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


class RowPlan(NamedTuple):
    """How the inputs of a batch share rows.

    Attributes:
        share: k, inputs to a row.
        width: W, tokens of a row.
        length: L, items of an input that are kept, the most recent ones.
    """

    share: int
    width: int
    length: int


def plan_rows(inputs: InputsByTarget[np.ndarray], count: int, length: int) -> RowPlan:
    """The cheapest plan for batches of random inputs: few tokens, in rows that are not too wide.

    Args:
        inputs: what is drawn from.
        count: N, inputs of a batch.
        length: L.
    """
    lengths = np.minimum(inputs.last - inputs.first + 1, length)
    batches = np.sort(np.random.default_rng(0).choice(lengths, (_SIMULATED, count)), axis=1)[:, ::-1]
    widths = {}
    for share in range(1, length + 1):
        filled_up = np.pad(batches, ((0, 0), (0, -count % share)))
        widths[share] = int(_deal_boustrophedon(filled_up, share).sum(-1).max())
    share = min(widths, key=lambda k: -(-count // k) * widths[k] * (widths[k] + _EVEN_WIDTH))
    return RowPlan(share, widths[share], length)


def pack_rows(
    stream: jax.Array, first: jax.Array, last: jax.Array, row_plan: RowPlan, rows: int
) -> tuple[Packed, jax.Array]:
    """Packs inputs whose lengths are known only within the step.

    Sorted by length, they are dealt to the rows in snake order, so that every row has a long one and short
    ones. In the rare batch in which a row would need more than W tokens, its last inputs lose their oldest
    items.

    Args:
        stream: ``<int32>[n]``.
        first: ``<int32>[N]``, index of the oldest item of each input.
        last: ``<int32>[N]``, index of its newest item; one below `first` for an input that is not used.
        row_plan: see `plan_rows`.
        rows: R, at least N / k.

    Returns:
        The tokens, and for every input the token (of R * W) of its newest item, 0 if it is not used.
    """
    count, (share, width, _) = len(first), row_plan
    length = jnp.minimum(last - first + 1, row_plan.length)
    order = jnp.argsort(-length)
    dealt = _deal_boustrophedon(jnp.pad(order, (0, rows * share - count), constant_values=count), share)
    kept = jnp.pad(length, (0, 1))[dealt]
    # What is left of a row, less one token for each of the inputs that follow.
    begun = jnp.minimum(jnp.cumsum(kept, -1) - kept, width - share + jnp.arange(share))
    kept = jnp.minimum(kept, width - share + 1 + jnp.arange(share) - begun)
    place = jnp.where(kept > 0, begun + width * jnp.arange(rows)[:, None], rows * width)
    dealt, kept, place = (each.reshape(-1) for each in (dealt, kept, place))
    source = jnp.pad(last, (0, 1))[dealt] - kept + 1
    windows = Windows(stream, source, kept, source)
    packed = pack(windows, place, kept, jnp.arange(len(dealt), dtype=jnp.int32), rows, width)
    newest = jnp.zeros(count, jnp.int32).at[dealt].set(jnp.where(kept > 0, place + kept - 1, 0), mode="drop")
    return packed, newest


def _deal_boustrophedon(ranked: Array, share: int) -> Array:
    """Deals entries to rows in snake order: ``[..., R * k]``, longest first -> ``[..., R, k]``."""
    dealt = ranked.reshape(*ranked.shape[:-1], share, -1)
    back = np.arange(share)[:, None] % 2 == 1
    xp = np if isinstance(ranked, np.ndarray) else jnp
    return xp.swapaxes(xp.where(back, dealt[..., ::-1], dealt), -1, -2)
