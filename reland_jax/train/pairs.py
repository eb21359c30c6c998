"""Training pairs of collaborative recommenders: their arrays, shuffles, negatives and batches."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reland_jax.mesh import DATA, pad_to_axis
from reland_jax.models import AnyTables, PairBatch, Tables
from reland_jax.train.placement import distribute
from reland_jax.types import Ragged


class PairData(NamedTuple):
    """Observed pairs on the device.

    Attributes:
        user: ``<int32>[n]``.
        item: ``<int32>[n]``.
        indptr: ``<int32>[U + 1]``, rows of `distinct`.
        distinct: ``<int32>[m]``, every user's items in ascending order, each once.
    """

    user: jax.Array
    item: jax.Array
    indptr: jax.Array
    distinct: jax.Array


def pair_data(train: Ragged) -> PairData:
    """The training pairs of a split, on the devices."""
    user = np.repeat(np.arange(train.num_rows, dtype=np.int32), train.lengths())
    width = int(train.items.max(initial=0)) + 1
    owner, distinct = np.divmod(np.unique(user.astype(np.int64) * width + train.items), width)
    indptr, distinct = np.searchsorted(owner, np.arange(train.num_rows + 1)), distinct.astype(np.int32)
    arrays = {"user": user, "item": train.items, "indptr": indptr.astype(np.int32), "distinct": distinct}
    return PairData(**distribute(arrays))


def with_profiles(tables: AnyTables, train: Ragged) -> AnyTables:
    """The tables with `profile` and `activity`, the unit texts of every user's training items."""
    assert tables.item_text is not None
    texts = np.asarray(tables.item_text)
    texts = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9)
    had = sparse.csr_array(
        (np.ones(len(train.items), np.float32), train.items, train.indptr), (train.num_rows, len(texts))
    )
    profile, activity = np.asarray(had @ texts, np.float32), train.lengths().astype(np.int32)
    return Tables(**(tables._asdict() | {"profile": profile, "activity": activity}))


def sample_negatives(
    data: PairData, user: jax.Array, count: int, num_items: int, longest: int, key: jax.Array
) -> jax.Array:
    """Items drawn uniformly from those a user has not interacted with in training.

    A number r below I - n is drawn, for the r-th item that is not among the user's n. Below the j-th of
    the user's items (from 0, in ascending order) lie ``item - 1 - j`` others, so a binary search for r in
    these numbers tells how many of the user's items to skip. A user who has all items gets any of them.

    Args:
        data: see `PairData`.
        user: ``<int32>[B]``.
        count: negatives per user.
        num_items: I.
        longest: the largest number of distinct items of a user.
        key: PRNG key.

    Returns:
        ``<int32>[B, count]`` in 1 .. I.
    """
    begin, end = (bound[:, None] for bound in (data.indptr[user], data.indptr[user + 1]))
    left = num_items - (end - begin)
    drawn = jax.random.randint(key, (len(user), count), 0, jnp.where(left > 0, left, num_items))
    low, high = jnp.broadcast_to(begin, drawn.shape), jnp.broadcast_to(end, drawn.shape)
    for _ in range(longest.bit_length()):
        middle = (low + high) // 2
        others = data.distinct[jnp.minimum(middle, len(data.distinct) - 1)] - 1 - (middle - begin)
        right = (low < high) & (others <= drawn)
        low, high = jnp.where(right, middle + 1, low), jnp.where(right, high, middle)
    return drawn + 1 + jnp.where(left > 0, low - begin, 0)


@dataclasses.dataclass(frozen=True)
class PairOrder:
    """Shuffles pairs into ``[steps, size]``, `targets` where a slot stays empty."""

    targets: int
    steps: int
    size: int

    def __call__(self, data: PairData, key: jax.Array) -> jax.Array:
        """The shuffle of an epoch, ``<int32>[steps, size]``."""
        del data
        targets, steps, size = self.targets, self.steps, self.size
        order = jax.random.permutation(key, targets)
        order = jnp.pad(order, (0, steps * size - targets), constant_values=targets).reshape(steps, size)
        return jnp.pad(order, ((0, 0), (0, pad_to_axis(size, DATA) - size)), constant_values=targets)


@dataclasses.dataclass(frozen=True)
class PairBatcher:
    """Cuts batches of pairs with their negatives.

    Attributes:
        targets: all pairs.
        negatives: drawn per pair.
        num_items: I.
        longest: the largest number of distinct items of a user.
    """

    targets: int
    negatives: int
    num_items: int
    longest: int

    def __call__(self, data: PairData, order: jax.Array, step: jax.Array, key: jax.Array) -> PairBatch:
        """One batch of an epoch."""
        chosen = order[step]
        used = chosen < self.targets
        row = jnp.where(used, chosen, 0)
        user = data.user[row]
        negative = sample_negatives(data, user, self.negatives, self.num_items, self.longest, key)
        return PairBatch(user, data.item[row], negative, used.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class CatalogueBatcher:
    """Cuts batches of pairs that are compared with the catalogue.

    Attributes:
        targets: all pairs.
        candidates: items drawn to stand for the catalogue; None takes all of it.
        num_items: I.
    """

    targets: int
    candidates: int | None
    num_items: int

    def __call__(self, data: PairData, order: jax.Array, step: jax.Array, key: jax.Array) -> PairBatch:
        """One batch of an epoch."""
        chosen = order[step]
        used = chosen < self.targets
        row = jnp.where(used, chosen, 0)
        count = self.candidates
        drawn = None if count is None else jax.random.randint(key, (count,), 1, self.num_items + 1)
        return PairBatch(data.user[row], data.item[row], drawn, used.astype(jnp.float32))
