"""Training examples of sequences, packed into rows of fixed width without padding each to the maximum.

A *window* is a run of at most L consecutive items of one user. Windows of different users share a row
of W = L tokens, kept apart by a segment mask, so the encoder spends its time on items and not on
padding. On Amazon Beauty a row of 50 holds seven users; padding each user to 50 would cost seven times
the work.

The trick that keeps every shape static, with exact coverage and no overflow, is that the layout is
decided by lengths alone. Windows are sorted by length and dealt round-robin to the batches, so slot
``j`` of batch ``b`` has the same length in every epoch; an epoch's shuffle permutes windows of equal
length (`shuffle_order`), and the layout, computed once, stays valid. The batches are thereby
stratified by length, which makes their numbers of targets equal to within one window.
"""

from __future__ import annotations

from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.types import Array, Ragged


class Windows(NamedTuple, Generic[Array]):
    """Windows over a stream of items, longest first; of the host or of a device.

    Attributes:
        stream: ``<int32>[n]``, all users' items one after the other.
        start: ``<int32>[N]``, where each window's input begins in `stream`.
        length: ``<int32>[N]`` in 1 .. L, not increasing.
        user: ``<int32>[N]``.
    """

    stream: Array
    start: Array
    length: Array
    user: Array


class Layout(NamedTuple):
    """The places of the windows in every batch.

    Attributes:
        place: ``<int32>[N_b, N_j]``, first token of slot ``j`` in the batch's ``R * W`` tokens, not
            decreasing; an unused slot is ``R * W``.
        length: ``<int32>[N_b, N_j]``, 0 for an unused slot.
        order: ``<int32>[N_b, N_j]``, the rank (position in the length-sorted `Windows`) of the
            window in each slot before shuffling; ``N`` for an unused slot.
        rows: R, rows of a batch.
        width: W, tokens of a row.
    """

    place: np.ndarray
    length: np.ndarray
    order: np.ndarray
    rows: int
    width: int


class Packed(NamedTuple):
    """One batch of tokens; see `pack`.

    Attributes:
        items: ``<int32>[R, W]``, 0 where there is no token.
        position: ``<int32>[R, W]``, index within the window, from 0 at its oldest item.
        segment: ``<int32>[R, W]``, slot + 1, or 0 where there is no token.
        window: ``<int32>[R, W]``, number of the window, 0 where there is no token.
    """

    items: jax.Array
    position: jax.Array
    segment: jax.Array
    window: jax.Array


def last_windows(history: Ragged, max_length: int) -> Windows[np.ndarray]:
    """One window per user: the most recent items, to encode the history.

    Args:
        history: ``U`` rows, chronological.
        max_length: L.
    """
    length = history.lengths()
    start = history.indptr[:-1] + np.maximum(length - max_length, 0)
    return _windows(history, start, np.minimum(length, max_length), np.arange(history.num_rows))


def shifted_windows(history: Ragged, max_length: int) -> Windows[np.ndarray]:
    """Windows in which the item after each input is its target, covering every target once.

    A sequence of more than L targets is cut into several windows, counted from its end, so that no
    training target is lost; the targets of an older window see the context of their own window only.
    """
    targets = np.maximum(history.lengths() - 1, 0)
    windows = -(-targets // max_length)
    user = np.repeat(np.arange(history.num_rows), windows)
    age = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
    end = targets[user] - age * max_length
    start = np.maximum(end - max_length, 0)
    return _windows(history, history.indptr[user] + start, end - start, user)


def prefix_windows(history: Ragged, max_length: int) -> Windows[np.ndarray]:
    """One window per item that has a predecessor: the items before it (RecBole's augmentation)."""
    user = np.repeat(np.arange(history.num_rows), np.maximum(history.lengths() - 1, 0))
    first = np.repeat(history.indptr[:-1], np.maximum(history.lengths() - 1, 0))
    count = np.concatenate([[0], np.cumsum(np.maximum(history.lengths() - 1, 0))])
    length = np.arange(len(user)) - np.repeat(count[:-1], np.diff(count)) + 1
    start = first + np.maximum(length - max_length, 0)
    return _windows(history, start, np.minimum(length, max_length), user)


def _windows(history: Ragged, start: np.ndarray, length: np.ndarray, user: np.ndarray) -> Windows[np.ndarray]:
    order = np.argsort(-length, kind="stable")
    order = order[length[order] > 0]
    stream = history.items.astype(np.int32, copy=False)
    return Windows(stream, *(a[order].astype(np.int32) for a in (start, length, user)))


def plan_layout(length: np.ndarray, num_batches: int, width: int) -> Layout:
    """Deals length-sorted windows to batches and places them in rows, first fit.

    The loop runs over the slots of a batch, for all batches at once.

    Args:
        length: ``<int32>[N]``, not increasing, each in 1 .. `width`.
        num_batches: number of batches an epoch consists of.
        width: W.
    """
    slots = -(-len(length) // num_batches)
    order = np.arange(slots * num_batches).reshape(slots, num_batches).T
    padded = np.zeros(order.size, np.int32)
    padded[: len(length)] = length
    lengths = padded[order]
    # First fit leaves no two rows that could share one, so all rows but one are on average half full.
    rows = 2 * int(lengths.sum(1).max()) // width + 1
    free = np.full((num_batches, rows), width, np.int32)
    place = np.empty((num_batches, slots), np.int32)
    batch = np.arange(num_batches)
    for slot in range(slots):
        row = np.argmax(free >= np.maximum(lengths[:, slot], 1)[:, None], axis=1)
        place[:, slot] = row * width + (width - free[batch, row])
        free[batch, row] -= lengths[:, slot]
    rows = int((free < width).any(0).sum())
    place = np.where(lengths > 0, place, rows * width)
    by_place = np.argsort(place, axis=1, kind="stable")
    arrays = (place, lengths, np.minimum(order, len(length)))
    place, lengths, ranks = (np.take_along_axis(a, by_place, 1).astype(np.int32) for a in arrays)
    return Layout(place, lengths, ranks, rows, width)


def shuffle_order(key: jax.Array, length: jax.Array) -> jax.Array:
    """A random order of the windows in which only windows of equal length change places.

    Args:
        key: PRNG key.
        length: ``<int32>[N]``, not increasing.

    Returns:
        ``<int32>[N]``: the window that takes each rank.
    """
    bits = jax.random.bits(key, length.shape, jnp.uint32)
    return jax.lax.sort((-length, bits, jnp.arange(len(length), dtype=jnp.int32)), num_keys=2)[2]


def pack(
    windows: Windows[jax.Array], place: jax.Array, length: jax.Array, chosen: jax.Array, rows: int, width: int
) -> Packed:
    """Gathers one batch of tokens on the device.

    Args:
        windows: device arrays.
        place: ``<int32>[N_j]``, one row of `Layout.place`.
        length: ``<int32>[N_j]``, one row of `Layout.length`.
        chosen: ``<int32>[N_j]``, the window in every slot (any value for an unused slot).
        rows: R.
        width: W.
    """
    slot_at = (
        jnp.zeros(rows * width, jnp.int32).at[place].max(jnp.arange(len(place), dtype=jnp.int32), mode="drop")
    )
    # A window's tokens follow its first one, so the slot of a token is the last one begun before it.
    slot = jax.lax.cummax(slot_at)
    position = jnp.arange(rows * width, dtype=jnp.int32) - place[slot]
    used = (position >= 0) & (position < length[slot])
    window = jnp.where(used, chosen[slot], 0)
    source = jnp.where(used, windows.start[window] + position, 0)
    values = (windows.stream[source], position, slot + 1, window)
    return Packed(*(jnp.where(used, v, 0).reshape(rows, width) for v in values))
