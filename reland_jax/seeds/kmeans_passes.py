"""Passes over all users on the device, split over the devices of a mesh, one block of users at a time.

Letters as in `reland_jax.types`; K is the number of clusters. R is the number of rows: U rounded up to a
multiple of the devices. Rows beyond U are padding: they are assigned like users, and `cluster_sums` leaves
them out. Memory beyond the arguments is O(block x candidates) and the sums of `cluster_sums`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from reland_jax.device import sizes
from reland_jax.mesh import padded_shard

# Users compared with one list of near tiles at a time; a tile of 74 centres has 2,000 where a cluster has 27.
_NEAR_BLOCK = 256
# Fewer than 2 to this power centres are compared as if there were as many: reading the users costs more.
_LEAST = 4


class Placed(NamedTuple):
    """User vectors on the devices.

    Attributes:
        rows: ``<float32>[R, D]``, as they were given.
        mean: ``<float32>[D]`` of all users. It is subtracted from each block before distances are computed:
            without a common offset |x|^2 - 2 x c + |c|^2 loses fewer digits, and no second copy of the rows
            is kept.
        users: U.
        mesh: over all of whose devices the rows are split.
    """

    rows: jax.Array
    mean: jax.Array
    users: int
    mesh: Mesh


class Nearest(NamedTuple):
    """Distance to the nearest centre so far, and the tile (block of consecutive centres) that holds it.

    Attributes:
        tile: ``<int32>[R]``, the tile of the nearest centre; ties go to the smaller number.
        squared: ``<float32>[R]``, the squared distance to it. It is computed as |x|^2 - 2 x c + |c|^2, so it
            may be slightly above 0 for a user who is a centre.
    """

    tile: jax.Array
    squared: jax.Array


class NearTiles(NamedTuple):
    """Centres grouped into T tiles of G centres that are close to each other.

    Attributes:
        number: ``<int32>[T, G]``, the centres of each tile. A centre may be in more than one tile.
        home: ``<int32>[K]``, one tile that holds the centre.
        near: ``<int32>[T, P]``, for users whose own centre has this tile as its home: the tiles whose centres
            they are compared with, the home tile first.
    """

    number: np.ndarray
    home: np.ndarray
    near: np.ndarray


def place(vectors: np.ndarray, mesh: Mesh | None) -> Placed:
    """Puts vectors ``<float32>[U, D]`` on the devices of a mesh, in equal parts; None means one device."""
    devices, axes = (mesh.devices, mesh.axis_names) if mesh else (np.array(jax.devices()[:1]), ("data",))
    mesh = Mesh(devices, axes, axis_types=(AxisType.Auto,) * len(axes))
    users, width = vectors.shape
    shape = (users + -users % mesh.size, width)
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = jax.make_array_from_callback(
        shape, _by_user(mesh), lambda index: padded_shard(vectors, index, shape)
    )
    return Placed(rows, jax.device_put(mean, NamedSharding(mesh, P())), users, mesh)


def start_distances(placed: Placed) -> Nearest:
    """The initial state for `update_nearest_tile`: every user at infinite distance from all centres."""
    length = len(placed.rows)
    tile, squared = np.zeros(length, np.int32), np.full(length, np.inf, np.float32)
    return Nearest(*jax.device_put((tile, squared), _by_user(placed.mesh)))


def update_nearest_tile(placed: Placed, nearest: Nearest, centres: np.ndarray, first: int) -> Nearest:
    """Compares every user with all of some centres.

    Only the tile of the nearest centre is found here: finding the centre itself would read each distance
    twice and take a third of the time. `resolve_centre` finds it among the centres of that tile.

    Args:
        placed: the users.
        nearest: of the centres compared before.
        centres: ``<float32>[k, D]``, less the mean of the users. Compiles once for each k, and for small k
            once for all up to the next power of two.
        first: number of the first of them, a multiple of the tile's size, or of k rounded up to a power of
            two where that is smaller.

    Returns:
        `nearest` with the given centres taken into account.
    """
    size = min(sizes().pass_centres, 1 << max(_LEAST, (len(centres) - 1).bit_length()))
    short = -len(centres) % size
    filled = np.pad(centres, ((0, short), (0, 0)))
    half = np.pad(_half_norm(centres), (0, short), constant_values=np.inf).reshape(-1, size)
    tiles = np.ascontiguousarray(filled.reshape(-1, size, centres.shape[1]).transpose(0, 2, 1))
    number = first // sizes().pass_centres + np.arange(len(tiles), dtype=np.int32)
    return Nearest(*_compare(placed.mesh, placed.rows, placed.mean, *nearest, tiles, half, number))


def resolve_centre(placed: Placed, nearest: Nearest, centres: np.ndarray) -> jax.Array:
    """The nearest centre ``<int32>[R]`` of every user, searched in the tile that has it.

    Args:
        placed: the users.
        nearest: of all centres.
        centres: ``<float32>[K, D]``, less the mean of the users.
    """
    size = min(sizes().pass_centres, len(centres))
    number = np.arange(len(centres) + -len(centres) % size, dtype=np.int32).reshape(-1, size)
    number = np.minimum(number, len(centres) - 1)
    near = np.arange(len(number), dtype=np.int32)[:, None]
    return _choose(placed, nearest.tile, centres, number, near)


def compare_near(placed: Placed, cluster: jax.Array, centres: np.ndarray, tiles: NearTiles) -> jax.Array:
    """Compares every user with the centres of the tiles nearest to the tile of its own centre.

    Args:
        placed: the users.
        cluster: ``<int32>[R]``, the own centre of every user.
        centres: ``<float32>[K, D]``, less the mean of the users.
        tiles: of these centres.

    Returns:
        ``<int32>[R]``, the nearest of the centres compared, the own one among them.
    """
    return _choose(placed, _look_up(tiles.home, cluster), centres, tiles.number, tiles.near)


def cluster_sums(
    placed: Placed, cluster: jax.Array, centres: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Distances of the users to their centres, and sums and counts of the clusters.

    Returns:
        Squared distances ``<float32>[R]``, 0 for padding; of each cluster the sum of its users' vectors
        less the mean of all ``<float32>[K, D]``, and their number ``<int32>[K]``.
    """
    return _measure(placed.mesh, placed.rows, placed.mean, cluster, centres, np.int32(placed.users))


def _choose(
    placed: Placed, tile: jax.Array, centres: np.ndarray, number: np.ndarray, near: np.ndarray
) -> jax.Array:
    """The nearest of the centres ``number[near[t]]`` for every user, t being its own tile of ``[R]``."""
    tiles = np.ascontiguousarray(centres[number].transpose(0, 2, 1))
    half = _half_norm(centres)[number]
    return _choose_near(placed.mesh, placed.rows, placed.mean, tile, tiles, half, number, near)


@jax.jit
def _look_up(table: jax.Array, index: jax.Array) -> jax.Array:
    return table[index]


def _half_norm(centres: np.ndarray) -> np.ndarray:
    return 0.5 * np.einsum("kd,kd->k", centres, centres)


def _by_user(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(mesh.axis_names))


def _split(part: Callable[..., Any], mesh: Mesh, split_in: str, split_out: Any) -> Callable[..., Any]:
    """`part` on every device: "u" stands for an argument that is split by user, "-" for one that all have."""
    specs = {"u": P(mesh.axis_names), "-": P()}
    out = tuple(specs[each] for each in split_out) if len(split_out) > 1 else specs[split_out]
    inside = tuple(specs[each] for each in split_in)
    return jax.shard_map(part, mesh=mesh, in_specs=inside, out_specs=out, check_vma=False)


@functools.partial(jax.jit, static_argnums=0)
def _compare(mesh: Mesh, *arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _split(_compare_part, mesh, "u-uu---", "uu")(*arguments)


def _compare_part(
    rows: jax.Array,
    mean: jax.Array,
    tile: jax.Array,
    squared: jax.Array,
    centres: jax.Array,
    half: jax.Array,
    number: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    block = min(sizes().pass_users, len(rows))

    def step(i: jax.Array, result: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # The last block begins early rather than beyond the end; comparing a user twice changes nothing.
        at = jnp.minimum(i * block, len(rows) - block)
        users = lax.dynamic_slice_in_dim(rows, at, block) - mean
        old, distance = (lax.dynamic_slice_in_dim(values, at, block) for values in (tile, squared))
        new, score = _nearest_tile(users, centres, half, number)
        found = jnp.maximum(jnp.sum(users * users, axis=1) + 2.0 * score, 0.0)
        nearer = found < distance
        parts = jnp.where(nearer, new, old), jnp.where(nearer, found, distance)
        pairs = zip(result, parts, strict=True)
        best, least = (lax.dynamic_update_slice_in_dim(whole, part, at, 0) for whole, part in pairs)
        return best, least

    # Separate results, since XLA copies a whole array in each step that both reads and updates it.
    start = jnp.zeros_like(tile), jnp.zeros_like(squared)
    return lax.fori_loop(0, -(-len(rows) // block), step, start)


def _nearest_tile(
    users: jax.Array, centres: jax.Array, half: jax.Array, number: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of tiles ``[t, D, g]`` with these numbers ``[t]``, the one that has the nearest centre ``<int32>[b]``,
    and |c|^2 / 2 - x c of it ``<float32>[b]``."""

    def one(
        best: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        least = _scores(users, tile[0], tile[1]).min(axis=1)
        better = least < best[1]
        return (jnp.where(better, tile[2], best[0]), jnp.where(better, least, best[1])), None

    start = jnp.zeros(len(users), jnp.int32), jnp.full(len(users), jnp.inf)
    return lax.scan(one, start, (centres, half, number))[0]


def _scores(users: jax.Array, centres: jax.Array, half: jax.Array) -> jax.Array:
    """|c|^2 / 2 - x c ``[b, g]``: half the squared distance, but for what all centres have in common."""
    return half - jnp.dot(users, centres, precision=lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnums=0)
def _choose_near(mesh: Mesh, *arguments: jax.Array) -> jax.Array:
    return _split(_choose_part, mesh, "u-u----", "u")(*arguments)


def _choose_part(
    rows: jax.Array,
    mean: jax.Array,
    tile: jax.Array,
    centres: jax.Array,
    half: jax.Array,
    number: jax.Array,
    near: jax.Array,
) -> jax.Array:
    """See `_choose`. Users are taken in the order of their tiles, in blocks of one tile each: the centres
    that a user is compared with depend on its own tile alone, and so not on the devices."""
    order = jnp.argsort(tile)
    members = jnp.bincount(tile, length=len(near))
    last_user, last_block = jnp.cumsum(members), jnp.cumsum(-(-members // _NEAR_BLOCK))

    def step(i: jax.Array, cluster: jax.Array) -> jax.Array:
        t = jnp.searchsorted(last_block, i, side="right")
        at = last_user[t] - (last_block[t] - i) * _NEAR_BLOCK + jnp.arange(_NEAR_BLOCK)
        # The blocks of a tile end with its last user; what is too much of the first one is its first user.
        users = order[jnp.maximum(at, last_user[t] - members[t])]
        found = _nearest_centre(rows[users] - mean, near[t], centres, half, number)
        return cluster.at[users].set(found)

    return lax.fori_loop(0, last_block[-1], step, jnp.zeros_like(tile))


def _nearest_centre(
    users: jax.Array, near: jax.Array, centres: jax.Array, half: jax.Array, number: jax.Array
) -> jax.Array:
    """The nearest centre ``<int32>[b]`` of the tiles ``near`` ``[P]``; of equals that of the first tile."""

    def one(best: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        score = _scores(users, centres[t], half[t])
        # A minimum, then the smallest index that has it: XLA's argmin on a CPU is slower than both.
        least = score.min(axis=1)
        which = jnp.where(score == least[:, None], number[t], jnp.iinfo(jnp.int32).max).min(axis=1)
        better = least < best[1]
        return (jnp.where(better, which, best[0]), jnp.where(better, least, best[1])), None

    start = jnp.zeros(len(users), jnp.int32), jnp.full(len(users), jnp.inf)
    return lax.scan(one, start, near)[0][0]


@functools.partial(jax.jit, static_argnums=0)
def _measure(mesh: Mesh, *arguments: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    def part(
        rows: jax.Array, mean: jax.Array, cluster: jax.Array, centres: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, ...]:
        first = lax.axis_index(mesh.axis_names) * len(rows)
        squared, *sums = _measure_part(rows, mean, cluster, centres, count - first)
        return squared, *lax.psum(sums, mesh.axis_names)

    return _split(part, mesh, "u-u--", "u--")(*arguments)


def _measure_part(
    rows: jax.Array, mean: jax.Array, cluster: jax.Array, centres: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See `cluster_sums`; ``count`` of the rows are users, the others padding."""
    block = min(sizes().pass_users, len(rows))

    def step(i: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        squared, total, members = found
        at = jnp.minimum(i * block, len(rows) - block)
        number = at + jnp.arange(block)
        new = number >= i * block
        users = lax.dynamic_slice_in_dim(rows, at, block) - mean
        own = lax.dynamic_slice_in_dim(cluster, at, block)
        distance = jnp.where(number < count, jnp.sum(jnp.square(users - centres[own]), axis=1), 0.0)
        counted = jnp.where(new & (number < count), own, len(centres))
        return (
            lax.dynamic_update_slice_in_dim(squared, distance, at, 0),
            total.at[counted].add(users, mode="drop"),
            members.at[counted].add(1, mode="drop"),
        )

    start = jnp.zeros(len(rows)), jnp.zeros_like(centres), jnp.zeros(len(centres), jnp.int32)
    return lax.fori_loop(0, -(-len(rows) // block), step, start)
