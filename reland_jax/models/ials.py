"""iALS: factors of users and items by alternating least squares (Hu et al., ICDM 2008; Rendle et al., 2022).

Factors u and v minimise

    sum of (1 - u.v)^2 over what users had  +  alpha * sum of (u.v)^2 over all pairs
        +  sum of lambda_u |u|^2 over users  +  sum of lambda_i |v|^2 over items,

with ``lambda_u = lambda (n_u + alpha I)^nu`` for a user with n_u items, and items likewise. With the factors
of one side fixed, each row of the other is a least-squares problem of its own.

Item texts (`f_item`) and rationales (`reland`) are factorised together with the interactions (Singh and
Gordon, KDD 2008): ``beta |f - W v|^2`` is added for each item and ``rho |r - Z u|^2`` for each user, with f
and r of length 1. So an item of few users gets its factors from its text, and a user from the rationales.

All rows of a side share the matrix ``S = alpha V'V + rho Z'Z``. In the basis of its eigenvectors ``S`` and
the regularisation are diagonal, which makes them an exact preconditioner: what is left of a row's matrix has
the rank of its entries, so a few steps of conjugate gradients solve it, in ``O(n D)`` each and without a
``D x D`` matrix per row. (Batches of LAPACK's Cholesky can wait for each other for ever on a CPU of few
threads.)
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from reland_jax.linear import IalsConfig
from reland_jax.mesh import DATA, constrain

_EXACT = jax.lax.Precision.HIGHEST
_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Ials:
    """What stands in the place of a module for a recommender by alternating least squares.

    Attributes:
        config: settings.
        dim: D.
        num_items: I.
        texts: whether item texts are factorised too.
        rationales: k, how many rationales a user is given; 0 where none are read.
    """

    config: IalsConfig
    dim: int
    num_items: int
    texts: bool
    rationales: int


class Rows(NamedTuple):
    """Rows of similar length, in n tiles of B.

    Attributes:
        row: ``<int32>[n, B]``, number of the row; that of all rows where unused.
        entry: ``<int32>[n, B, w]``, rows of the other side; that of all its rows where unused.
        length: ``<float32>[n, B]``, entries of the row; 1 where unused.
    """

    row: jax.Array
    entry: jax.Array
    length: jax.Array


class Dense(NamedTuple):
    """Vectors that are factorised beside the interactions of a side.

    Attributes:
        vectors: ``<float32>[R, T]``, one for each row, times the square root of its weight (beta or rho).
        loadings: ``<float32>[T, D]``, W or Z, times the square root of that weight.
    """

    vectors: jax.Array
    loadings: jax.Array


class Weights(NamedTuple):
    """Settings as numbers that a compiled program is given, so that others of them compile nothing.

    Attributes:
        unobserved: ``<float>[]``, alpha.
        regularisation: ``<float>[]``, lambda.
        frequency: ``<float>[]``, nu.
        initial_scale: ``<float>[]``, see `IalsConfig`.
    """

    unobserved: jax.Array | float
    regularisation: jax.Array | float
    frequency: jax.Array | float
    initial_scale: jax.Array | float


def weights_of(config: IalsConfig) -> Weights:
    """The numbers among the settings."""
    return Weights(*(getattr(config, name) for name in Weights._fields))


class Factors(NamedTuple):
    """The solution.

    Attributes:
        items: ``<float32>[I, D]``.
        rationale_loadings: ``<float32>[T, D]``, Z times the square root of rho; None without rationales.
    """

    items: jax.Array
    rationale_loadings: jax.Array | None


@partial(jax.jit, static_argnames=("num_users", "num_items", "dim", "sweeps", "steps"))
def factorise(
    users: tuple[Rows, ...],
    items: tuple[Rows, ...],
    rationales: jax.Array | None,
    texts: jax.Array | None,
    key: jax.Array,
    weights: Weights,
    *,
    num_users: int,
    num_items: int,
    dim: int,
    sweeps: int,
    steps: int,
) -> Factors:
    """Alternates between users and items.

    Args:
        users: what every user had.
        items: who had every item.
        rationales: ``<float32>[U, T]``, a vector for every user times the square root of rho, or None.
        texts: ``<float32>[I, T]``, a vector for every item times the square root of beta, or None.
        key: of the first item factors.
        weights: see `Weights`.
        num_users: U.
        num_items: I.
        dim: D.
        sweeps: times that both sides are solved for.
        steps: see `solve_rows`.
    """

    def sweep(_: jax.Array, factors: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        user, item = factors
        user = solve_rows(users, item, user, _beside(rationales, user, weights), weights, steps)
        return user, solve_rows(items, user, item, _beside(texts, item, weights), weights, steps)

    item = jax.random.normal(key, (num_items, dim)) * weights.initial_scale / dim**0.5
    user = solve_rows(users, item, jnp.zeros((num_users, dim)), None, weights, steps)
    item = solve_rows(items, user, item, None, weights, steps)
    user, item = jax.lax.fori_loop(1, sweeps, sweep, (user, item))
    beside = _beside(rationales, user, weights)
    return Factors(item, None if beside is None else beside.loadings)


def _beside(vectors: jax.Array | None, factors: jax.Array, weights: Weights) -> Dense | None:
    """Vectors with the loadings that predict them best from the factors of their rows."""
    if vectors is None:
        return None
    gram = jnp.matmul(factors.T, factors, precision=_EXACT)
    ridge = weights.regularisation * len(factors) ** weights.frequency * jnp.eye(len(gram))
    crossed = jnp.matmul(factors.T, vectors, precision=_EXACT)
    return Dense(vectors, jax.scipy.linalg.solve(gram + ridge, crossed, assume_a="pos").T)


def solve_rows(
    rows: tuple[Rows, ...],
    other: jax.Array,
    start: jax.Array,
    beside: Dense | None,
    weights: Weights,
    steps: int,
) -> jax.Array:
    """The factors of one side, those of the other being fixed.

    Args:
        rows: every row with at least one entry, once; rows without any get zeros.
        other: ``<float32>[m, D]``, factors of the other side.
        start: ``<float32>[R, D]``, where the conjugate gradients start.
        beside: what is factorised beside the interactions of this side.
        weights: see `Weights`.
        steps: of the conjugate gradients.

    Returns:
        ``<float32>[R, D]``.
    """
    shared = weights.unobserved * jnp.matmul(other.T, other, precision=_EXACT)
    if beside is not None:
        shared += jnp.matmul(beside.loadings.T, beside.loadings, precision=_EXACT)
    values, basis = jnp.linalg.eigh(shared)
    values = jnp.maximum(values, 0.0)
    # A row of zeros is what an unused place of a tile reads, and what an unused row of a tile starts from.
    turned = jnp.pad(jnp.matmul(other, basis, precision=_EXACT), ((0, 1), (0, 0)))
    start = jnp.pad(jnp.matmul(start, basis, precision=_EXACT), ((0, 1), (0, 0)))
    dense = None
    if beside is not None:
        loadings = jnp.matmul(beside.loadings, basis, precision=_EXACT)
        dense = jnp.pad(jnp.matmul(beside.vectors, loadings, precision=_EXACT), ((0, 1), (0, 0)))

    def tile(rows: Rows) -> jax.Array:
        observed = rows.length + weights.unobserved * len(other)
        penalty = weights.regularisation * observed**weights.frequency
        entries = turned[rows.entry]
        wanted = entries.sum(1) + (0.0 if dense is None else dense[rows.row])
        return _conjugate_gradients(entries, values + penalty[:, None], wanted, start[rows.row], steps)

    found = jnp.zeros_like(start)
    for each in rows:
        # The rows of every tile are spread over the devices of a mesh.
        solved = jax.lax.map(tile, jax.tree.map(lambda array: constrain(array, None, DATA), each))
        found = found.at[each.row.reshape(-1)].set(solved.reshape(-1, solved.shape[-1]))
    return constrain(jnp.matmul(found[:-1], basis.T, precision=_EXACT))


def _conjugate_gradients(
    entries: jax.Array, diagonal: jax.Array, wanted: jax.Array, start: jax.Array, steps: int
) -> jax.Array:
    """Solves ``(diag(d) + E'E) x = b`` for every row of a tile, preconditioned by the diagonal.

    Args:
        entries: ``<float32>[B, w, D]``, E.
        diagonal: ``<float32>[B, D]``, d, above 0.
        wanted: ``<float32>[B, D]``, b.
        start: ``<float32>[B, D]``, first x.
        steps: at most; w steps are exact.

    Returns:
        ``<float32>[B, D]``.
    """

    def product(x: jax.Array) -> jax.Array:
        of_entries = jnp.einsum("bwd,bd->bw", entries, x, precision=_EXACT)
        return diagonal * x + jnp.einsum("bwd,bw->bd", entries, of_entries, precision=_EXACT)

    def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        x, residual, direction, norm = state
        turned = product(direction)
        length = norm / jnp.maximum(_dot(direction, turned), _TINY)
        x, residual = x + length * direction, residual - length * turned
        scaled = residual / diagonal
        following = _dot(residual, scaled)
        return x, residual, scaled + following / jnp.maximum(norm, _TINY) * direction, following

    residual = wanted - product(start)
    scaled = residual / diagonal
    first = (start, residual, scaled, _dot(residual, scaled))
    return jax.lax.fori_loop(0, min(steps, entries.shape[1] + 1), step, first)[0]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=-1, keepdims=True)
