"""The pure step of a ranker, its scores, and a start from a ranker without texts."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from reland_jax.mesh import DATA, MODEL, constrain
from reland_jax.models import applied
from reland_jax.rankers.embedding import OUTSIDE, init_table, look_up
from reland_jax.rankers.ranker import Ranker, table_index
from reland_jax.rankers.row_optimizers import RowOptimizer, RowState
from reland_jax.rankers.scenarios.star import MOVING
from reland_jax.rankers.schema import Batch
from reland_jax.rankers.scores import (
    Scores,
    excess,
    funnel_loss,
    reached_labels,
    row_weights,
    scores,
    weighted_mean,
)
from reland_jax.rankers.text_fields import PROJECTION, Texts
from reland_jax.types import RelandError


class Parameters(NamedTuple):
    """What a ranker has learned.

    Attributes:
        table: ``<float32>[R, k]``, the embeddings.
        dense: all other parameters, as Flax has them; also moving statistics (`MOVING`), where it has some.
    """

    table: jax.Array
    dense: Any


class RankerState(NamedTuple):
    """Everything that changes from step to step.

    Attributes:
        params: what is learned.
        rows: state of the table's optimiser.
        dense: state of the optimiser of all other parameters.
    """

    params: Parameters
    rows: RowState
    dense: Any


_Learned = TypeVar("_Learned", Parameters, RankerState)


def init_params(ranker: Ranker, key: jax.Array, batch: Batch, texts: Texts) -> Parameters:
    """Fresh parameters.

    Args:
        ranker: the module.
        key: of what is drawn.
        batch: any batch, for its shapes.
        texts: what the arm reads.
    """
    for_table, for_dense = jax.random.split(key)
    table = init_table(
        for_table, ranker.schema, ranker.width, ranker.config.embedding_scale, ranker.seed_users
    )
    looked_up = look_up(table, table_index(ranker, batch, texts))
    return Parameters(table, ranker.init(for_dense, looked_up, batch, texts))


def parameter_counts(params: Parameters) -> dict[str, int]:
    """Numbers that are learned, in the table and elsewhere, so that arms can state theirs."""
    dense = sum(int(leaf.size) for leaf in jax.tree.leaves(params.dense["params"]))
    return {"table": int(params.table.size), "dense": dense}


def init_state(params: Parameters, rows: RowOptimizer, dense: optax.GradientTransformation) -> RankerState:
    """The state before the first step."""
    return RankerState(params, rows.init(params.table), dense.init(params.dense))


def loss_of(
    ranker: Ranker, dense: Any, looked_up: jax.Array, batch: Batch, texts: Texts, key: jax.Array | None = None
) -> jax.Array:
    """What training makes small: log losses of the labels and penalties.

    Args:
        ranker: the module.
        dense: its parameters without the table.
        looked_up: ``<float32>[B, n, k]``, the rows of the table that the batch reads.
        batch: with labels.
        texts: what the arm reads.
        key: of dropout; None leaves it out.

    Returns:
        ``<float32>[]``.
    """
    return _loss_and_moved(ranker, dense, looked_up, batch, texts, key)[0]


def _loss_and_moved(
    ranker: Ranker, dense: Any, looked_up: jax.Array, batch: Batch, texts: Texts, key: jax.Array | None
) -> tuple[jax.Array, dict[str, Any]]:
    """`loss_of`, and the moving statistics after the batch, if there are any."""
    config, rngs = ranker.config, None if key is None else {"dropout": key}
    options: dict[str, Any] = {"rngs": rngs, "mutable": [MOVING]}
    found: Any = applied(ranker, dense, looked_up, batch, texts, key is not None, **options)
    logits, moved = found
    weight = row_weights(batch, config.trained_on)
    loss = funnel_loss(logits, reached_labels(batch, config.labels), weight)
    if config.task == "aitm" and config.calibration:
        loss += config.calibration * excess(logits, weight)
    if config.embedding_l2:
        loss += config.embedding_l2 * weighted_mean(jnp.sum(looked_up**2, (1, 2)), weight)
    return loss + config.text_l2 * _squared_projections(dense), moved


def _squared_projections(dense: Any) -> jax.Array:
    leaves = jax.tree_util.tree_leaves_with_path(dense)
    squares = [jnp.sum(leaf**2) for path, leaf in leaves if PROJECTION in _names(path)]
    return sum(squares, jnp.zeros(()))


def _names(path: Any) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


def train_step(
    ranker: Ranker,
    rows: RowOptimizer,
    dense: optax.GradientTransformation,
    state: RankerState,
    batch: Batch,
    texts: Texts,
    key: jax.Array,
) -> tuple[RankerState, jax.Array]:
    """One step. Of the table it reads and writes the rows of the batch alone.

    On a mesh the rows of the table and of its moments are sharded over the axis `model`, the batch over the
    axis `data`.

    Args:
        ranker: the module.
        rows: optimiser of the table.
        dense: optimiser of all other parameters.
        state: before the step.
        batch: with labels.
        texts: what the arm reads.
        key: of dropout, a function of the training seed and the step.

    Returns:
        The state after the step, and the loss before it, ``<float32>[]``.
    """
    batch = {name: constrain(jnp.asarray(column), DATA) for name, column in batch.items()}
    table, others = state.params
    index = table_index(ranker, batch, texts)
    gradient = jax.value_and_grad(_loss_and_moved, argnums=(1, 2), has_aux=True)
    (loss, moved), (of_dense, of_rows) = gradient(ranker, others, look_up(table, index), batch, texts, key)
    # Rows that do not count have no gradient; they must not make moments decay either.
    counts = row_weights(batch, ranker.config.trained_on) > 0
    index = jnp.where(counts[:, None], index, OUTSIDE)
    table, row_state = rows.update(table, state.rows, index.ravel(), of_rows.reshape(index.size, -1))
    updates, dense_state = dense.update(of_dense, state.dense, others)
    table, row_state = jax.tree.map(
        lambda leaf: constrain(leaf, MODEL) if leaf.ndim else leaf, (table, row_state)
    )
    # Moving statistics have no gradient: they are what the batch made of them.
    params = Parameters(table, {**optax.apply_updates(others, updates), **moved})
    return RankerState(params, row_state, dense_state), loss


def predict(ranker: Ranker, params: Parameters, batch: Batch, texts: Texts) -> Scores:
    """Probabilities of the labels.

    Args:
        ranker: the module.
        params: what it has learned.
        batch: labels are not read.
        texts: what the arm reads.
    """
    looked_up = look_up(params.table, table_index(ranker, batch, texts))
    return scores(applied(ranker, params.dense, looked_up, batch, texts))


def warm_started(params: _Learned, earlier: _Learned) -> _Learned:
    """Fresh parameters, or a whole state, of an arm with text fields, begun at a trained ranker without them.

    Text fields are the last, and begin at zero. So the ranker scores as the earlier one did if the first part
    of every array along every axis is that of the earlier one.

    Args:
        params: fresh, of the arm with texts.
        earlier: of the same network, task, sizes and schema.

    Raises:
        RelandError: the earlier one is another kind of ranker.
    """
    found = dict(_leaves(earlier))
    own = dict(_leaves(params))
    for name, leaf in found.items():
        if name not in own or own[name].ndim != leaf.ndim or np.any(np.less(own[name].shape, leaf.shape)):
            has = f"{list(own[name].shape)}" if name in own else "none"
            raise RelandError(
                f"cannot begin at the earlier ranker: its parameter {name} is {list(leaf.shape)}, and here "
                f"it is {has}; network, task, sizes and schema must be equal"
            )

    def begun(path: Any, leaf: jax.Array) -> jax.Array:
        old = found.get(_name(path))
        return leaf if old is None else leaf.at[tuple(map(slice, old.shape))].set(old)

    return jax.tree_util.tree_map_with_path(begun, params)


def _name(path: Any) -> str:
    return "/".join(_names(path))


def _leaves(params: _Learned) -> list[tuple[str, jax.Array]]:
    return [(_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
