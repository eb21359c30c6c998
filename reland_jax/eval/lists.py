"""Lists of users' best items."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.device import sizes
from reland_jax.eval.ranks import Vectors
from reland_jax.mesh import DATA, MODEL, axis_size, constrain
from reland_jax.types import PADDING_ITEM, Splits

_MOST_AT_A_TIME = 256
_BLOCK = 32
"""Columns of scores that are looked at together; by measuring on a CPU, 16 and 64 are no better."""


@partial(jax.jit, static_argnames=("count", "num_items"))
def best(
    vectors: Vectors,
    users: jax.Array,
    masked: jax.Array,
    allowed: jax.Array | None,
    count: int,
    num_items: int,
) -> tuple[jax.Array, jax.Array]:
    """The best items of some users, as a pure function; arguments and results as `recommend`.

    Args:
        vectors: of all users and items.
        users: ``<int32>[B]``.
        masked: ``<int32>[B, M]``.
        allowed: ``<bool>[I + 1]``, items that lists are made of; None takes all.
        count: K, at most I.
        num_items: I.
    """
    scores = _scores(vectors, users, allowed, num_items)
    scores = scores.at[jnp.arange(users.shape[0])[:, None], masked].set(-jnp.inf)
    best, found = largest(scores, count)
    return constrain(jnp.where(jnp.isneginf(best), PADDING_ITEM, found)), constrain(best)


def largest(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The same as ``jax.lax.top_k(scores, count)``, in less time for long rows on one device.

    Of the blocks of a row, only the `count` with the largest maxima are sorted. A value in another block has
    `count` others before it, for each of these blocks has one that is larger, or equal and further left.

    Args:
        scores: ``<float32>[B, n]``, without NaN.
        count: K, at most n.

    Returns:
        Values ``<float32>[B, K]`` and places ``<int32>[B, K]``; of equal values the left one is first.
    """
    rows, length = scores.shape
    if length % _BLOCK or length < _BLOCK * 2 * count or axis_size(MODEL) > 1:
        return jax.lax.top_k(scores, count)
    blocks = scores.reshape(rows, -1, _BLOCK)
    which = jnp.sort(jax.lax.top_k(blocks.max(2), count)[1], axis=1)
    inside = jnp.take_along_axis(blocks, which[:, :, None], axis=1).reshape(rows, -1)
    values, place = jax.lax.top_k(inside, count)
    block = jnp.take_along_axis(which, place // _BLOCK, axis=1)
    return values, block * _BLOCK + place % _BLOCK


def recommend(
    vectors: Vectors,
    users: jax.Array,
    masked: jax.Array,
    count: int,
    num_items: int,
    allowed: jax.Array | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best items of a few users, for people to look at: never a masked item, nor the padding item.

    Args:
        vectors: of all users and items.
        users: ``<int32>[B]``.
        masked: ``<int32>[B, M]``, items to leave out of each list, 0 where unused.
        count: length of a list, K; there are never more than I items in one.
        num_items: I.
        allowed: ``<bool>[I + 1]``, items that lists are made of; None takes all.

    Returns:
        Items ``<int32>[B, min(K, I)]``, best first, and their scores ``<float32>``. Where fewer items are
        left for a user, its list ends with `PADDING_ITEM` and scores of minus infinity.
    """
    item, score = best(vectors, users, masked, allowed, min(count, num_items), num_items)
    return np.asarray(item), np.asarray(score)


def _scores(vectors: Vectors, user: jax.Array, allowed: jax.Array | None, num_items: int) -> jax.Array:
    """``<float32>[B, rows]``, whole blocks of columns; the lowest score where there is no such item.

    A mesh shards both sides.
    """
    users, items = constrain(vectors.users[user], DATA), constrain(vectors.items, MODEL)
    scores = constrain(vectors.score(users, items), DATA, MODEL)
    more = -scores.shape[1] % _BLOCK if axis_size(MODEL) == 1 else 0
    number = jnp.arange(scores.shape[1] + more)
    is_item = (number != PADDING_ITEM) & (number <= num_items)
    if allowed is not None:
        is_item &= jnp.pad(allowed, (0, len(number) - len(allowed)))
    return jnp.where(is_item, jnp.pad(scores, ((0, 0), (0, more))), -jnp.inf)


def best_items(
    vectors: Vectors, splits: Splits, users: np.ndarray, count: int, mask_history: bool
) -> np.ndarray:
    """The best items of users after their validation items, some users at a time.

    Args:
        vectors: of all users and items, for the test part.
        splits: the history is their training and validation part.
        users: ``<int>[B]``.
        count: length of a list, K.
        mask_history: whether the lists leave the history out.

    Returns:
        ``<int32>[B, min(K, I)]``, best first; where fewer are left a list ends with `PADDING_ITEM`.
    """
    masked = _history(splits, users) if mask_history else np.zeros((len(users), 1), np.int32)
    most = int(np.clip(sizes().score_bytes // (8 * (splits.num_items + 1)), 1, _MOST_AT_A_TIME))
    tiles = max(1, -(-len(users) // most))
    rows = np.arange(tiles * -(-len(users) // tiles)).reshape(tiles, -1) % max(len(users), 1)
    found = [
        recommend(vectors, jnp.asarray(users[at]), jnp.asarray(masked[at]), count, splits.num_items)[0]
        for at in rows
    ]
    return np.concatenate(found)[: len(users)]


def _history(splits: Splits, users: np.ndarray) -> np.ndarray:
    rows = [np.concatenate([splits.train.row(u), splits.valid.row(u)]) for u in users]
    out = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out
