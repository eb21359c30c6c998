"""EASE: a linear model of items by items, in closed form (Steck, WWW 2019), with texts in it.

Every item is predicted from the other items of a user, by weights ``B`` with a zero diagonal that minimise
``|X - X B|^2 + lambda |B|^2``. With ``G = X'X + lambda 1`` and ``P`` its inverse they are
``B = 1 - P diag(1 / diag P)``: one factorisation, no epochs, and no chance in it.

Item texts (`f_item`) enter as ``beta F F'`` beside ``X'X``, F with a row of length 1 for every item, as if
each dimension of the text were ``beta`` more users. Rationales (`reland`) enter as more columns of X: those
of the mean vector of a user's rationales. They predict items and are not predicted.

The weights are symmetric but for the factor of a column, so only the part of ``P`` below the diagonal is
solved for, block of columns by block of columns. That takes about half the operations of solving for all.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from reland_jax.config import EaseConfig
from reland_jax.mesh import constrain

BLOCK = 2048
"""Columns of the inverse that are solved for at a time."""

_EXACT = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Ease:
    """What stands in the place of a module for a recommender that is solved for, and not trained.

    Attributes:
        config: settings.
        num_items: I.
        texts: whether items are represented by their texts too.
        rationales: k, how many rationales a user is given; 0 where none are read.
        recency: whether newer items of a history weigh more.
    """

    config: EaseConfig
    num_items: int
    texts: bool
    rationales: int
    recency: bool

    @property
    def reads_phrases(self) -> bool:
        """Whether rationales are read as phrases, and not as columns of X."""
        return bool(self.rationales) and self.config.reading == "phrases"

    @property
    def reads_columns(self) -> bool:
        """Whether rationales are columns of X."""
        return bool(self.rationales) and not self.reads_phrases


class Gram(NamedTuple):
    """What the normal equations are made of; None where a variant has no such part.

    Attributes:
        row, column: ``<int32>[m]``, the pairs of items, from 0, that some user had both of.
        users: ``<float>[m]``, how many users.
        text: ``<float>[I, T]``, rows of length 1 or 0, times the square root of beta.
        crossed: ``<float>[I, T]``, sum over the users of an item of their rationales.
        rationales: ``<float>[T, T]``, the same of rationales by rationales.
    """

    row: jax.Array | np.ndarray
    column: jax.Array | np.ndarray
    users: jax.Array | np.ndarray
    text: jax.Array | np.ndarray | None = None
    crossed: jax.Array | np.ndarray | None = None
    rationales: jax.Array | np.ndarray | None = None

    @property
    def extra(self) -> int:
        """Columns beside the items, T with rationales and else 0."""
        return 0 if self.rationales is None else len(self.rationales)


@partial(jax.jit, static_argnames=("num_items", "block"))
def item_weights(gram: Gram, regularisation: jax.Array, num_items: int, block: int = BLOCK) -> jax.Array:
    """B and, below it, the weights of rationales; whole on every device of a mesh.

    Args:
        gram: its arrays of float64 or of float32, in which all is computed. A step of Newton does not mend
            an inverse in float32: what is lost is lost in the matrix.
        regularisation: ``<float>[]``, lambda, above 0.
        num_items: I.
        block: columns that are solved for at a time.

    Returns:
        ``<float>[I + T, I]``, the weight of each predictor (row) for each item (column); zero diagonal.
    """
    matrix = _assembled(gram, regularisation, num_items)
    inverse = _inverse(matrix, num_items, block)
    weights = -inverse / jnp.diagonal(inverse)
    place = jnp.arange(num_items)
    return constrain(weights.at[place, place].set(0.0))


def _assembled(gram: Gram, regularisation: jax.Array, num_items: int) -> jax.Array:
    """``G`` of all predictors, ``<float>[I + T, I + T]``."""
    size = num_items + gram.extra
    matrix = jnp.zeros((size, size), gram.users.dtype).at[gram.row, gram.column].add(gram.users)
    if gram.text is not None:
        matrix = matrix.at[:num_items, :num_items].add(jnp.matmul(gram.text, gram.text.T, precision=_EXACT))
    if gram.extra:
        assert gram.crossed is not None
        matrix = matrix.at[:num_items, num_items:].set(gram.crossed)
        matrix = matrix.at[num_items:, :num_items].set(gram.crossed.T)
        matrix = matrix.at[num_items:, num_items:].set(gram.rationales)
    place = jnp.arange(size)
    return matrix.at[place, place].add(regularisation.astype(matrix.dtype))


def _inverse(matrix: jax.Array, columns: int, block: int) -> jax.Array:
    """The first `columns` of the inverse of a symmetric positive definite matrix ``[n, n]``.

    With ``L L'`` the matrix, a column from j on depends on what stands from j on in L alone.
    """
    size, factor = len(matrix), jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    lower = jnp.zeros((size, columns), matrix.dtype)
    for begin in range(0, columns, block):
        rest = factor[begin:, begin:]
        unit = jnp.eye(size - begin, min(block, columns - begin), dtype=matrix.dtype)
        half = solve_triangular(rest, unit, lower=True)
        lower = lower.at[begin:, begin : begin + block].set(solve_triangular(rest, half, lower=True, trans=1))
    square = jnp.tril(lower[:columns])
    return lower.at[:columns].set(square + jnp.tril(square, -1).T)


def age_weights(config: EaseConfig, recency: bool, rationales: int, length: int) -> np.ndarray:
    """What each entry of a user's list weighs, ``<float32>[rationales + length]``.

    Args:
        config: settings.
        recency: whether a history item weighs 0.5 to the power of its age in half-lives; else 1.
        rationales: entries before the history, which share the weight 1.
        length: L, entries of the history, newest first.
    """
    halvings = np.arange(length) / config.half_life if recency else np.zeros(length)
    return np.concatenate([np.full(rationales, 1 / max(rationales, 1)), 0.5**halvings]).astype(np.float32)


def score(weight: jax.Array, table: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    """Scores of users, who are lists of what they had, for items.

    Numbers of rows and columns travel as float32, as all vectors do in a ranking: exact up to 16,777,216.

    Args:
        weight: ``<float32>[E]``, of each entry of a list.
        table: ``<float32>[R, I + 1]``, what a row adds to the score of each item; row 0 is zero.
        users: ``<float32>[B, E]``, rows of `table`, 0 where unused.
        items: ``<float32>[n, 1]``, columns of `table`, the same for all users, or ``[B, n, 1]``.

    Returns:
        ``<float32>[B, n]``.
    """
    entries, columns = users.astype(jnp.int32), items[..., 0].astype(jnp.int32)
    if items.ndim == 3:
        found = table[entries[:, :, None], columns[:, None, :]]
        return jnp.einsum("e,ben->bn", weight, found, precision=_EXACT)
    # The entries of a list are few, so a CPU adds up its rows; what multiplies fast, multiplies.
    return jax.lax.platform_dependent(weight, table, entries, columns, cpu=_summed, default=_multiplied)


def _multiplied(weight: jax.Array, table: jax.Array, entries: jax.Array, columns: jax.Array) -> jax.Array:
    users = entries.shape[0]
    mine = jnp.zeros((users, len(table)), table.dtype)
    mine = mine.at[jnp.arange(users)[:, None], entries].add(weight)
    return jnp.matmul(mine, table if _is_whole(table, columns) else table[:, columns], precision=_EXACT)


def _summed(weight: jax.Array, table: jax.Array, entries: jax.Array, columns: jax.Array) -> jax.Array:
    def row(entry: jax.Array) -> jax.Array:
        return table[entry] if _is_whole(table, columns) else table[entry, columns]

    def one(entries: jax.Array) -> jax.Array:
        used = jnp.max(jnp.where(entries > 0, jnp.arange(1, len(entries) + 1), 0))
        nothing = jnp.zeros(len(columns), table.dtype)
        return jax.lax.fori_loop(0, used, lambda at, sums: sums + weight[at] * row(entries[at]), nothing)

    return jax.lax.map(one, entries)


def _is_whole(table: jax.Array, columns: jax.Array) -> bool:
    """Whether the columns are all of the table, in order: so many are never asked for otherwise."""
    return len(columns) == table.shape[1]
