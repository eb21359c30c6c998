"""EASE with few predictors for each item: counted on the host, solved on the device, ranked like others."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cholesky, solve_triangular

from reland_jax.device import sizes
from reland_jax.eval import Vectors
from reland_jax.mesh import constrain, device_put_rows
from reland_jax.models import AnyTables
from reland_jax.models.ease import Ease
from reland_jax.models.sparse_ease import SparseGram, SparseWeights, sparse_score, sparse_weights
from reland_jax.train.closed_form import (
    ClosedForm,
    Lists,
    item_vectors,
    numbers_of_items,
    rationale_sums,
    rationale_vectors,
    refuse_what_does_not_fit,
    scored_with_phrases,
    shapes_with_phrases,
    who_had_what,
    with_phrases,
)
from reland_jax.types import Ragged, RelandError, Splits

LARGEST_ERROR = 1e-2
"""Of a system of equations, relative to its right-hand side."""

_WIDTH, _WIDER = 64, 16
"""Most entries of the rows of X'X in the first group, and how many times as many each next group has."""


class Equations(NamedTuple):
    """What is solved, on the host.

    Attributes:
        gram: of items.
        rows: groups of items in tiles.
        widths: most entries of a row of X'X, for each group.
        factor: ``<float>[T, T]``, lower, of the block of rationales; None without them.
    """

    gram: SparseGram
    rows: tuple[np.ndarray, ...]
    widths: tuple[int, ...]
    factor: np.ndarray | None


def sparse_form(model: Ease, tables: AnyTables, splits: Splits, lists: dict[str, Lists]) -> ClosedForm:
    """The sparse form with its data; its arguments are those of `closed_form`."""
    rows, neighbours = splits.num_items + 1, _neighbours(model)
    shapes: dict[str, Any] = {
        "nearest": jax.ShapeDtypeStruct((rows, neighbours), np.int32),
        "weight": jax.ShapeDtypeStruct((rows, neighbours), np.float32),
        "rationale_weights": None,
    }
    if model.reads_columns:
        width = np.asarray(tables.rationale).shape[1]
        shapes["rationale_weights"] = jax.ShapeDtypeStruct((width, rows), np.float32)
    return ClosedForm(
        model, shapes_with_phrases(model, tables, shapes), len(splits.train.items),
        partial(_count, model, tables, splits.train), partial(_compile, model),
        partial(_solve, model, tables), partial(_vectors, model, tables, lists),
    )  # fmt: skip


def _neighbours(model: Ease) -> int:
    return max(min(model.config.neighbours, model.num_items - 1), 1)


# --- what is solved ------------------------------------------------------------------------------


def _count(model: Ease, tables: AnyTables, train: Ragged) -> Equations:
    dtype = np.dtype(model.config.precision)
    widths = [np.asarray(tables.item_text).shape[1]] if model.texts and model.config.text_weight else []
    widths += [np.asarray(tables.rationale).shape[1]] if model.reads_columns else []
    had = who_had_what(train, model.num_items, dtype)
    pairs = min(int((np.diff(had.indptr).astype(np.int64) ** 2).sum()), model.num_items**2)
    _check_memory(model, pairs, sum(widths))
    both = (had.T @ had).tocsr()
    both.sort_indices()
    parts, signs, factor = [np.zeros((model.num_items, 0), dtype)], [np.zeros(0, dtype)], None
    if (texts := item_vectors(model, tables)) is not None:
        parts, signs = [*parts, texts], [*signs, np.ones(texts.shape[1], dtype)]
    if model.reads_columns:
        sums = rationale_sums(model, tables, had)
        own = sums["rationales"] + model.config.regularisation * np.eye(len(sums["rationales"]), dtype=dtype)
        factor = cholesky(own, lower=True)
        parts.append(solve_triangular(factor, sums["crossed"].T, lower=True).T)
        signs.append(-np.ones(len(factor), dtype))
    begin = np.append(both.indptr, both.indptr[-1]).astype(np.int32)
    vectors, sign = np.concatenate(parts, axis=1), np.concatenate(signs)
    gram = SparseGram(begin, both.indices.astype(np.int32), both.data, vectors, sign)
    return Equations(gram, *_tiles(np.diff(both.indptr), _at_a_time(model, sum(widths))), factor)


def _item_bytes(model: Ease, vectors: int) -> int:
    """Of the arrays of one item of a tile."""
    k, size = _neighbours(model), np.dtype(model.config.precision).itemsize
    return size * (3 * model.num_items + k * (3 * k + 2 * vectors)) + 16 * k**2


def _at_a_time(model: Ease, vectors: int) -> int:
    return max(sizes().sparse_bytes // _item_bytes(model, vectors), 1)


def _check_memory(model: Ease, pairs: int, vectors: int) -> None:
    """Tells how much memory the solution takes, and refuses what does not fit; see `check_memory`."""
    size, k = np.dtype(model.config.precision).itemsize, _neighbours(model)
    each = size * (3 * vectors + 3 * k) + 16 * k  # of an item: V thrice, weights and neighbours thrice
    tile = _at_a_time(model, vectors) * _item_bytes(model, vectors) * jax.device_count()
    refuse_what_does_not_fit(
        f"predict each of {model.num_items:,} items from {k} others in {model.config.precision}",
        3 * (size + 4) * pairs + each * model.num_items + tile,
        "take fewer neighbours (config.ease.neighbours), or fewer items (data.min_interactions)",
    )


def _tiles(lengths: np.ndarray, at_a_time: int) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """Items in groups by the length of their rows of X'X, and the most entries of a row of each group."""
    groups, widths, below, devices = [], [], 0, jax.device_count()
    longest, width = int(lengths.max()), _WIDTH
    while below < longest:
        items = np.flatnonzero((lengths > below - (below == 0)) & (lengths <= width))
        if len(items):
            number = -(-len(items) // (at_a_time * devices))
            each = -(-len(items) // (number * devices)) * devices
            tile = np.full(number * each, len(lengths), np.int32)
            tile[: len(items)] = items
            groups.append(tile.reshape(number, each))
            widths.append(min(width, longest))
        below, width = width, width * _WIDER
    return tuple(groups), tuple(widths)


def _call(function: Any, model: Ease, equations: Equations) -> Any:
    gram, rows = jax.tree.map(device_put_rows, (equations.gram, equations.rows))
    regularisation = device_put_rows(np.asarray(model.config.regularisation, equations.gram.users.dtype))
    return function(gram, rows, regularisation, widths=equations.widths, neighbours=_neighbours(model))


def _compile(model: Ease, equations: Equations) -> jax.stages.Compiled:
    with jax.enable_x64(True):
        return _call(sparse_weights.lower, model, equations).compile()


def _solve(model: Ease, tables: AnyTables, equations: Equations, seed: int) -> dict[str, jax.Array | None]:
    del seed
    with jax.enable_x64(True):
        found = _call(sparse_weights, model, equations)
        error = float(found.error)
        factor = None if equations.factor is None else device_put_rows(equations.factor)
        solved = _tables(found, factor)
    if not error <= LARGEST_ERROR:
        raise RelandError(
            f"config.ease.regularisation={model.config.regularisation}: the equations of an item are solved "
            f"to a relative error of {error:.2g} only, in {model.config.precision}; raise it, or lower "
            "config.ease.text_weight"
        )
    return with_phrases(model, tables, solved)


@jax.jit
def _tables(found: SparseWeights, factor: jax.Array | None) -> dict[str, jax.Array | None]:
    """What `sparse_score` reads: items from 1."""
    rationales = None
    if factor is not None:
        rest = jnp.roll(found.rest[:, -len(factor) :], 1, axis=0).at[0].set(0.0)
        rationales = jax.scipy.linalg.solve_triangular(factor, rest.T, lower=True, trans=1)
        rationales = constrain(rationales.astype(jnp.float32))
    nearest, weight = (jnp.roll(table, 1, axis=0) for table in (found.nearest + 1, found.weight))
    return {
        "nearest": constrain(nearest.astype(jnp.int32)),
        "weight": constrain(weight.at[0].set(0.0).astype(jnp.float32)),
        "rationale_weights": rationales,
    }


# --- what is ranked ------------------------------------------------------------------------------


def _vectors(model: Ease, tables: AnyTables, lists: dict[str, Lists], params: Any, part: str) -> Vectors:
    rationales = device_put_rows(rationale_vectors(model, tables)) if model.reads_columns else None
    solved = {name: table for name, table in params.items() if name != "phrases"}
    base = jax.tree_util.Partial(sparse_score, lists[part].weight, rationales, solved)
    return Vectors(lists[part].users, numbers_of_items(model.num_items), scored_with_phrases(params, base))
