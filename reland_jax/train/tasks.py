"""The interface between the training loop and a recommender with its data: batches, loss and vectors.

Everything an epoch reads is on the device from the start. A *task* bundles those arrays with pure functions
over them; the loop does not depend on the family of recommender it trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import TrainConfig
from reland_jax.data.packing import (
    Layout,
    Windows,
    last_windows,
    pack,
    plan_layout,
    prefix_windows,
    shifted_windows,
    shuffle_order,
)
from reland_jax.data.views import (
    InputsByTarget,
    RowPlan,
    draw_same_target,
    inputs_by_target,
    pack_rows,
    plan_rows,
)
from reland_jax.device import sizes
from reland_jax.eval import Vectors
from reland_jax.mesh import DATA, MODEL, constrain, pad_to_axis
from reland_jax.models import (
    AnyTables,
    CollaborativeRecommender,
    Linear,
    Recommender,
    SequenceBatch,
    SequentialRecommender,
    Tables,
    Views,
    applied,
)
from reland_jax.train.closed_form import ClosedForm
from reland_jax.train.linear import linear_task
from reland_jax.train.pairs import CatalogueBatcher, PairBatcher, PairOrder, pair_data, with_profiles
from reland_jax.train.placement import distribute
from reland_jax.types import Ragged, RelandError, Splits


class Task(NamedTuple):
    """A recommender with its data.

    Tasks with the same shapes and settings have equal `model`, `epoch_order` and `batch`, the keys of the
    cache of compiled programs: training with another seed compiles nothing.

    Attributes:
        model: the linen module.
        tables: frozen arrays the model reads.
        data: device arrays the batches are cut from.
        steps: batches per epoch.
        targets: training targets per epoch.
        epoch_order: (data, key) -> the shuffle of one epoch; hashable.
        batch: (data, order, step in 0 .. steps-1, key) -> one batch; hashable.
        vectors: (params, "valid" or "test") -> users and items for ranking that part of the split.
    """

    model: Recommender
    tables: Tables[jax.Array]
    data: Any
    steps: int
    targets: int
    epoch_order: Callable[[Any, jax.Array], Any]
    batch: Callable[[Any, Any, jax.Array, jax.Array], Any]
    vectors: Callable[[Any, str], Vectors]


def create_task(
    model: Recommender | Linear, tables: AnyTables, splits: Splits, config: TrainConfig, max_length: int,
    history: str = "train",
) -> Task | ClosedForm:  # fmt: skip
    """The task for a recommender's family and the config's objective, its arrays on the devices.

    Args:
        model: the linen module, or what is solved for.
        tables: frozen arrays, of the host or on devices.
        splits: training part and histories.
        config: how to optimise.
        max_length: L, for sequential backbones.
        history: what linear models of sets read for the test part, see `EvalConfig`.

    Raises:
        RelandError: objective and family do not fit, or there is nothing to train on.
    """
    if isinstance(model, Linear):
        return linear_task(model, tables, splits, max_length, history)
    sequential = isinstance(model, SequentialRecommender)
    if sequential == (config.objective in ("bpr", "softmax")):
        fitting = "prefix or shifted" if sequential else "bpr or softmax"
        raise RelandError(
            f"config.train.objective={config.objective!r}: this backbone is trained with {fitting}"
        )
    if model.reads_kernel and not sequential:
        tables = with_profiles(tables, splits.train)
    placed: Tables[jax.Array] = distribute(tables)
    if isinstance(model, SequentialRecommender):
        return _sequence_task(model, placed, splits, config, max_length)
    assert isinstance(model, CollaborativeRecommender)
    return _pair_task(model, placed, splits, config)


@dataclasses.dataclass(frozen=True)
class Score:
    """A recommender's score as a hashable value, so that equal recommenders share compiled programs."""

    model: Recommender

    def __call__(self, params: Any, users: jax.Array, items: jax.Array) -> jax.Array:
        return applied(self.model, params, users, items, method="score")


def _vectors(
    model: Recommender,
    sides: Callable[[Any, Tables[jax.Array], str], tuple[jax.Array, jax.Array]],
    tables: Tables[jax.Array],
) -> Callable[[Any, str], Vectors]:
    score = Score(model)
    return lambda params, part: Vectors(*sides(params, tables, part), jax.tree_util.Partial(score, params))


def _whole_dispatches(targets: int, config: TrainConfig) -> int:
    """Batches per epoch: enough for the batch size, and a whole number of equal dispatches."""
    if not targets:
        raise RelandError("there are no training targets: no user has two training interactions")
    batches = -(-targets // config.batch_size)
    dispatches = -(-batches // config.steps_per_dispatch)
    return dispatches * -(-batches // dispatches)


# --- sequences -----------------------------------------------------------------------------------


class SequenceData(NamedTuple):
    """Packed windows on the device; shapes as in `Windows` and `Layout`.

    Attributes:
        windows: all windows.
        place: ``<int32>[N_b, N_j]``.
        length: ``<int32>[N_b, N_j]``.
        order: ``<int32>[N_b, N_j]``.
        target_place: ``<int32>[N_b, B]``, tokens that predict; ``R * W`` where unused.
        inputs: of all targets, for contrastive learning; None without.
    """

    windows: Windows[jax.Array]
    place: jax.Array
    length: jax.Array
    order: jax.Array
    target_place: jax.Array
    inputs: InputsByTarget[jax.Array] | None = None


def _evenly(layout: Layout) -> Layout:
    """The layout with rows and slots padded to multiples of the mesh's devices."""
    rows, slots = pad_to_axis(layout.rows, DATA), layout.place.shape[1]
    beyond = layout.place == layout.rows * layout.width
    place = np.where(beyond, rows * layout.width, layout.place).astype(np.int32)
    wider = ((0, 0), (0, pad_to_axis(slots, DATA) - slots))
    return layout._replace(
        place=np.pad(place, wider, constant_values=rows * layout.width),
        length=np.pad(layout.length, wider),
        order=np.pad(layout.order, wider, mode="edge"),
        rows=rows,
    )


def _sequence_data(
    windows: Windows[np.ndarray],
    layout: Layout,
    every_token: bool,
    inputs: InputsByTarget[np.ndarray] | None = None,
) -> SequenceData:
    tokens = layout.rows * layout.width
    if every_token:
        offset = np.arange(layout.width)
        place = layout.place[:, :, None] + offset
        place = np.where(offset < layout.length[:, :, None], place, tokens).reshape(len(place), -1)
        used = int((place < tokens).sum(1).max())
        place = np.sort(place, axis=1)[:, :used]
    else:
        place = np.where(layout.length > 0, layout.place + layout.length - 1, tokens)
    short = pad_to_axis(place.shape[1], DATA) - place.shape[1]
    place = np.pad(place, ((0, 0), (0, short)), constant_values=tokens)
    arrays = (windows, layout.place, layout.length, layout.order, place.astype(np.int32), inputs)
    return SequenceData(*distribute(arrays))


@dataclasses.dataclass(frozen=True)
class _SequenceBatcher:
    """Cuts batches of packed windows.

    Attributes:
        shape: rows R and width W of a batch.
    """

    shape: tuple[int, int]

    def __call__(
        self, data: SequenceData, order: tuple[jax.Array, jax.Array], step: jax.Array, key: jax.Array
    ) -> SequenceBatch:
        del key
        index, chosen = _chosen(data, order, step)
        packed = pack(data.windows, data.place[index], data.length[index], chosen, *self.shape)
        place = data.target_place[index]
        used = place < self.shape[0] * self.shape[1]
        place = jnp.where(used, place, 0)
        window, position = packed.window.reshape(-1)[place], packed.position.reshape(-1)[place]
        target = data.windows.stream[data.windows.start[window] + position + 1]
        return SequenceBatch(
            packed.items, packed.position, packed.segment, place,
            data.windows.user[window], jnp.where(used, target, 1), used.astype(jnp.float32),
        )  # fmt: skip


def _chosen(
    data: SequenceData, order: tuple[jax.Array, jax.Array], step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which batch of the layout a step takes, and the window in each of its slots."""
    shuffled, batches = order
    index = batches[step]
    return index, shuffled[jnp.minimum(data.order[index], len(shuffled) - 1)]


@dataclasses.dataclass(frozen=True)
class _ViewedBatcher:
    """Cuts batches of data with `inputs`: one input of every window, and another one with the same target.

    If a window has many targets, one is drawn, so that over the epochs all of them take part.

    Attributes:
        whole: cuts the batch itself.
        every_token: whether a window has a target at every token.
        row_plan: the layout of the other inputs.
    """

    whole: _SequenceBatcher
    every_token: bool
    row_plan: RowPlan

    def __call__(
        self, data: SequenceData, order: tuple[jax.Array, jax.Array], step: jax.Array, key: jax.Array
    ) -> SequenceBatch:
        index, window = _chosen(data, order, step)
        begin, length, windows = data.place[index], data.length[index], data.windows
        target_key, view_key = jax.random.split(key)
        drawn = jax.random.randint(target_key, length.shape, 0, jnp.maximum(length, 1))
        position = drawn if self.every_token else jnp.maximum(length - 1, 0)
        newest = windows.start[window] + position
        target = windows.stream[newest + 1]
        assert data.inputs is not None
        other = draw_same_target(data.inputs, target, newest, view_key)
        first, last = data.inputs.first[other], data.inputs.last[other]
        rows = pad_to_axis(-(-len(length) // self.row_plan.share), DATA)
        last = jnp.where(length > 0, last, first - 1)
        packed, newest = pack_rows(windows.stream, first, last, self.row_plan, rows)
        in_batch = self.whole.shape[0] * self.whole.shape[1] - 1
        views = Views(
            jnp.minimum(begin + position, in_batch), target, (length > 0).astype(jnp.float32),
            packed.items, packed.position, packed.segment, newest,
        )  # fmt: skip
        return self.whole(data, order, step, key)._replace(views=views)


def _shuffled(data: SequenceData, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    windows_key, batches_key = jax.random.split(key)
    return (
        shuffle_order(windows_key, data.windows.length),
        jax.random.permutation(batches_key, len(data.place)),
    )


def _sequence_task(
    model: SequentialRecommender,
    tables: Tables[jax.Array],
    splits: Splits,
    config: TrainConfig,
    max_length: int,
) -> Task:
    every_token = config.objective == "shifted"
    if every_token:
        windows = shifted_windows(splits.train, max_length)
        targets = int(windows.length.sum())
    else:
        windows = prefix_windows(splits.train, max_length)
        targets = len(windows.length)
    steps = _whole_dispatches(targets, config)
    layout = _evenly(plan_layout(windows.length, steps, max_length))
    histories = {"valid": splits.train, "test": splits.train.joined(splits.valid)}
    encoders = {part: history_encoder(model, history, max_length) for part, history in histories.items()}
    whole, inputs = _SequenceBatcher((layout.rows, layout.width)), None
    batch: _SequenceBatcher | _ViewedBatcher = whole
    if model.contrastive:
        inputs = inputs_by_target(windows, splits.num_items, every_token)
        row_plan = plan_rows(inputs, layout.place.shape[1], min(config.view_length, max_length))
        batch = _ViewedBatcher(whole, every_token, row_plan)
    return Task(
        model=model,
        tables=tables,
        data=_sequence_data(windows, layout, every_token, inputs),
        steps=steps,
        targets=targets,
        epoch_order=_shuffled,
        batch=batch,
        vectors=_vectors(model, lambda params, tables, part: encoders[part](params, tables), tables),
    )


def _encoded_at_once(model: SequentialRecommender) -> int:
    """Number of sequences encoded at a time, outside of training."""
    return sizes().encoded_by_attention if model.attention else sizes().encoded_sequences


def history_encoder(
    model: SequentialRecommender, history: Ragged, max_length: int
) -> Callable[[Any, Tables[jax.Array]], tuple[jax.Array, jax.Array]]:
    """A jitted function that encodes every user's most recent items; users without any get zeros."""
    windows = last_windows(history, max_length)
    batches = -(-len(windows.length) // _encoded_at_once(model))
    layout = _evenly(plan_layout(windows.length, batches, max_length))
    data = _sequence_data(windows, layout, every_token=False)
    batcher = _SequenceBatcher((layout.rows, layout.width))
    return lambda params, tables: _encode(model, batcher, history.num_rows, params, tables, data)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _encode(
    model: SequentialRecommender,
    batcher: _SequenceBatcher,
    num_users: int,
    params: Any,
    tables: Tables[jax.Array],
    data: SequenceData,
) -> tuple[jax.Array, jax.Array]:
    items = applied(model, params, tables, method="item_vectors")
    batches = jnp.arange(len(data.place))
    order = (jnp.arange(len(data.windows.length)), batches)

    def one(users: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
        batch = batcher(data, order, step, step)
        row = jnp.where(batch.weight > 0, batch.user, len(users))
        vectors = applied(model, params, tables, batch, method="user_vectors")
        return constrain(users.at[row].set(vectors, mode="drop"), MODEL), None

    width = model.user_columns(items.shape[1])
    users = constrain(jnp.zeros((pad_to_axis(num_users), width), jnp.float32), MODEL)
    users, _ = jax.lax.scan(one, users, batches)
    return users, constrain(items, MODEL)


# --- pairs ---------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _sides(
    model: CollaborativeRecommender, params: Any, tables: Tables[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    users = applied(model, params, tables, method="user_vectors")
    items = applied(model, params, tables, method="item_vectors")
    return constrain(users, MODEL), constrain(items, MODEL)


def _pair_task(
    model: CollaborativeRecommender, tables: Tables[jax.Array], splits: Splits, config: TrainConfig
) -> Task:
    targets = len(splits.train.items)
    steps = _whole_dispatches(targets, config)
    pairs = pair_data(splits.train)
    longest = int(jnp.diff(pairs.indptr).max())
    batch: PairBatcher | CatalogueBatcher = PairBatcher(targets, config.negatives, splits.num_items, longest)
    if config.objective == "softmax":
        batch = CatalogueBatcher(targets, config.candidates, splits.num_items)
    return Task(
        model, tables, pairs, steps, targets,
        PairOrder(targets, steps, -(-targets // steps)), batch,
        _vectors(model, lambda params, tables, part: _sides(model, params, tables), tables),
    )  # fmt: skip
