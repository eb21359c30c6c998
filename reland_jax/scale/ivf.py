"""Nearest keys by cosine through an inverted file (IVF), laid out for many users at a time.

The keys are put into about sqrt(S) cells by K-means. A user is compared with the keys of a few cells, those
whose score is within a margin of its best one's. Users who search the same cell are compared with it in one
dense product, so a cell is read from memory once for hundreds of users; libraries made for single queries
read it again for every user. The margin for a wanted recall is measured on a sample.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from reland_jax.device import sizes
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.retrieval.vectors import checked, unit_rows, unit_rows_host
from reland_jax.scale.tuning import wanted_share

_ROUNDS = 15  # of K-means
_BLOCK = 64  # keys compared with a tile of users at a time; cells are filled up to whole blocks
_TILES = 64  # tiles handed to the device in one call
_FEWEST = 512  # users a batch is filled up to, so that few lengths are compiled for
_MOST = 65536  # users searched at a time by one thread
_SCORED = 4096  # users whose scores of all cells are held at a time

# Values that tuning tries: the weight of a cell's spread, relative to the cosine of its mean.
_SPREADS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)

# Products of another shape differ in the last bits; a margin is widened by more than that.
_ROUNDING = 1e-5


class IvfEffort(NamedTuple):
    """The search effort of an `IvfIndex`, and its measured recall when it was chosen.

    Attributes:
        spread: weight of a cell's spread in its score.
        margin: a cell is searched where its score is at most this below the user's best one.
        recall: share of the exact neighbours found on the sample, in [0, 1].
        compared: share of the keys that a user of the sample is compared with, in (0, 1].
    """

    spread: float
    margin: float
    recall: float
    compared: float

    def __str__(self) -> str:
        """For people."""
        return f"margin {self.margin:.3f}, {self.compared:.1%} of the keys compared"


class _Layout(NamedTuple):
    """Keys by cell, each cell filled up to whole blocks with copies of its first key.

    Attributes:
        first: ``<int32>[C]``, the first block of a cell.
        blocks: ``<int32>[C]``, its number of blocks.
        keys: ``<float32>[blocks, D, keys of a block]``, unit vectors.
        numbers: ``<int32>[blocks, keys of a block]``, ascending within a cell; -1 for the copies.
    """

    first: np.ndarray
    blocks: np.ndarray
    keys: jax.Array
    numbers: jax.Array


class IvfIndex:
    """Keys by cell, for batches of many users.

    Attributes:
        cell: ``<int32>[S]``, the cell of every key.
    """

    def __init__(self, keys: np.ndarray, cell: np.ndarray) -> None:
        """Use `build` or `load`.

        Args:
            keys: ``<float32>[S, D]``, finite.
            cell: ``<int32>[S]``; every cell from 0 on has a key.
        """
        self.cell, self._given = cell, keys
        unit = unit_rows_host(keys)
        self._mean, self._spread = _moments(unit, cell)
        self._layout = _layout(unit, cell)
        self._threads = _cores()

    @classmethod
    def build(cls, keys: np.ndarray, k: int) -> IvfIndex:
        """Puts the keys into about sqrt(S) cells by spherical K-means, always the same ones.

        Args:
            keys: ``<float32>[S, D]``, finite.
            k: neighbours that will be asked for.

        Raises:
            RelandError: as `exact_top_k`.
        """
        _, keys = checked(keys[:1], keys, k)
        return cls(keys, _clustered(unit_rows_host(keys), round(len(keys) ** 0.5)))

    @classmethod
    def load(cls, folder: Path, keys: np.ndarray) -> IvfIndex:
        """Reads what `save` wrote for the same keys ``<float32>[S, D]``."""
        return cls(keys, np.load(folder / "cell.npy"))

    def save(self, folder: Path) -> None:
        """Writes the cells into an existing folder."""
        np.save(folder / "cell.npy", self.cell)

    def tune(self, queries: np.ndarray, exact: np.ndarray, recall: float) -> IvfEffort:
        """The effort that compares fewest keys and finds the wanted share of the neighbours of a sample.

        A neighbour is found if its cell is searched, so the margin is a quantile of how far the cells of the
        neighbours are below the best ones. The share aimed at is `wanted_share`.

        Args:
            queries: ``<float32>[Q, D]``, a random sample.
            exact: ``<int32>[Q, k]``, key numbers from `exact_top_k`.
            recall: the share wanted, in (0, 1).
        """
        cosine = unit_rows_host(queries) @ self._mean.T
        wanted = wanted_share(recall, len(queries))
        efforts = (self._effort(cosine, self.cell[exact], spread, wanted) for spread in _SPREADS)
        return min(efforts, key=lambda effort: effort.compared)

    def _effort(self, cosine: np.ndarray, home: np.ndarray, spread: float, wanted: float) -> IvfEffort:
        score = cosine + np.float32(spread) * self._spread
        # A query of zeros is answered without a search.
        below = (score.max(axis=1, keepdims=True) - score) * cosine.any(axis=1, keepdims=True)
        needed = np.sort(np.take_along_axis(below, home, axis=1), axis=None)
        margin = float(needed[max(0, int(np.ceil(wanted * needed.size)) - 1)]) + _ROUNDING
        compared = (below <= margin) @ self._layout.blocks * _BLOCK / len(self.cell)
        return IvfEffort(spread, margin, float((needed <= margin).mean()), float(min(compared.mean(), 1.0)))

    def search(self, queries: np.ndarray, k: int, effort: IvfEffort) -> tuple[np.ndarray, np.ndarray]:
        """The k keys of largest cosine for every query, among those of the cells it searches.

        Among copies of one key the smaller number wins. A query of zeros ties with every key, and gets the
        first k. Arguments, results and errors are those of `exact_top_k`.
        """
        queries, _ = checked(queries, self._given, k)
        rows = max(_FEWEST, min(_MOST, -(-len(queries) // self._threads)))
        parts = [queries[start : start + rows] for start in range(0, len(queries), rows)]
        with ThreadPoolExecutor(self._threads) as pool:
            found = list(pool.map(lambda part: self._search(part, k, effort), parts))
        index = np.concatenate([part[0] for part in found] or [np.zeros((0, k), np.int32)])
        cosine = np.concatenate([part[1] for part in found] or [np.zeros((0, k), np.float32)])
        return self._completed(queries, index, cosine)

    def _search(self, queries: np.ndarray, k: int, effort: IvfEffort) -> tuple[np.ndarray, np.ndarray]:
        padded = np.zeros((max(_FEWEST, 1 << (len(queries) - 1).bit_length()), queries.shape[1]), np.float32)
        padded[: len(queries)] = queries
        users, searched = _route(padded, self._mean, np.float32(effort.spread) * self._spread, effort.margin)
        # The row after the last user absorbs the results of empty places in tiles.
        best = jnp.full((len(padded) + 1, k), -2.0)
        place = jnp.zeros((len(padded) + 1, k), jnp.int32)
        tile = min(sizes().cell_users, max(_FEWEST // 8, len(padded) // 64))
        for slots, cells in _tiles(_by_cell(searched, len(queries)), tile, len(padded)):
            first, blocks = self._layout.first[cells], self._layout.blocks[cells] * (cells >= 0)
            best, place = _visit(best, place, users, slots, first, blocks, self._layout[2:])
        number = np.asarray(self._layout.numbers).reshape(-1)[np.asarray(place)[: len(queries)]]
        return number, np.asarray(best)[: len(queries)]

    def _completed(
        self, queries: np.ndarray, index: np.ndarray, cosine: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers for queries of zeros, and for those whose cells hold fewer than k keys."""
        zero = ~queries.any(axis=1)
        index[zero], cosine[zero] = np.arange(index.shape[1]), 0.0
        short = np.flatnonzero(cosine[:, -1] < -1.5)
        if len(short):
            index[short], cosine[short] = ExactIndex(self._given).search(queries[short], index.shape[1])
        return index, np.clip(cosine, -1.0, 1.0)


def _clustered(unit: np.ndarray, count: int) -> np.ndarray:
    """The cell ``<int32>[S]`` of every unit key ``<float32>[S, D]``, at most ``count`` cells, none empty."""
    drawn = np.random.default_rng(0).choice(len(unit), count, replace=False)
    centres, cell = unit[np.sort(drawn)], np.zeros(len(unit), np.int32)
    for _ in range(_ROUNDS):
        cell = ExactIndex(centres).search(unit, 1)[0][:, 0]
        centres = np.zeros_like(centres)
        np.add.at(centres, cell, unit)
    return np.unique(cell, return_inverse=True)[1].astype(np.int32)


def _moments(unit: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``<float32>[C, D]`` of the unit keys of every cell, and their root mean square distance from it
    ``<float32>[C]``."""
    count = np.bincount(cell)
    mean = np.zeros((len(count), unit.shape[1]), np.float32)
    np.add.at(mean, cell, unit)
    mean /= count[:, None].astype(np.float32)
    spread = np.sqrt(np.maximum(1.0 - (mean**2).sum(axis=1), 0.0))
    return mean, spread.astype(np.float32)


def _layout(unit: np.ndarray, cell: np.ndarray) -> _Layout:
    count = np.bincount(cell)
    blocks = -(-count // _BLOCK)
    first, start = np.cumsum(blocks) - blocks, np.cumsum(count) - count
    order = np.argsort(cell, kind="stable")
    places = first[cell[order]] * _BLOCK + np.arange(len(order)) - start[cell[order]]
    key = np.repeat(order[start], blocks * _BLOCK)
    key[places] = order
    numbers = np.full(len(key), -1, np.int32)
    numbers[places] = order
    keys = unit[key].reshape(-1, _BLOCK, unit.shape[1]).transpose(0, 2, 1)
    shaped = jnp.asarray(numbers.reshape(-1, _BLOCK))
    return _Layout(first.astype(np.int32), blocks.astype(np.int32), jnp.asarray(keys), shaped)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@jax.jit
def _route(
    queries: jax.Array, mean: jax.Array, bonus: jax.Array, margin: float
) -> tuple[jax.Array, jax.Array]:
    """Unit users with a row of zeros after them ``<float32>[n + 1, D]``, and whether a cell is searched
    ``<bool>[n / m, C, m]``, m users at a time."""

    def wanted(rows: jax.Array) -> jax.Array:
        score = jnp.dot(mean, rows.T, precision=lax.Precision.HIGHEST) + bonus[:, None]
        return score >= score.max(axis=0) - margin

    users = unit_rows(queries)
    tile = min(_SCORED, len(users))
    searched = lax.map(wanted, users.reshape(-1, tile, users.shape[1]))
    return jnp.pad(users, ((0, 1), (0, 0))), searched


def _by_cell(searched: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells and the users below ``count`` who search them, ``[P]`` each, by cell."""
    by_cell = np.asarray(searched).transpose(1, 0, 2).reshape(searched.shape[1], -1)
    cell, user = np.nonzero(by_cell[:, :count])
    return cell, user


def _tiles(
    pairs: tuple[np.ndarray, np.ndarray], tile: int, nobody: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The users of every cell, ``tile`` of them at a time.

    Yields:
        Users ``<int32>[_TILES, tile]``, ``nobody`` in the places left over, and the cell of each tile
        ``<int32>[_TILES]``, -1 for a tile left over.
    """
    cell, user = pairs
    count = np.bincount(cell)
    tiles = -(-count // tile)
    first, start = np.cumsum(tiles) - tiles, np.cumsum(count) - count
    calls = -(-tiles.sum() // _TILES)
    slots = np.full(calls * _TILES * tile, nobody, np.int32)
    slots[first[cell] * tile + np.arange(len(cell)) - start[cell]] = user
    cells = np.full(calls * _TILES, -1, np.int32)
    cells[: tiles.sum()] = np.repeat(np.arange(len(tiles)), tiles)
    yield from zip(slots.reshape(calls, _TILES, tile), cells.reshape(calls, _TILES), strict=True)


@functools.partial(jax.jit, donate_argnames=("best", "place"))
def _visit(
    best: jax.Array,
    place: jax.Array,
    users: jax.Array,
    slots: jax.Array,
    first: jax.Array,
    blocks: jax.Array,
    layout: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Compares every tile of users with the keys of its cell.

    Args:
        best: ``<float32>[n, k]``, the largest cosines that users have seen so far.
        place: ``<int32>[n, k]``, where those keys stand in the layout.
        users: ``<float32>[n, D]``, unit rows.
        slots: ``<int32>[t, m]``, the users of each tile.
        first: ``<int32>[t]``, the first block of the tile's cell.
        blocks: ``<int32>[t]``, its number of blocks.
        layout: keys and numbers of `_Layout`.

    Returns:
        best and place.
    """
    keys, numbers = layout

    def one_tile(
        found: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        slot, start, count = tile
        rows = users[slot]

        def one_block(number: jax.Array, seen: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            block = start + number
            cosine = jnp.dot(rows, keys[block], precision=lax.Precision.HIGHEST)
            return _merged(*seen, cosine, numbers[block], block * _BLOCK)

        seen = lax.fori_loop(0, count, one_block, (found[0][slot], found[1][slot]))
        return (found[0].at[slot].set(seen[0]), found[1].at[slot].set(seen[1])), None

    return lax.scan(one_tile, (best, place), (slots, first, blocks))[0]


def _merged(
    best: jax.Array, place: jax.Array, cosine: jax.Array, numbers: jax.Array, start: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The best cosines ``[m, k]`` and their places, once a block's cosines ``[m, keys]`` are among them.

    Ties go to the first; within a cell that is the smaller number.
    """
    k, size = best.shape[1], cosine.shape[1]
    if k == 1:
        # The copies that fill up a cell lose every tie against its first key.
        largest = cosine.max(axis=1, keepdims=True)
        offset = jnp.where(cosine == largest, jnp.arange(size, dtype=jnp.int32), size).min(axis=1)[:, None]
        better = largest > best
        return jnp.where(better, largest, best), jnp.where(better, start + offset, place)
    cosine = jnp.where(numbers < 0, -2.0, cosine)
    places = jnp.broadcast_to(start + jnp.arange(size, dtype=jnp.int32), cosine.shape)
    best, chosen = lax.top_k(jnp.concatenate([best, cosine], axis=1), k)
    return best, jnp.take_along_axis(jnp.concatenate([place, places], axis=1), chosen, axis=1)
