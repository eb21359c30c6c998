"""Recommenders that are solved for at once: counted on the host, solved on the device, ranked like others.

A `ClosedForm` stands beside `Task`, and `fit` solves it in one epoch. Nothing of EASE depends on the
training seed. There are no checkpoints: what was stopped is solved anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy import sparse

from reland_jax.config import EaseConfig
from reland_jax.eval import Vectors
from reland_jax.mesh import MODEL, axis_size, constrain, device_put_rows
from reland_jax.models import AnyTables, Linear
from reland_jax.models.ease import Ease, Gram, age_weights, item_weights, score
from reland_jax.models.phrases import phrase_table, score_with_phrases
from reland_jax.models.sharded_ease import rows_of_device, score_by_columns, sharded_table
from reland_jax.train.placement import replicated
from reland_jax.types import Ragged, RelandError, Splits

_log = logging.getLogger(__name__)

COPIES, SHARDED_COPIES = 5, 3
"""Arrays of the size of the matrix that are alive at a time, at most, while it is inverted: on one device,
and, each device with its share, where the matrix is shared out."""


class ClosedForm(NamedTuple):
    """A recommender that is solved for, with its data.

    Attributes:
        model: what is solved.
        shapes: of the parameters.
        targets: training interactions.
        equations: () -> the normal equations; refused where there is no memory to solve them.
        compile: readies the solution of these equations; of equal shapes it is compiled once in a process.
        solve: (normal equations, training seed) -> the parameters.
        vectors: (params, "valid" or "test") -> users and items for ranking that part of the split.
    """

    model: Linear
    shapes: Any
    targets: int
    equations: Callable[[], Any]
    compile: Callable[[Any], Any]
    solve: Callable[[Any, int], Any]
    vectors: Callable[[Any, str], Vectors]


def closed_form(model: Ease, tables: AnyTables, splits: Splits, lists: dict[str, Lists]) -> ClosedForm:
    """The exact model with its data.

    Args:
        model: which model.
        tables: see `linear_task`.
        splits: training part.
        lists: "valid" and "test" -> the users as lists of what may be read before that part of the split.
    """
    rationales = tables.rationale if model.reads_columns else None
    rows = splits.num_items + 1 + (0 if rationales is None else len(rationales))
    columns = rows_of_device(splits.num_items)[0] * axis_size(MODEL) if _sharded() else splits.num_items + 1
    shape = jax.ShapeDtypeStruct((rows, columns), np.float32, sharding=_columns() if _sharded() else None)
    return ClosedForm(
        model, shapes_with_phrases(model, tables, {"weights": shape}), len(splits.train.items),
        partial(_count, model, tables, splits.train),
        partial(_program, model, tables), partial(_solve, model, tables),
        partial(_vectors, model, lists),
    )  # fmt: skip


def check_users(train: Ragged) -> None:
    """Raises `RelandError` where a user has no training items: a linear model of items has no score then."""
    if empty := int((train.lengths() == 0).sum()):
        raise RelandError(
            f"config.model.backbone: {empty:,} users have no training items, and a linear model of items "
            "can say nothing of them; choose another backbone, or leave these users out of the data"
        )


def check_memory(num_items: int, extra: int, config: EaseConfig) -> None:
    """Tells how much memory the solution takes, and refuses what does not fit.

    Args:
        num_items: I.
        extra: predictors beside the items.
        config: for the precision.

    Raises:
        RelandError: there is not so much memory.
    """
    size, devices = np.dtype(config.precision).itemsize, axis_size(MODEL)
    single = "config.ease.precision=float32, " if size == 8 else ""
    advice = f"take config.ease.form=sparse, {single}more devices (config.mesh.model)"
    advice += ", or fewer items (data.min_interactions)"
    if not _sharded():
        shown = f"invert {num_items + extra:,} x {num_items + extra:,} in {config.precision}"
        refuse_what_does_not_fit(shown, COPIES * size * (num_items + extra) ** 2, advice)
        return
    rows = rows_of_device(num_items)[0]
    shown = f"invert {num_items:,} x {num_items:,} in {config.precision}, {rows:,} rows on each of {devices} "
    refuse_what_does_not_fit(shown + "devices", SHARDED_COPIES * size * rows**2 * devices, advice)


def _sharded() -> bool:
    """Whether the matrix of items by items is shared out."""
    return axis_size(MODEL) > 1


def _columns() -> NamedSharding:
    """Of a table with a column for each item."""
    return NamedSharding(jax.sharding.get_mesh(), PartitionSpec(None, MODEL))


def refuse_what_does_not_fit(what: str, needed: int, advice: str) -> None:
    """Tells how much memory a solution takes, and refuses it where there is less.

    Args:
        what: that is done, after "to".
        needed: bytes, at most, on each device.
        advice: what to do instead.

    Raises:
        RelandError: there is not so much memory.
    """
    there = _free_memory()
    _log.info("linear model, to %s: at most %.3g GB of memory", what, needed / 1e9)
    if there is not None and needed > there:
        raise RelandError(
            f"the linear model has to {what}, which takes {needed / 1e9:.3g} GB, and "
            f"{there / 1e9:.3g} GB are free: {advice}"
        )


def _free_memory() -> int | None:
    """Bytes that are free on the first device; None where nobody says."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    told = Path("/proc/meminfo")
    if device.platform != "cpu" or not told.is_file():
        return None
    fields = dict(line.split(":", 1) for line in told.read_text(encoding="ascii").splitlines())
    # The devices that a process makes of a CPU share its memory.
    return int(fields["MemAvailable"].split()[0]) * 1024 // jax.local_device_count()


# --- what is solved ------------------------------------------------------------------------------


def _count(model: Ease, tables: AnyTables, train: Ragged) -> Gram:
    rationales = tables.rationale if model.reads_columns else None
    check_memory(model.num_items, 0 if rationales is None else rationales.shape[1], model.config)
    return normal_equations(model, tables, train, model.num_items)


def normal_equations(model: Ease, tables: AnyTables, train: Ragged, num_items: int) -> Gram:
    """Counts who had what together, by training interactions only.

    Args:
        model: variant and settings.
        tables: of the host.
        train: training items of every user; what somebody had more than once counts once.
        num_items: I.

    Returns:
        Arrays of the host, of the precision of the settings.
    """
    dtype = np.dtype(model.config.precision)
    had = who_had_what(train, num_items, dtype)
    both = (had.T @ had).tocoo()
    gram = Gram(both.row.astype(np.int32), both.col.astype(np.int32), both.data, item_vectors(model, tables))
    if model.reads_columns:
        gram = gram._replace(**rationale_sums(model, tables, had))
    return gram


def who_had_what(history: Ragged, num_items: int, dtype: np.dtype | type = np.int8) -> sparse.csr_array:
    """X, ``[U, I]``: 1 where a user had an item."""
    # Repeats are summed in place: the history keeps its own arrays.
    had = sparse.csr_array(
        (np.ones(len(history.items), dtype), history.items - 1, history.indptr.copy()),
        (history.num_rows, num_items),
    )
    had.sum_duplicates()
    had.data[:] = 1
    return had


def item_vectors(model: Ease, tables: AnyTables) -> np.ndarray | None:
    """Item texts of the length that the settings give them, ``<float>[I, T]``; None where none are read."""
    dtype, weight = np.dtype(model.config.precision), model.config.text_weight
    if not (model.texts and weight):
        return None
    return unit_rows(np.asarray(tables.item_text)[1:].astype(dtype)) * np.sqrt(weight, dtype=dtype)


def rationale_sums(model: Ease, tables: AnyTables, had: sparse.csr_array) -> dict[str, np.ndarray]:
    """The fields `crossed` and `rationales` of a `Gram`."""
    k, texts = model.rationales, rationale_vectors(model, tables).astype(had.dtype)
    seeds = np.asarray(tables.seed)[:, :k]
    share = np.full(seeds.size, 1 / k, had.dtype)
    given = sparse.csr_array(
        (share, seeds.reshape(-1), np.arange(len(seeds) + 1) * k), (len(seeds), len(texts))
    )
    return {"crossed": (had.T @ given) @ texts, "rationales": texts.T @ ((given.T @ given) @ texts)}


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows ``<float>[n, T]`` of length 1; those of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def rationale_vectors(model: Ease, tables: AnyTables) -> np.ndarray:
    """Rationales ``<float32>[S, T]`` of the length that the settings give them."""
    weight = np.float32(model.config.rationale_weight**0.5)
    return unit_rows(np.asarray(tables.rationale, np.float32)) * weight


def with_phrases(model: Ease, tables: AnyTables, params: Any) -> Any:
    """The parameters, and the table of what each rationale adds where the model reads phrases."""
    if not model.reads_phrases:
        return params
    phrases, texts = np.asarray(tables.rationale, np.float32), np.asarray(tables.item_text, np.float32)
    seed = np.asarray(tables.seed)[:, : model.rationales].astype(np.int32)
    arguments = jax.tree.map(device_put_rows, (phrases, texts, seed, np.float32(model.config.phrase_weight)))
    return params | {"phrases": phrase_table(*arguments)}


def shapes_with_phrases(model: Ease, tables: AnyTables, shapes: dict[str, Any]) -> dict[str, Any]:
    """The shapes of `with_phrases`."""
    if not model.reads_phrases:
        return shapes
    size = len(np.asarray(tables.rationale)) + 1, model.num_items + 1
    return shapes | {"phrases": jax.ShapeDtypeStruct(size, np.float32)}


def scored_with_phrases(params: Any, base: jax.tree_util.Partial) -> jax.tree_util.Partial:
    """The score that reads the table of `with_phrases`, where there is one."""
    if "phrases" not in params:
        return base
    return jax.tree_util.Partial(score_with_phrases, base.args[0], base, params["phrases"])


@lru_cache(maxsize=4)
def _compiled(shapes: Any, num_items: int, where: NamedSharding | None, sharded: bool) -> jax.stages.Compiled:
    leaves, structure = shapes
    placed = partial(jax.ShapeDtypeStruct, sharding=where)
    arguments = jax.tree.unflatten(structure, [placed(*leaf) for leaf in leaves])
    with jax.enable_x64(True):
        return (sharded_table if sharded else _whole_table).lower(*arguments, num_items).compile()


def _program(model: Ease, tables: AnyTables, gram: Gram) -> jax.stages.Compiled:
    leaves, structure = jax.tree.flatten(_arguments(model, tables, gram))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves), structure
    return _compiled(shapes, model.num_items, replicated(), _sharded())


def _arguments(model: Ease, tables: AnyTables, gram: Gram) -> tuple[Gram, np.ndarray, np.ndarray | None]:
    regularisation = np.asarray(model.config.regularisation, gram.users.dtype)
    return gram, regularisation, rationale_vectors(model, tables) if model.reads_columns else None


def _solve(model: Ease, tables: AnyTables, gram: Gram, seed: int) -> Any:
    del seed
    program, config = _program(model, tables, gram), model.config
    with jax.enable_x64(True):
        table = program(*jax.tree.map(device_put_rows, _arguments(model, tables, gram)))
    if not bool(jnp.isfinite(table).all()):
        raise RelandError(
            f"config.ease.regularisation={config.regularisation}: the linear model has no finite solution in "
            f"{config.precision}; raise it"
        )
    return with_phrases(model, tables, {"weights": table})


@partial(jax.jit, static_argnames="num_items")
def _whole_table(
    gram: Gram, regularisation: jax.Array, rationales: jax.Array | None, num_items: int
) -> jax.Array:
    """`_table` of the solution; whole on every device of a mesh."""
    return _table(item_weights(gram, regularisation, num_items), rationales, num_items)


def _table(weights: jax.Array, rationales: jax.Array | None, num_items: int) -> jax.Array:
    """What `score` reads, ``<float32>[1 + I + S, I + 1]``: padding, items, and a row for each rationale."""
    rows = [jnp.pad(weights[:num_items].astype(jnp.float32), ((1, 0), (1, 0)))]
    if rationales is not None:
        found = jnp.matmul(
            rationales, weights[num_items:].astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
        )
        rows.append(jnp.pad(found, ((0, 0), (1, 0))))
    return constrain(jnp.concatenate(rows).astype(jnp.float32))


# --- what is ranked ------------------------------------------------------------------------------


class Lists(NamedTuple):
    """Users as lists of rows of the table.

    Attributes:
        users: ``<float32>[U, E]``, rationales first, then the history, newest first; 0 where unused.
        weight: ``<float32>[E]``.
    """

    users: jax.Array
    weight: jax.Array


def lists_of(model: Ease, tables: AnyTables, history: Ragged, max_length: int) -> Lists:
    """Users as lists of what may be read of them."""
    newest = newest_first(history, max_length if model.recency else None)
    weight = age_weights(model.config, model.recency, model.rationales, newest.shape[1])
    if model.rationales:
        seeds = np.asarray(tables.seed)[:, : model.rationales] + model.num_items + 1
        newest = np.concatenate([seeds, newest], axis=1)
    return Lists(device_put_rows(newest.astype(np.float32), MODEL), device_put_rows(weight))


def newest_first(history: Ragged, longest: int | None) -> np.ndarray:
    """Every user's items ``<int32>[U, L]``, newest first, 0 where unused.

    An item that a user had more than once stands at its newest place alone; the others keep their ages.

    Args:
        history: oldest first.
        longest: bound on L; None takes all.
    """
    lengths = history.lengths()
    owner = np.repeat(np.arange(history.num_rows), lengths)
    age = np.repeat(history.indptr[1:], lengths) - 1 - np.arange(len(history.items))
    width = int(lengths.max(initial=0))
    order = np.lexsort((age, history.items, owner))
    again = np.zeros(len(order), bool)
    again[order[1:]] = (np.diff(owner[order]) == 0) & (np.diff(history.items[order]) == 0)
    kept = ~again & (age < (width if longest is None else longest))
    out = np.zeros((history.num_rows, max(min(width, longest or width), 1)), np.int32)
    out[owner[kept], age[kept]] = history.items[kept]
    return out


def _vectors(model: Ease, lists: dict[str, Lists], params: Any, part: str) -> Vectors:
    if _sharded():
        base = jax.tree_util.Partial(score_by_columns, lists[part].weight)
        return Vectors(
            lists[part].users, _columns_of_items(params["weights"]), scored_with_phrases(params, base)
        )
    base = jax.tree_util.Partial(score, lists[part].weight, params["weights"])
    return Vectors(lists[part].users, numbers_of_items(model.num_items), scored_with_phrases(params, base))


@jax.jit
def _columns_of_items(table: jax.Array) -> jax.Array:
    """The column of each item and its number, ``<float32>[columns, R + 1]``."""
    number = jnp.arange(table.shape[1], dtype=jnp.float32)[:, None]
    return constrain(jnp.concatenate([table.T, number], axis=1), MODEL)


def numbers_of_items(num_items: int) -> jax.Array:
    """``<float32>[I + 1, 1]``, in the place of vectors of items."""
    return device_put_rows(np.arange(num_items + 1, dtype=np.float32)[:, None], MODEL)
