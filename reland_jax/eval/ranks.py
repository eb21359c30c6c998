"""Full ranking: the rank of every held-out target among all items, without sorting anything.

HR, NDCG and MRR at any K follow from the rank of the target alone, so a tile of scores is compared
with its targets' scores, counted, and forgotten. No ``[U, I]`` matrix exists, on the device or the
host, and nothing is sorted; one int32 per target comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from reland_jax.mesh import DATA, MODEL, active_mesh, constrain, even, put
from reland_jax.types import Ragged, RelandError, TargetRanks


class Vectors(NamedTuple):
    """Users and items, ready to be scored against each other.

    Attributes:
        users: ``<float32>[U, E]``; on a mesh there may be rows above.
        items: ``<float32>[I + 1, E]``; the same.
        score: (``<float32>[B, E]`` users, items) -> ``<float32>[B, I + 1]``; a pytree, such as
            `jax.tree_util.Partial`, so that it may carry parameters into a compiled function.
    """

    users: jax.Array
    items: jax.Array
    score: Callable[[jax.Array, jax.Array], jax.Array]


class RankingPlan(NamedTuple):
    """Which users, masked items and targets each tile ranks; N tiles of B users.

    Attributes:
        user: ``<int32>[N, B]``, 0 in unused rows.
        masked_row: ``<int32>[N, M]``, row of the tile, B where unused.
        masked_item: ``<int32>[N, M]``.
        target_row: ``<int32>[N, K]``, 0 where unused.
        target_item: ``<int32>[N, K]``, 0 where unused.
        slot: ``<int64>[n]``, where target ``t`` of the caller's list stands in ``[N * K]``.
        targets: the targets, one row per user; the host's copy.
        num_items: I.
    """

    user: jax.Array
    masked_row: jax.Array
    masked_item: jax.Array
    target_row: jax.Array
    target_item: jax.Array
    slot: np.ndarray
    targets: Ragged
    num_items: int


def plan_ranking(targets: Ragged, masked: Ragged | None, num_items: int, tile_bytes: int) -> RankingPlan:
    """Lays out a full ranking.

    Args:
        targets: items to find the rank of, ``U`` rows; users without any are not ranked.
        masked: items that may not be recommended to each user (the history), or None.
        num_items: I.
        tile_bytes: size of a tile of scores; at least one row is ranked at a time.

    Raises:
        RelandError: no user has a target.
    """
    users = np.flatnonzero(targets.lengths())
    if not len(users):
        raise RelandError("no user has an item to rank; the evaluated part of the split is empty")
    rows = int(np.clip(tile_bytes // (4 * (num_items + 1)), 1, len(users)))
    tiles = even(-(-len(users) // rows), DATA)
    # Dealing users out by length makes the ragged parts of all tiles about equally long.
    weight = targets.lengths() + (masked.lengths() if masked is not None else 0)
    dealt = users[np.argsort(-weight[users], kind="stable")]
    tile = np.full(targets.num_rows, -1)
    row = np.zeros(targets.num_rows, np.int64)
    tile[dealt], row[dealt] = np.arange(len(users)) % tiles, np.arange(len(users)) // tiles
    user = np.zeros((tiles, rows), np.int32)
    user[tile[dealt], row[dealt]] = dealt
    target_row, target_item, slot = _deal(targets, tile, row, tiles, unused_row=0)
    none = Ragged(np.zeros(targets.num_rows + 1, np.int64), np.zeros(0, np.int32))
    masked_row, masked_item, _ = _deal(none if masked is None else masked, tile, row, tiles, unused_row=rows)
    arrays = (user, masked_row, masked_item, target_row, target_item)
    return RankingPlan(*map(put, arrays), slot, targets, num_items)


def _deal(
    lists: Ragged, tile: np.ndarray, row: np.ndarray, tiles: int, unused_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spreads ragged lists over tiles: rows ``[N, M]``, items ``[N, M]`` and each entry's place."""
    owner = np.repeat(np.arange(lists.num_rows), lists.lengths())
    ranked = tile[owner] >= 0
    owner, items = owner[ranked], lists.items[ranked]
    of_tile = tile[owner]
    by_tile = np.argsort(of_tile, kind="stable")
    count = np.bincount(of_tile, minlength=tiles)
    width = max(int(count.max()), 1)
    place = np.empty(len(owner), np.int64)
    place[by_tile] = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    place += of_tile * width
    rows_out = np.full(tiles * width, unused_row, np.int32)
    items_out = np.zeros(tiles * width, np.int32)
    rows_out[place], items_out[place] = row[owner], items
    return rows_out.reshape(tiles, width), items_out.reshape(tiles, width), place


@partial(jax.jit, static_argnames="num_items")
def _rank_tiles(plan_arrays: tuple[jax.Array, ...], vectors: Vectors, num_items: int) -> jax.Array:
    """Ranks ``<int32>[N, K]``; on a mesh the axis `data` shares out tiles, and `model` the items."""
    if active_mesh() is None:
        return _ranks(plan_arrays, vectors, num_items, shared=False)
    table = PartitionSpec(MODEL)
    specs = (PartitionSpec(DATA), Vectors(table, table, PartitionSpec()))
    shares = jax.shard_map(
        partial(_ranks, num_items=num_items, shared=True),
        in_specs=specs, out_specs=PartitionSpec(DATA), check_vma=False,
    )  # fmt: skip
    return constrain(shares(plan_arrays, vectors))


def _ranks(
    plan_arrays: tuple[jax.Array, ...], vectors: Vectors, num_items: int, *, shared: bool
) -> jax.Array:
    """The same for the tiles, users and items that one device holds."""
    count = vectors.items.shape[0]
    first = jax.lax.axis_index(MODEL) * count if shared else 0
    number = first + jnp.arange(count)
    no_item = (number == 0) | (number > num_items)

    def total(values: jax.Array) -> jax.Array:
        return jax.lax.psum(values, MODEL) if shared else values

    def users_at(user: jax.Array) -> jax.Array:
        if not shared:
            return vectors.users[user]
        row = user - jax.lax.axis_index(MODEL) * len(vectors.users)
        own = (row >= 0) & (row < len(vectors.users))
        return total(jnp.where(own[:, None], vectors.users[jnp.where(own, row, 0)], 0.0))

    def rank(tile: tuple[jax.Array, ...]) -> jax.Array:
        user, masked_row, masked_item, target_row, target_item = tile
        scores = vectors.score(users_at(user), vectors.items)
        # One column is written in place; the other form reads and writes all of them.
        scores = jnp.where(no_item, -jnp.inf, scores) if shared else scores.at[:, 0].set(-jnp.inf)
        column = jnp.where(masked_item >= first, masked_item - first, count)
        scores = scores.at[masked_row, column].set(-jnp.inf, mode="drop")
        column = target_item - first
        own = (column >= 0) & (column < count)
        mine = total(jnp.where(own, scores[target_row, jnp.where(own, column, 0)], 0.0))
        # "Not lower" and not "at least": a score that is not a number then counts against the target.
        return total(jnp.sum(~(scores[target_row] < mine[:, None]), -1, dtype=jnp.int32)) - 1

    return jax.lax.map(rank, plan_arrays)


def _scores(vectors: Vectors, user: jax.Array, num_items: int) -> jax.Array:
    """``<float32>[B, rows]``; what is no item has the lowest score. A mesh shares out both sides."""
    users, items = constrain(vectors.users[user], DATA), constrain(vectors.items, MODEL)
    scores = constrain(vectors.score(users, items), DATA, MODEL).at[:, 0].set(-jnp.inf)
    filled_up = scores.shape[1] > num_items + 1
    return scores.at[:, num_items + 1 :].set(-jnp.inf) if filled_up else scores


def rank_targets(plan: RankingPlan, vectors: Vectors) -> TargetRanks:
    """Ranks every target of `plan` by the score of its user and item vectors.

    Args:
        plan: see `plan_ranking`.
        vectors: of all users and items.

    Raises:
        RelandError: a vector is not finite, or so large that a score may not be. Comparisons with NaN
            are false, so every rank would become 0 and a broken model would look perfect.
    """
    finite, broken, largest, bounded = jax.device_get(_soundness(vectors.users, vectors.items))
    for name, sound, row in zip(("user", "item"), finite, broken, strict=True):
        if not sound:
            raise RelandError(f"{name} vector {row} is not finite: nothing can be ranked by it")
    if not bounded:
        user, item = largest
        raise RelandError(f"user vector {user} and item vector {item} are so large that scores overflow")
    ranks = np.asarray(_rank_tiles(tuple(plan[:5]), vectors, plan.num_items)).reshape(-1)[plan.slot]
    owner = np.repeat(np.arange(plan.targets.num_rows, dtype=np.int32), plan.targets.lengths())
    return TargetRanks(owner, plan.targets.items, ranks)


@jax.jit
def _soundness(users: jax.Array, items: jax.Array) -> tuple[Any, ...]:
    """Whether each side is finite, its first row that is not, its largest row; whether scores must be."""
    sizes = [jnp.abs(side).max(-1) for side in (users, items)]  # not finite where one entry is not
    finite = [jnp.isfinite(size) for size in sizes]
    return (
        [rows.all() for rows in finite],
        [jnp.argmin(rows) for rows in finite],
        [jnp.argmax(size) for size in sizes],
        jnp.isfinite(users.shape[1] * sizes[0].max() * sizes[1].max()),
    )


@partial(jax.jit, static_argnames=("count", "num_items"))
def _top(
    vectors: Vectors, users: jax.Array, masked: jax.Array, count: int, num_items: int
) -> tuple[jax.Array, jax.Array]:
    scores = _scores(vectors, users, num_items)
    scores = scores.at[jnp.arange(len(users))[:, None], masked].set(-jnp.inf)
    best, found = jax.lax.top_k(scores, count)
    return constrain(best), constrain(found)


def recommend(
    vectors: Vectors, users: jax.Array, masked: jax.Array, count: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best items of a few users, for people to look at.

    Args:
        vectors: of all users and items.
        users: ``<int32>[B]``.
        masked: ``<int32>[B, M]``, items to leave out of each list, 0 where unused.
        count: length of a list, K.
        num_items: I.

    Returns:
        Items ``<int32>[B, K]``, best first, and their scores ``<float32>[B, K]``.
    """
    scores, found = _top(vectors, users, masked, count, num_items)
    return np.asarray(found), np.asarray(scores)
