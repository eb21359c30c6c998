"""EASE whose matrix of items by items is shared out over a mesh, by rows along the axis `model`.

No device ever holds the whole matrix. It is inverted in its place by Gauss-Jordan elimination, block of rows
by block of rows: the device that has a block sends it to the others, and each subtracts a product from its
own rows. The matrix is positive definite, so no pivots are searched for. These are products alone, which is
what accelerators are fast at, and twice the operations of the factorisation of one device
(`reland_jax.models.ease`), of which each device has its share.

The inverse is symmetric: its rows of a device are also the columns that predict the items of that device.
Rationales predict items and are not predicted, so they are eliminated first (the Schur complement).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from reland_jax.mesh import MODEL, axis_size
from reland_jax.models.ease import Gram

BLOCK = 256
"""Rows that are eliminated at a time, at most."""

_EXACT = jax.lax.Precision.HIGHEST


def rows_of_device(num_items: int) -> tuple[int, int]:
    """Rows of the padded matrix that each device has, and how many of them are eliminated at a time.

    Args:
        num_items: I; the matrix has a row for the padding item too.
    """
    rows = -(-(num_items + 1) // axis_size(MODEL))
    block = min(BLOCK, rows)
    return -(-rows // block) * block, block


@partial(jax.jit, static_argnames="num_items")
def sharded_table(
    gram: Gram, regularisation: jax.Array, rationales: jax.Array | None, num_items: int
) -> jax.Array:
    """What a row adds to the score of each item, the columns shared out along the axis `model`.

    Args:
        gram: its arrays of float64 or of float32, in which all is computed; whole on every device.
        regularisation: ``<float>[]``, lambda, above 0.
        rationales: ``<float32>[S, T]``; None where none are read.
        num_items: I.

    Returns:
        ``<float32>[I + 1 + S, columns]``: rows of padding, items, and rationales, a column for padding, for
        each item, and for what fills up the mesh.
    """
    rows, block = rows_of_device(num_items)

    def own(gram: Gram, regularisation: jax.Array, rationales: jax.Array | None) -> jax.Array:
        begin = jax.lax.axis_index(MODEL) * rows
        size, ridge = rows * axis_size(MODEL), regularisation.astype(gram.users.dtype)
        matrix, crossed, given = _own_rows(gram, begin, rows, size), None, None
        if gram.crossed is not None and gram.rationales is not None:
            crossed, given = _padded(gram.crossed, size), _swept(_add_to_diagonal(gram.rationales, ridge, 0))
            weighed = jnp.matmul(_slice(crossed, begin, rows), given, precision=_EXACT)
            matrix -= jnp.matmul(weighed, crossed.T, precision=_EXACT)
        inverse = _inverse(_add_to_diagonal(matrix, ridge, begin), block)
        weights = _weights(inverse, begin, num_items)
        table = weights[:, : num_items + 1].T.astype(jnp.float32)
        if crossed is None or given is None or rationales is None:
            return table
        left = _slice(crossed, begin, rows) - jnp.matmul(weights, crossed, precision=_EXACT)
        left *= _is_item(begin, rows, num_items)[:, None]
        learned = jnp.matmul(given, left.T, precision=_EXACT).astype(jnp.float32)
        return jnp.concatenate([table, jnp.matmul(rationales, learned, precision=_EXACT)])

    shares = jax.shard_map(
        own, in_specs=(PartitionSpec(),) * 3, out_specs=PartitionSpec(None, MODEL), check_vma=False
    )
    return shares(gram, regularisation, rationales)


def _padded(items: jax.Array | np.ndarray, size: int) -> jax.Array:
    """Rows of items with those of padding before and after them."""
    return jnp.pad(jnp.asarray(items), ((1, size - 1 - len(items)), (0, 0)))


def _slice(array: jax.Array, begin: jax.Array, rows: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array, begin, rows)


def _is_item(begin: jax.Array, rows: int, num_items: int) -> jax.Array:
    number = begin + jnp.arange(rows)
    return (number > 0) & (number <= num_items)


def _add_to_diagonal(matrix: jax.Array | np.ndarray, value: jax.Array, begin: jax.Array | int) -> jax.Array:
    place = jnp.arange(len(matrix))
    return jnp.asarray(matrix).at[place, begin + place].add(value)


def _own_rows(gram: Gram, begin: jax.Array, rows: int, size: int) -> jax.Array:
    """``X'X`` and texts of a device's rows, ``<float>[rows, size]``."""
    place = gram.row + 1 - begin
    place = jnp.where((place >= 0) & (place < rows), place, rows)
    matrix = jnp.zeros((rows, size), gram.users.dtype)
    matrix = matrix.at[place, gram.column + 1].add(gram.users, mode="drop")
    if gram.text is not None:
        text = _padded(gram.text, size)
        matrix += jnp.matmul(_slice(text, begin, rows), text.T, precision=_EXACT)
    return matrix


def _inverse(matrix: jax.Array, block: int) -> jax.Array:
    """The device's rows of the inverse of the matrix whose rows ``<float>[rows, size]`` it has."""
    rows, size = matrix.shape
    this = jax.lax.axis_index(MODEL)

    def eliminate(turn: jax.Array, matrix: jax.Array) -> jax.Array:
        column = turn * block
        owner, place = column // rows, column % rows
        theirs = _slice(matrix, place, block)
        panel = jax.lax.psum(jnp.where(this == owner, theirs, 0), MODEL)
        pivot = _swept(jax.lax.dynamic_slice_in_dim(panel, column, block, axis=1))
        panel = jnp.matmul(pivot, panel, precision=_EXACT)
        panel = jax.lax.dynamic_update_slice_in_dim(panel, pivot, column, axis=1)
        before = jax.lax.dynamic_slice_in_dim(matrix, column, block, axis=1)
        matrix = jax.lax.dynamic_update_slice_in_dim(matrix, jnp.zeros_like(before), column, axis=1)
        matrix -= jnp.matmul(before, panel, precision=_EXACT)
        kept = jnp.where(this == owner, panel, _slice(matrix, place, block))
        return jax.lax.dynamic_update_slice_in_dim(matrix, kept, place, axis=0)

    return jax.lax.fori_loop(0, size // block, eliminate, matrix)


def _swept(matrix: jax.Array) -> jax.Array:
    """The inverse of a small symmetric positive definite matrix, without a kernel of a library."""

    def eliminate(at: jax.Array, matrix: jax.Array) -> jax.Array:
        row, column = matrix[at], matrix[:, at]
        row = (row / row[at]).at[at].set(1 / row[at])
        return (matrix.at[:, at].set(0) - column[:, None] * row).at[at].set(row)

    return jax.lax.fori_loop(0, len(matrix), eliminate, matrix)


def _weights(inverse: jax.Array, begin: jax.Array, num_items: int) -> jax.Array:
    """The weight of each item for the items of a device; zero for itself, and for rows that are no item."""
    place = jnp.arange(len(inverse))
    weights = -inverse / inverse[place, begin + place][:, None]
    weights = weights.at[place, begin + place].set(0)
    return jnp.where(_is_item(begin, len(inverse), num_items)[:, None], weights, 0)


def score_by_columns(weight: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    """Scores of users, who are lists of rows, for items, which are columns of the table.

    Args:
        weight: ``<float32>[E]``, of each entry of a list.
        users: ``<float32>[B, E]``, rows of the table, 0 where unused.
        items: ``<float32>[n, R + 1]``, columns of the table and the number of the item, the same for all
            users, or ``[B, n, R + 1]``.

    Returns:
        ``<float32>[B, n]``.
    """
    entries, items = users.astype(jnp.int32), items[..., :-1]
    if items.ndim == 3:
        found = jnp.take_along_axis(items, entries[:, None, :], axis=2)
        return jnp.einsum("e,bne->bn", weight, found, precision=_EXACT)
    mine = jnp.zeros((len(entries), items.shape[1]), items.dtype)
    mine = mine.at[jnp.arange(len(entries))[:, None], entries].add(weight)
    return jnp.matmul(mine, items.T, precision=_EXACT)
