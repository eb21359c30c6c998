"""Full ranking: the rank of every held-out target among all items, without sorting anything.

HR, NDCG and MRR at any K depend on the rank of the target alone, so a tile of scores is compared with its
targets' scores, counted, and discarded. No ``[U, I]`` matrix exists, on the device or the host, and no scores
are sorted; the result is one int32 per target.

Metrics at K only need to know which targets are among the first K, and most are far from it. So a few
frequent items are scored first, for all users. If K of them beat a user's best target, the user is settled;
only the other users, about one in six, are scored against all items.

A target may itself be masked, if the user has had that item before. Each such target is ranked as if it alone
were not masked: by its score before masking, among the unmasked items.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from reland_jax.device import sizes
from reland_jax.eval.targets import distinct_targets, had_before
from reland_jax.mesh import DATA, MODEL, active_mesh, constrain, device_put_rows, pad_to_axis
from reland_jax.types import Ragged, RelandError, TargetRanks

FREQUENT = 16
"""One item in so many is scored first. Of the users of Amazon Beauty 13% (NGCF), 11% (LightGCN) and 8%
(SASRec) then remain for a K of 20; with one in 32 17%, 14% and 12%, and with one in 8 8%, 9% and 7%."""


class Vectors(NamedTuple):
    """Users and items, ready to be scored against each other.

    Attributes:
        users: ``<float32>[U, E]``; on a mesh there may be padding rows after them.
        items: ``<float32>[I + 1, E]``; the same.
        score: (``<float32>[B, E]`` users, ``<float32>[n, E]`` items, the same for all, or ``[B, n, E]``)
            -> ``<float32>[B, n]``; a pytree, such as `jax.tree_util.Partial`, so that it may carry
            parameters into a compiled function.
    """

    users: jax.Array
    items: jax.Array
    score: Callable[[jax.Array, jax.Array], jax.Array]


class Tile(NamedTuple):
    """The users, masked items and targets of a tile; or of all N tiles, then with an axis N in front.

    Attributes:
        user: ``<int32>[B]``, 0 in unused rows.
        masked_row: ``<int32>[M]``, row of the tile, B where unused.
        masked_item: ``<int32>[M]``.
        target_row: ``<int32>[K]``, 0 where unused.
        target_item: ``<int32>[K]``, 0 where unused.
        target_masked: ``<int32>[K]``, 1 where the target is a masked item of its user, else 0; None
            where no target is.
    """

    user: jax.Array
    masked_row: jax.Array
    masked_item: jax.Array
    target_row: jax.Array
    target_item: jax.Array
    target_masked: jax.Array | None


class RankingPlan(NamedTuple):
    """Which users, masked items and targets each tile ranks; N tiles of B users.

    Attributes:
        tiles: all tiles.
        frequent: ``<int32>[F]``, distinct items that are scored first; may be none.
        slot: ``<int64>[n]``, where target ``t`` of the caller's list stands in ``[N * K]``.
        targets: the distinct targets, one row per user; the host's copy.
        had_before: ``<bool>[n]``, which of them are masked; None where none is. The host's copy.
        num_items: I.
        users_at_a_time: users who are scored against all items at a time.
        most_targets: of so many users of a tile, unused entries among them.
    """

    tiles: Tile
    frequent: jax.Array
    slot: np.ndarray
    targets: Ragged
    had_before: np.ndarray | None
    num_items: int
    users_at_a_time: int
    most_targets: int


def plan_ranking(
    targets: Ragged,
    masked: Ragged | None,
    num_items: int,
    tile_bytes: int | None,
    history: Ragged | None = None,
) -> RankingPlan:
    """Plans a full ranking.

    Args:
        targets: items to find the rank of, ``U`` rows; users without any are not ranked. An item that is
            listed more than once for a user is ranked once.
        masked: items that may not be recommended to each user (the history), or None. A target among
            them is ranked all the same, as if it alone were not masked.
        num_items: I.
        tile_bytes: memory for scores, a tile and its masked copy; at least one row is ranked at a time.
            None takes what suits the device.
        history: training items, whose most frequent are scored first, or None to score all at once.

    Raises:
        RelandError: no user has a target.
    """
    tile_bytes = sizes().score_bytes if tile_bytes is None else tile_bytes
    users = np.flatnonzero(targets.lengths())
    if not len(users):
        raise RelandError("no user has an item to rank; the evaluated part of the split is empty")
    targets, frequent = distinct_targets(targets), _most_frequent(history, num_items)
    at_a_time, rows = (
        int(np.clip(tile_bytes // (2 * 4 * columns), 1, len(users)))
        for columns in (num_items + 1, len(frequent) or num_items + 1)
    )
    tiles = pad_to_axis(-(-len(users) // rows), DATA)
    rows = -(-len(users) // tiles)
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
    masked_row, masked_item, _ = _deal(masked or none, tile, row, tiles, unused_row=rows)
    before, target_masked = had_before(targets, masked or none), None
    if before.any():
        target_masked = np.zeros(target_item.shape, np.int32)
        target_masked.reshape(-1)[slot] = before
    arrays = user, masked_row, masked_item, target_row, target_item, target_masked
    tiled = Tile(*jax.tree.map(device_put_rows, arrays))
    masked_targets = before if before.any() else None
    at_a_time, wanted = min(at_a_time, rows), np.zeros((tiles, rows), np.int64)
    wanted[tile[dealt], row[dealt]] = targets.lengths()[dealt]
    wanted[:, 0] += target_row.shape[1] - wanted.sum(1)  # unused entries stand in row 0
    most = int(np.sort(wanted)[:, -at_a_time:].sum(1).max())
    return RankingPlan(
        tiled, device_put_rows(frequent), slot, targets, masked_targets, num_items, at_a_time, most
    )


def _most_frequent(history: Ragged | None, num_items: int) -> np.ndarray:
    """``<int32>[F]``, a share of the items, the most frequent first."""
    if history is None:
        return np.zeros(0, np.int32)
    count = np.bincount(history.items, minlength=num_items + 1)[1:]
    return np.argsort(-count, kind="stable")[: num_items // FREQUENT].astype(np.int32) + 1


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


Tiles = TypeVar("Tiles")
"""A tree of arrays that lead with an axis of tiles."""
Whole = TypeVar("Whole")
"""A tree of arrays that every device has."""


@partial(jax.jit, static_argnames="num_items")
def _open_rows(
    tiles: Tile, frequent: jax.Array, vectors: Vectors, cutoff: jax.Array, num_items: int
) -> jax.Array:
    """``<bool>[N, B]``, the users who are not settled by the frequent items."""

    def look(share: _LocalShard, whole: tuple[jax.Array, jax.Array]) -> Callable[[Tile], jax.Array]:
        frequent, cutoff = whole
        column = jnp.full(num_items + 1, len(frequent)).at[frequent].set(jnp.arange(len(frequent)))
        first = _FirstLook(share.rows(share.vectors.items, frequent), column)
        return lambda tile: _has_target(tile) & (first.better(share, tile) < cutoff)

    return _for_tiles(look, tiles, vectors, (frequent, cutoff), num_items)


class _Turns(NamedTuple):
    """How often the loops over a tile turn, at least as often as they need to.

    Attributes:
        users: over groups of users who are scored against all items at a time.
        targets: over groups of targets of such users.
    """

    users: int
    targets: int


def _turns(plan: RankingPlan, open_rows: jax.Array | None) -> _Turns | None:
    """The turns for a plan, or None where the device may count them itself.

    The turns over users are rounded up to a power of two, so that few programs are compiled.

    Args:
        plan: see `plan_ranking`.
        open_rows: ``<bool>[N, B]``, or None if all are open.
    """
    if not sizes().ranks_in_known_turns:
        return None
    rows, at_a_time = plan.tiles.user.shape[1], plan.users_at_a_time
    of_targets = -(-plan.most_targets // min(at_a_time, plan.tiles.target_row.shape[1]))
    if open_rows is None:
        return _Turns(-(-rows // at_a_time), of_targets)
    needed = -(-int(_most_open(open_rows)) // at_a_time)
    return _Turns(min(1 << max(needed - 1, 0).bit_length(), -(-rows // at_a_time)), of_targets)


@jax.jit
def _most_open(open_rows: jax.Array) -> jax.Array:
    """``<int32>[]``, of all tiles."""
    return constrain(open_rows.sum(1, dtype=jnp.int32).max())


@partial(jax.jit, static_argnames=("num_items", "at_a_time", "turns"))
def _rank_tiles(
    tiles: Tile, open_rows: jax.Array, vectors: Vectors, cutoff: jax.Array, num_items: int, at_a_time: int,
    turns: _Turns | None,
) -> jax.Array:  # fmt: skip
    """Ranks ``<int32>[N, K]``; `open_rows` ``<bool>[N, B]`` and `turns`, see `_rank_open`."""

    def finish(share: _LocalShard, cutoff: jax.Array) -> Callable[[tuple[Tile, jax.Array]], jax.Array]:
        return lambda each: _rank_open(share, *each, cutoff, at_a_time, turns)

    return _for_tiles(finish, (tiles, open_rows), vectors, cutoff, num_items)


@jax.jit
def _all_rows(tiles: Tile) -> jax.Array:
    """``<bool>[N, B]``, all users with a target."""
    return constrain(jax.vmap(_has_target)(tiles), DATA)


def _for_tiles(
    make: Callable[[_LocalShard, Whole], Callable[[Tiles], jax.Array]],
    tiles: Tiles,
    vectors: Vectors,
    whole: Whole,
    num_items: int,
) -> jax.Array:
    """``make(share, whole)(tile)`` of every tile; a mesh shards tiles over `data` and items over `model`."""
    shared = active_mesh() is not None

    def own(tiles: Tiles, vectors: Vectors, whole: Whole) -> jax.Array:
        return jax.lax.map(make(_LocalShard(vectors, num_items, shared), whole), tiles)

    if not shared:
        return own(tiles, vectors, whole)
    table, everywhere = PartitionSpec(MODEL), PartitionSpec()
    of_vectors = Vectors(table, table, everywhere)  # type: ignore[arg-type]  # where its leaves lie
    specs = (PartitionSpec(DATA), of_vectors, everywhere)
    shares = jax.shard_map(own, in_specs=specs, out_specs=PartitionSpec(DATA), check_vma=False)
    return constrain(shares(tiles, vectors, whole))


def _has_target(tile: Tile) -> jax.Array:
    """``<bool>[B]``."""
    return jnp.zeros(tile.user.shape, bool).at[tile.target_row].set(True)


class _LocalShard(NamedTuple):
    """The users and items that one device holds of a mesh that is `shared`; else all of them."""

    vectors: Vectors
    num_items: int
    shared: bool

    def total(self, values: jax.Array) -> jax.Array:
        """The sum over the devices that hold shards of the items."""
        return jax.lax.psum(values, MODEL) if self.shared else values

    def place(self, table: jax.Array, index: jax.Array) -> jax.Array:
        """Indices of table rows in this device's shard; the shard's length for rows of other devices."""
        row = index - jax.lax.axis_index(MODEL) * len(table) if self.shared else index
        return jnp.where((row >= 0) & (row < len(table)), row, len(table))

    def rows(self, table: jax.Array, index: jax.Array) -> jax.Array:
        """Rows of a whole table, from the devices that hold them."""
        if not self.shared:
            return table[index]
        return self.total(table.at[self.place(table, index)].get(mode="fill", fill_value=0.0))

    def scores(self, users: jax.Array) -> jax.Array:
        """``<float32>[B, rows]`` of the items of this shard; rows that are no item have the lowest score."""
        scores = self.vectors.score(users, self.vectors.items)
        if not self.shared:
            # One column is written in place; the other form reads and writes all of them.
            return scores.at[:, 0].set(-jnp.inf)
        number = jax.lax.axis_index(MODEL) * scores.shape[1] + jnp.arange(scores.shape[1])
        return jnp.where((number == 0) | (number > self.num_items), -jnp.inf, scores)


class _FirstLook(NamedTuple):
    """The frequent items.

    Attributes:
        items: ``<float32>[F, E]``.
        column: ``<int32>[I + 1]``, where an item is among them, F where it is not.
    """

    items: jax.Array
    column: jax.Array

    def better(self, share: _LocalShard, tile: Tile) -> jax.Array:
        """``<int32>[B]``, how many of them are clearly above the best target of each user.

        "Clearly", because a score computed here differs from one computed with all items in its last
        digits; products in 16 bits, as on a TPU, have eight of them.
        """
        user, masked_row, masked_item, target_row, target_item, _ = tile
        users = share.rows(share.vectors.users, user)
        scores = share.vectors.score(users, self.items)
        margin = 2.0**-6 * jnp.abs(scores).max(-1)
        scores = scores.at[masked_row, self.column[masked_item]].set(-jnp.inf, mode="drop")
        items = share.rows(share.vectors.items, target_item)
        mine = share.vectors.score(users[target_row], items[:, None])[:, 0]
        best = jax.ops.segment_max(mine, target_row, len(user))
        return jnp.sum(scores > (best + margin)[:, None], -1, dtype=jnp.int32)


def _rank_open(
    share: _LocalShard,
    tile: Tile,
    open_rows: jax.Array,
    cutoff: jax.Array,
    at_a_time: int,
    turns: _Turns | None,
) -> jax.Array:
    """Ranks ``<int32>[K]`` of a tile's targets: exact in open rows, not below `cutoff` in the others.

    Open rows come first, and are scored in groups that fit into a tile of scores. Without `turns` their
    number is counted on the device. A group of rows that are not open changes nothing: its ranks are exact.
    """
    user, masked_row, masked_item, target_row, target_item, target_masked = tile
    users = share.rows(share.vectors.users, user)
    order = jnp.argsort(~open_rows, stable=True)
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    of_masked = place.at[masked_row].get(mode="fill", fill_value=len(order))
    of_target = place[target_row]
    in_order = jnp.argsort(of_target)
    sorted_places, width = of_target[in_order], min(at_a_time, len(in_order))

    def some_users(turn: jax.Array, ranks: jax.Array) -> jax.Array:
        begin = jnp.minimum(turn * at_a_time, len(order) - at_a_time)
        unmasked = share.scores(users[jax.lax.dynamic_slice(order, (begin,), (at_a_time,))])
        row = jnp.where(of_masked >= begin, of_masked - begin, at_a_time)
        scores = unmasked.at[row, share.place(share.vectors.items, masked_item)].set(-jnp.inf, mode="drop")

        def some_targets(turn: jax.Array, ranks: jax.Array) -> jax.Array:
            target = jax.lax.dynamic_slice(in_order, (first + turn * width,), (width,))
            row = of_target[target] - begin
            scored = (row >= 0) & (row < at_a_time)
            row = jnp.where(scored, row, 0)
            column = share.place(share.vectors.items, target_item[target])
            mine = share.total(own.at[row, column].get(mode="fill", fill_value=0.0))
            # "Not lower" and not "at least": a score that is not a number then counts against the target.
            rank = share.total(jnp.sum(~(scores[row] < mine[:, None]), -1, dtype=jnp.int32)) - 1
            # A target counts itself, unless it is masked.
            rank = rank if target_masked is None else rank + target_masked[target]
            return ranks.at[jnp.where(scored, target, len(ranks))].set(rank, mode="drop")

        # Without masked targets one array is enough, and masking may write into it.
        own = scores if target_masked is None else unmasked
        first, last = jnp.searchsorted(sorted_places, jnp.stack([begin, begin + at_a_time]))
        groups = turns.targets if turns else -(-(last - first) // width)
        return jax.lax.fori_loop(0, groups, some_targets, ranks)

    groups = turns.users if turns else -(-jnp.sum(open_rows) // at_a_time)
    return jax.lax.fori_loop(0, groups, some_users, jnp.full(len(in_order), cutoff))


def rank_targets(plan: RankingPlan, vectors: Vectors, cutoff: int | None = None) -> TargetRanks:
    """Ranks every target of `plan` by the score of its user and item vectors.

    Args:
        plan: see `plan_ranking`.
        vectors: of all users and items.
        cutoff: at least 1; ranks at or above it are only guaranteed to be >= cutoff, which takes a fraction
            of the time if the plan knows frequent items. None: all ranks are exact.

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
    tiles, num_items = plan.tiles, plan.num_items
    bound = jnp.int32(num_items if cutoff is None else cutoff)
    if cutoff is None or cutoff > len(plan.frequent):
        open_rows, turns = _all_rows(tiles), _turns(plan, None)
    else:
        # Finished before the next one starts, because each of them holds a tile of scores.
        open_rows = jax.block_until_ready(_open_rows(tiles, plan.frequent, vectors, bound, num_items))
        turns = _turns(plan, open_rows)
    ranks = _rank_tiles(tiles, open_rows, vectors, bound, num_items, plan.users_at_a_time, turns)
    ranks = np.asarray(ranks).reshape(-1)[plan.slot]
    owner = np.repeat(np.arange(plan.targets.num_rows, dtype=np.int32), plan.targets.lengths())
    return TargetRanks(owner, plan.targets.items, ranks, plan.had_before)


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
