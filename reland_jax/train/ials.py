"""iALS with its data: rows in tiles on the host, solved on the device, ranked like others."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reland_jax.device import sizes
from reland_jax.eval import Vectors
from reland_jax.mesh import MODEL, constrain, device_put_rows, pad_to_axis
from reland_jax.models import AnyTables
from reland_jax.models.ials import Dense, Factors, Ials, Rows, Weights, factorise, solve_rows, weights_of
from reland_jax.models.scores import dot_product
from reland_jax.train.closed_form import ClosedForm, unit_rows, who_had_what
from reland_jax.types import Ragged, Splits

NARROWEST = 4
"""Least width of a tile."""

FOLD_IN_STEPS = 32
"""Steps of conjugate gradients for the users of a ranking, who then depend on their histories alone."""


class Problem(NamedTuple):
    """What is factorised, on the devices.

    Attributes:
        users, items: tiles of their rows.
        rationales: ``<float32>[U, T]`` or None.
        texts: ``<float32>[I, T]`` or None.
    """

    users: tuple[Rows, ...]
    items: tuple[Rows, ...]
    rationales: jax.Array | None
    texts: jax.Array | None


def factorisation(model: Ials, tables: AnyTables, splits: Splits, known: Ragged) -> ClosedForm:
    """The factorisation with its data.

    Args:
        model: settings and sizes.
        tables: of the host: item texts, rationales and seed users, where the variant reads them.
        splits: training part, from which users are solved for in both parts of an evaluation.
        known: the histories from which they are solved for in the test part.
    """
    items = jax.ShapeDtypeStruct((splits.num_items, model.dim), np.float32)
    shapes, given = {"items": items, "rationale_loadings": None}, None
    if model.rationales and model.config.rationale_weight:
        given = device_put_rows(_given(model, tables))
        shapes["rationale_loadings"] = jax.ShapeDtypeStruct((given.shape[1], model.dim), np.float32)
    had = who_had_what(splits.train, splits.num_items)
    users = tiles(had)
    after = users if known is splits.train else tiles(who_had_what(known, splits.num_items))
    call = partial(_call, model, splits)
    return ClosedForm(
        model, shapes, len(splits.train.items),
        partial(_problem, model, tables, had, users, given),
        lambda problem: call(problem, factorise.lower, 0).compile(),
        lambda problem, seed: call(problem, factorise, seed)._asdict(),
        partial(_vectors, model, splits.num_users, {"valid": users, "test": after}, given),
    )  # fmt: skip


def _call(model: Ials, splits: Splits, problem: Problem, function: Any, seed: int) -> Any:
    return function(
        *problem, jax.random.key(seed), weights_of(model.config), num_users=splits.num_users,
        num_items=splits.num_items, dim=model.dim, sweeps=model.config.sweeps, steps=model.config.steps,
    )  # fmt: skip


def _problem(
    model: Ials, tables: AnyTables, had: sparse.csr_array, users: tuple[Rows, ...], given: jax.Array | None
) -> Problem:
    texts = None
    if model.texts and model.config.text_weight:
        weight = np.float32(model.config.text_weight**0.5)
        texts = device_put_rows(unit_rows(np.asarray(tables.item_text, np.float32)[1:]) * weight)
    return Problem(users, tiles(had.T.tocsr()), given, texts)


def _given(model: Ials, tables: AnyTables) -> np.ndarray:
    """``<float32>[U, T]``, every user's mean rationale, times the square root of rho."""
    found = unit_rows(np.asarray(tables.rationale, np.float32))
    mean = found[np.asarray(tables.seed)[:, : model.rationales]].mean(axis=1)
    return mean * np.float32(model.config.rationale_weight**0.5)


def users_after(model: Ials, params: Any, history: jax.Array, rationale: jax.Array | None) -> jax.Array:
    """The factors of users by what they had, ``<float32>[n, D]``, as a pure function of arrays.

    Args:
        model: settings.
        params: the solution.
        history: ``<int32>[n, W]``, items of n users, each once, 0 where unused.
        rationale: ``<float32>[n, T]``, mean of the rationales of length 1 that each user is given, or None.
    """
    factors, (users, _) = Factors(**params), history.shape
    entry = jnp.where(history > 0, history - 1, len(factors.items))
    length = jnp.maximum((history > 0).sum(1), 1).astype(jnp.float32)
    rows = Rows(jnp.arange(users)[None], entry[None], length[None])
    beside = None
    if rationale is not None and factors.rationale_loadings is not None:
        beside = Dense(rationale * model.config.rationale_weight**0.5, factors.rationale_loadings)
    start = jnp.zeros((users, factors.items.shape[1]))
    return solve_rows((rows,), factors.items, start, beside, weights_of(model.config), FOLD_IN_STEPS)


def tiles(matrix: sparse.csr_array) -> tuple[Rows, ...]:
    """The rows of a matrix that have entries, by length, in tiles of equal shapes.

    A width is at most twice the length of its rows, so at most half of what is computed is padding.

    Args:
        matrix: ``[R, m]``, each entry once.
    """
    lengths = np.diff(matrix.indptr)
    width = NARROWEST << np.ceil(np.log2(np.maximum(lengths, NARROWEST) / NARROWEST)).astype(int)
    widths = np.unique(width[lengths > 0])
    return tuple(_tiles(matrix, np.flatnonzero((width == w) & (lengths > 0)), int(w)) for w in widths)


def _tiles(matrix: sparse.csr_array, rows: np.ndarray, width: int) -> Rows:
    devices = jax.device_count()
    number = -(-len(rows) * width // (sizes().factor_entries * devices))
    each = -(-len(rows) // (number * devices)) * devices
    row = np.full(number * each, matrix.shape[0], np.int32)
    row[: len(rows)] = rows
    begin, length = (
        np.pad(a[rows], (0, len(row) - len(rows))) for a in (matrix.indptr, np.diff(matrix.indptr))
    )
    place = begin[:, None] + np.arange(width)
    used = np.arange(width) < length[:, None]
    entry = np.where(used, matrix.indices[np.where(used, place, 0)], matrix.shape[1]).astype(np.int32)
    shape = (number, each)
    weight = np.maximum(length, 1).astype(np.float32)
    parts = (row.reshape(shape), entry.reshape(*shape, width), weight.reshape(shape))
    return Rows(*map(device_put_rows, parts))


@partial(jax.jit, static_argnames="num_users")
def _fold_in(
    rows: tuple[Rows, ...], factors: Factors, given: jax.Array | None, weights: Weights, num_users: int
) -> tuple[jax.Array, jax.Array]:
    """Users from what they had, and items, ready to be ranked."""
    beside = None
    if given is not None and factors.rationale_loadings is not None:
        beside = Dense(given, factors.rationale_loadings)
    start = jnp.zeros((num_users, factors.items.shape[1]))
    users = solve_rows(rows, factors.items, start, beside, weights, FOLD_IN_STEPS)
    return _table(users), _table(jnp.pad(factors.items, ((1, 0), (0, 0))))


def _table(rows: jax.Array) -> jax.Array:
    """Rows spread over the devices of a mesh, padded with zeros."""
    return constrain(jnp.pad(rows, ((0, pad_to_axis(len(rows), MODEL) - len(rows)), (0, 0))), MODEL)


def _vectors(
    model: Ials,
    num_users: int,
    rows: dict[str, tuple[Rows, ...]],
    given: jax.Array | None,
    params: Any,
    part: str,
) -> Vectors:
    users, items = _fold_in(rows[part], Factors(**params), given, weights_of(model.config), num_users)
    return Vectors(users, items, jax.tree_util.Partial(dot_product))
