"""EASE with few predictors for each item: what `ease` is where a matrix of items by items does not fit.

Column i of EASE's weights is the ridge regression of item i on all other items. Here it is that on its k
nearest alone: with N their numbers, ``(G_NN + lambda 1) b = G_Ni``. Nearest are those that by themselves
would predict the item best: a regression on j alone lowers the loss by ``G_ij^2 / (G_jj + lambda)``. Half
of them are chosen with the users in common in the place of ``G_ij``, and texts leave a place for them. With
k = I - 1 the weights are EASE's own. (SLIM with chosen columns, Ning and Karypis, ICDM 2011, is of the kind.)

``G = X'X + V diag(s) V'`` is never built: X'X is sparse, and V has a short row for each item. Texts are
columns of V with s = 1. Rationales are predictors of every item; what they predict is taken away from the
items before (the Schur complement of their block of G), which makes columns of V with s = -1.

The systems of a tile of items are solved by conjugate gradients: batches of LAPACK's Cholesky can wait for
each other for ever on a CPU of few threads.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.mesh import DATA, constrain

STEPS = 200
"""Steps of conjugate gradients, at most; k are exact but for the rounding."""

_EXACT = jax.lax.Precision.HIGHEST
_TINY = 1e-30
_TIE = 1e-7


class SparseGram(NamedTuple):
    """G without its regularisation.

    Attributes:
        begin: ``<int32>[I + 2]``, where a row of X'X begins; the last row stands for no item, and is empty.
        column: ``<int32>[m]``, items from 0, ascending within a row.
        users: ``<float>[m]``, how many users had both.
        vectors: ``<float>[I, n]``, V.
        sign: ``<float>[n]``, s.
    """

    begin: jax.Array | np.ndarray
    column: jax.Array | np.ndarray
    users: jax.Array | np.ndarray
    vectors: jax.Array | np.ndarray
    sign: jax.Array | np.ndarray


class SparseWeights(NamedTuple):
    """The solution.

    Attributes:
        nearest: ``<int32>[I + 1, k]``, the items by which an item is predicted; the last row is of no item.
        weight: ``<float>[I + 1, k]``, of each of them.
        rest: ``<float>[I + 1, n]``, what the weights leave of an item's row of V.
        error: ``<float>[]``, the largest residual of a system, relative to its right-hand side.
    """

    nearest: jax.Array
    weight: jax.Array
    rest: jax.Array
    error: jax.Array


@partial(jax.jit, static_argnames=("widths", "neighbours"))
def sparse_weights(
    gram: SparseGram,
    rows: tuple[jax.Array, ...],
    regularisation: jax.Array,
    widths: tuple[int, ...],
    neighbours: int,
) -> SparseWeights:
    """Solves for the weights of all items, tile by tile; whole on every device of a mesh.

    Args:
        gram: its arrays of float64 or of float32, in which all is computed.
        rows: groups of items in tiles, ``<int32>[tiles, B]``; I where unused.
        regularisation: ``<float>[]``, lambda, above 0.
        widths: most entries of a row of X'X, for each group.
        neighbours: k, less than I.
    """
    num_items, dtype = len(gram.vectors), gram.users.dtype
    ridge = regularisation.astype(dtype)
    diagonal = _entries(gram, jnp.arange(num_items), jnp.arange(num_items), widths[-1])
    diagonal += jnp.matmul(gram.vectors**2, gram.sign, precision=_EXACT) + ridge
    solve = partial(_tile, gram, diagonal, ridge, widths[-1], neighbours)
    found = SparseWeights(
        jnp.zeros((num_items + 1, neighbours), jnp.int32),
        jnp.zeros((num_items + 1, neighbours), dtype),
        jnp.zeros((num_items + 1, gram.vectors.shape[1]), dtype),
        jnp.zeros((), dtype),
    )
    for group, width in zip(rows, widths, strict=True):
        parts = jax.lax.map(partial(solve, width), constrain(group, None, DATA))
        *tables, error = [part.reshape(group.size, *part.shape[2:]) for part in parts]
        nearest, weight, rest = (
            old.at[group.reshape(-1)].set(new) for old, new in zip(found, tables, strict=False)
        )
        found = SparseWeights(nearest, weight, rest, jnp.maximum(found.error, error.max()))
    return SparseWeights(*map(constrain, found))


def _tile(
    gram: SparseGram, diagonal: jax.Array, ridge: jax.Array, longest: int, neighbours: int, width: int,
    items: jax.Array,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """Neighbours, weights, rest and residuals of the items ``[B]``."""
    together = _together(gram, items, width)
    crossed = together + _alike(gram, items)
    others = items[:, None] != jnp.arange(len(diagonal))
    nearest = _nearest(together**2 / diagonal, crossed**2 / diagonal, others, neighbours)
    wanted = jnp.take_along_axis(crossed, nearest, axis=1)
    theirs = gram.vectors[nearest]
    matrix = _entries(gram, nearest[:, :, None], nearest[:, None, :], longest)
    matrix += jnp.einsum("bin,bjn->bij", theirs * gram.sign, theirs, precision=_EXACT)
    matrix += ridge * jnp.eye(neighbours, dtype=matrix.dtype)
    weight, error = _conjugate_gradients(matrix, diagonal[nearest], wanted)
    own = jnp.asarray(gram.vectors).at[items].get(mode="fill", fill_value=0.0)
    return nearest, weight, own - jnp.einsum("bin,bi->bn", theirs, weight, precision=_EXACT), error


def _nearest(together: jax.Array, gain: jax.Array, others: jax.Array, neighbours: int) -> jax.Array:
    """The best predictors by themselves: half of them by users in common, the rest by all of G.

    By all of G alone, items with like texts, which say the same, would leave no place for others.

    Args:
        together: ``<float>[B, I]``, the gain of each predictor by X'X.
        gain: ``<float>[B, I]``, that by G, which also decides where no users are in common.
        others: ``<bool>[B, I]``, which items are not the predicted item.
        neighbours: k.

    Returns:
        ``<int32>[B, k]``.
    """
    half = (neighbours + 1) // 2
    first = jax.lax.top_k(jnp.where(others, together + _TIE * gain, -1.0), half)[1]
    taken = jnp.zeros_like(others).at[jnp.arange(len(first))[:, None], first].set(True)
    second = jax.lax.top_k(jnp.where(others & ~taken, gain, -1.0), neighbours - half)[1]
    return jnp.concatenate([first, second], axis=1)


def _alike(gram: SparseGram, items: jax.Array) -> jax.Array:
    """Rows of ``V diag(s) V'``, ``<float>[B, I]``; zeros for an unused item."""
    own = jnp.asarray(gram.vectors).at[items].get(mode="fill", fill_value=0.0)
    return jnp.matmul(own * gram.sign, gram.vectors.T, precision=_EXACT)


def _together(gram: SparseGram, items: jax.Array, width: int) -> jax.Array:
    """Rows of X'X, ``<float>[B, I]``, each with at most `width` entries; zeros for an unused item."""
    num_items = len(gram.vectors)
    place = gram.begin[items][:, None] + jnp.arange(width)
    used = place < gram.begin[items + 1][:, None]
    place = jnp.where(used, place, 0)
    column = jnp.where(used, gram.column[place], num_items)
    rows = jnp.zeros((len(items), num_items), gram.users.dtype)
    return rows.at[jnp.arange(len(items))[:, None], column].add(gram.users[place], mode="drop")


def _entries(gram: SparseGram, row: jax.Array, column: jax.Array, longest: int) -> jax.Array:
    """Entries of X'X, by a binary search in rows of at most `longest` entries."""
    row, column = jnp.broadcast_arrays(row, column)

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (gram.column[middle] < column)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    begin, end = gram.begin[row], gram.begin[row + 1]
    place, _ = jax.lax.fori_loop(0, longest.bit_length(), halve, (begin, end))
    found = (place < end) & (gram.column[place] == column)
    return jnp.where(found, gram.users[place], 0.0)


def _conjugate_gradients(
    matrix: jax.Array, diagonal: jax.Array, wanted: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Solves ``A x = b`` for a batch of symmetric positive definite A, preconditioned by the diagonal.

    Returns:
        x ``<float>[B, k]`` and the norms of what is left of b, relative to that of b, ``<float>[B]``.
    """

    def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        x, residual, direction, norm = state
        turned = jnp.einsum("bij,bj->bi", matrix, direction, precision=_EXACT)
        length = norm / jnp.maximum(_dot(direction, turned), _TINY)
        x, residual = x + length * direction, residual - length * turned
        scaled = residual / diagonal
        following = _dot(residual, scaled)
        return x, residual, scaled + following / jnp.maximum(norm, _TINY) * direction, following

    scaled = wanted / diagonal
    first = (jnp.zeros_like(wanted), wanted, scaled, _dot(wanted, scaled))
    x = jax.lax.fori_loop(0, min(STEPS, 2 * wanted.shape[1]), step, first)[0]
    left = wanted - jnp.einsum("bij,bj->bi", matrix, x, precision=_EXACT)
    return x, jnp.sqrt(_dot(left, left) / jnp.maximum(_dot(wanted, wanted), _TINY))[:, 0]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=-1, keepdims=True)


def sparse_score(
    weight: jax.Array,
    rationales: jax.Array | None,
    tables: dict[str, jax.Array | None],
    users: jax.Array,
    items: jax.Array,
) -> jax.Array:
    """Scores of users, who are lists of what they had, for items; `ease.score` of weights of this form.

    Args:
        weight: ``<float32>[E]``, of each entry of a list.
        rationales: ``<float32>[S, T]``, what an entry from I + 1 on stands for, or None.
        tables: "nearest" ``<int32>[I + 1, k]`` and "weight" ``<float32>[I + 1, k]`` of each item from 1,
            which row 0 pads, and "rationale_weights" ``<float32>[T, I + 1]`` or None.
        users: ``<float32>[B, E]``, from 1, or from I + 1 on for rationales; 0 where unused.
        items: ``<float32>[n, 1]``, the same for all users, or ``[B, n, 1]``.

    Returns:
        ``<float32>[B, n]``.
    """
    entries, columns = users.astype(jnp.int32), items[..., 0].astype(jnp.int32)
    nearest, weights = tables["nearest"], tables["weight"]
    assert nearest is not None and weights is not None
    size = len(nearest) + (0 if rationales is None else len(rationales))
    count = entries.shape[0]
    mine = jnp.zeros((count, size), weight.dtype)
    mine = mine.at[jnp.arange(count)[:, None], entries].add(jnp.where(entries > 0, weight, 0.0))
    if items.ndim == 3:
        had = jnp.take_along_axis(mine, nearest[columns].reshape(len(mine), -1), axis=1)
        scores = (had.reshape(*columns.shape, -1) * weights[columns]).sum(-1)
    else:
        scores = _weighed(mine.T, nearest[columns], weights[columns])
    if rationales is None:
        return scores
    given = jnp.matmul(mine[:, len(nearest) :], rationales, precision=_EXACT)
    theirs = tables["rationale_weights"]
    assert theirs is not None
    spec = "bt,tbn->bn" if items.ndim == 3 else "bt,tn->bn"
    return scores + jnp.einsum(spec, given, theirs[:, columns], precision=_EXACT)


def _weighed(had: jax.Array, nearest: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums over the neighbours of an item, one neighbour of all items after the other; ``[B, n]``."""

    def add(place: jax.Array, sums: jax.Array) -> jax.Array:
        return sums + weights[:, place, None] * had[nearest[:, place]]

    nothing = jnp.zeros((len(nearest), had.shape[1]), had.dtype)
    return jax.lax.fori_loop(0, nearest.shape[1], add, nothing).T
