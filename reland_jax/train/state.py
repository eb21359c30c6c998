"""The state of a training run, and the pure step over it."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from reland_jax.config import TrainConfig
from reland_jax.device import random_key, sizes
from reland_jax.mesh import constrain
from reland_jax.models import Recommender, applied
from reland_jax.train.closed_form import ClosedForm
from reland_jax.train.placement import constrained, replicated, shardings
from reland_jax.train.tasks import Task


class TrainState(NamedTuple):
    """Everything that changes from step to step.

    Training seeds that are trained together have one state, with an axis of length S in front of every array.

    Attributes:
        params: the model's parameters.
        opt_state: the optimiser's.
        step: ``<int32>[]``, steps taken.
        seed: ``<int32>[]``, the training seed. All randomness is folded from it, the step and the epoch, so
            that one compiled program serves all seeds.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    seed: jax.Array


class Purpose(enum.IntEnum):
    """The purposes of random numbers; each has streams of its own.

    A new purpose folds its number into the key of one of these: their count is part of every key.
    """

    PARAMETERS = 0
    STEPS = 1
    SHUFFLES = 2


def purpose_key(seed: jax.Array | int, purpose: Purpose) -> jax.Array:
    """The PRNG key of a training seed for a purpose; no two seeds or purposes share one.

    The key's own seed is ``3 seed + purpose``. Training seed 0 thereby keeps the streams that it had when
    the kept results were made (with ``seed + purpose``, where seeds 0 and 1 shared two of three).

    Args:
        seed: ``<int32>[]`` in [0, `config.MAX_SEED`].
        purpose: what the numbers are for.
    """
    return random_key(len(Purpose) * seed + purpose)


SHARED = ("from_id", "from_text", "from_user", "adaptor", "attention", "tower", "text_metric")
"""Parameters that all items or all users share: their projections and adaptors, the attention of the fusion
and of GAT, and NeuMF's tower."""


def create_optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay of matrices (embeddings, kernels) if the config sets it.

    Weights that all items or users share may take smaller steps: each of them moves all rows at once, while
    an embedding moves its own row only.

    Args:
        config: how to optimise.
        steps: steps of an epoch, at least 1.
    """
    if config.projection_learning_rate is None:
        return _adam(_rate(config, config.learning_rate, steps), config.weight_decay)

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(_label, params)

    rates = {"shared": config.projection_learning_rate, "other": config.learning_rate}
    return optax.multi_transform(
        {label: _adam(_rate(config, rate, steps), config.weight_decay) for label, rate in rates.items()},
        labels,
    )


def _rate(config: TrainConfig, rate: float, steps: int) -> optax.ScalarOrSchedule:
    if config.schedule == "constant":
        return rate
    return optax.cosine_decay_schedule(rate, config.max_epochs * steps)


def _adam(learning_rate: optax.ScalarOrSchedule, weight_decay: float) -> optax.GradientTransformation:
    if not weight_decay:
        return optax.adam(learning_rate)

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=matrices)


def _label(path: Any, leaf: Any) -> str:
    del leaf
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return "shared" if set(names) & set(SHARED) else "other"


class Program(NamedTuple):
    """What a compiled training depends on besides shapes and shardings; the same for all seeds.

    Attributes:
        model: the linen module as it is trained.
        epoch_order: see `Task`.
        batch: see `Task`.
        steps: batches per epoch.
        config: how to optimise; settings that no step depends on (the seed, when to stop) have their
            defaults.
    """

    model: Recommender
    epoch_order: Callable[[Any, jax.Array], Any]
    batch: Callable[[Any, Any, jax.Array, jax.Array], Any]
    steps: int
    config: TrainConfig


_NOT_OF_A_STEP = ("seed", "together", "patience", "eval_every", "checkpoint_seconds")


def program_of(task: Task, config: TrainConfig) -> Program:
    """The program of a task, without its arrays."""
    defaults = TrainConfig()
    config = dataclasses.replace(config, **{name: getattr(defaults, name) for name in _NOT_OF_A_STEP})
    return Program(task.model.trained, task.epoch_order, task.batch, task.steps, config)


def init_state(task: Task, config: TrainConfig, seeds: Sequence[int] = ()) -> TrainState:
    """Fresh parameters.

    Args:
        task: see `Task`.
        config: how to optimise.
        seeds: the training seeds; none means `config.seed`. Several make the state of all of them.
    """
    seed = jnp.int32(config.seed) if not seeds else jnp.int32(seeds if len(seeds) > 1 else seeds[0])
    program = program_of(task, config)
    # One after the other: drawing random numbers takes several times the memory of the parameters.
    params = _init_placed(program, task.tables, task.data, seed)
    return TrainState(params, _init_optimizer(program, params, seed), jnp.zeros_like(seed), seed)


@partial(jax.jit, static_argnums=0)
def _init_placed(program: Program, tables: Any, data: Any, seed: jax.Array) -> Any:
    if seed.ndim:
        return jax.vmap(partial(_init, program, tables, data))(seed)
    return constrained(_init(program, tables, data, seed))


@partial(jax.jit, static_argnums=0)
def _init_optimizer(program: Program, params: Any, seed: jax.Array) -> Any:
    optimizer = create_optimizer(program.config, program.steps)
    return jax.vmap(optimizer.init)(params) if seed.ndim else constrained(optimizer.init(params))


@jax.jit
def of_one(tree: Any, index: jax.Array | int) -> Any:
    """The arrays of one of the seeds that are trained together, by its place among them."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def param_shapes(task: Task | ClosedForm, config: TrainConfig) -> Any:
    """Shapes, dtypes and placement of the model's parameters, without computing them."""
    if isinstance(task, ClosedForm):
        where = replicated()
        return jax.tree.map(
            lambda leaf: leaf.update(sharding=leaf.sharding or where) if where else leaf, task.shapes
        )
    shapes = _shapes.eval_shape(program_of(task, config), task.tables, task.data, jnp.int32(config.seed))
    if (placed := shardings(shapes)) is None:
        return shapes
    return jax.tree.map(lambda leaf, where: leaf.update(sharding=where), shapes, placed)


def _init(program: Program, tables: Any, data: Any, seed: jax.Array) -> Any:
    key = purpose_key(seed, Purpose.PARAMETERS)
    order = program.epoch_order(data, key)
    batch = program.batch(data, order, jnp.int32(0), key)
    rngs = {"params": jax.random.fold_in(key, 0), "dropout": jax.random.fold_in(key, 1)}
    return program.model.init(rngs, tables, batch, method="loss")


_shapes = jax.jit(_init, static_argnums=0)
"""Traced once for equal programs and shapes, however often a recommender is read."""


@partial(jax.jit, static_argnums=0)
def shuffled(program: Program, data: Any, seed: jax.Array, epoch: jax.Array | int) -> Any:
    """The shuffle of an epoch, a function of the seed and the epoch alone; whole on every device.

    Args:
        program: see `Program`.
        data: training arrays.
        seed: ``<int32>[]``, or ``<int32>[S]`` for the shuffles of several seeds.
        epoch: from 1.
    """
    if jnp.ndim(seed):
        return jax.vmap(lambda each: shuffled(program, data, each, epoch))(seed)
    key = jax.random.fold_in(purpose_key(seed, Purpose.SHUFFLES), epoch)
    return jax.tree.map(constrain, program.epoch_order(data, key))


def loss_and_gradients(
    program: Program, params: Any, tables: Any, data: Any, order: Any, index: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    """Loss and gradients of one batch.

    Args:
        program: see `Program`.
        params: the model's parameters.
        tables: frozen arrays.
        data: training arrays.
        order: the epoch's shuffle.
        index: ``<int32>[]``, batch of the epoch.
        key: PRNG key of the step.
    """
    negatives, dropout = jax.random.split(key)
    batch = program.batch(data, order, index, negatives)

    def loss(params: Any) -> jax.Array:
        return applied(program.model, params, tables, batch, rngs={"dropout": dropout}, method="loss")

    return jax.value_and_grad(loss)(params)


def step_key(state: TrainState) -> jax.Array:
    """The PRNG key of the next step: a function of the seed and the step alone, so a resumed run agrees."""
    return jax.random.fold_in(purpose_key(state.seed, Purpose.STEPS), state.step)


def make_dispatch(
    task: Task, config: TrainConfig
) -> Callable[[TrainState, Any, Any, Any, jax.Array], tuple[TrainState, jax.Array]]:
    """A function that takes several steps on the device.

    Returns:
        (state, tables, data, order, batches ``<int32>[n]``) -> the new state and the losses
        ``<float32>[n]``, or ``<float32>[S, n]`` for a state of several seeds. To be jitted.
    """
    return partial(_dispatch, program_of(task, config))


def _dispatch(
    program: Program, state: TrainState, tables: Any, data: Any, order: Any, batches: jax.Array
) -> tuple[TrainState, jax.Array]:
    if state.seed.ndim:
        one_seed = partial(_dispatch, program)
        return jax.vmap(one_seed, in_axes=(0, None, None, 0, None))(state, tables, data, order, batches)
    optimizer = create_optimizer(program.config, program.steps)

    def one(state: TrainState, index: jax.Array) -> tuple[TrainState, jax.Array]:
        key = step_key(state)
        loss, gradients = loss_and_gradients(program, state.params, tables, data, order, index, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.seed), loss

    return jax.lax.scan(one, state, batches)


_compiled: collections.OrderedDict[Any, jax.stages.Compiled] = collections.OrderedDict()
_KEPT_PROGRAMS = 16


def compiled_dispatch(
    program: Program, state: TrainState, tables: Any, data: Any, order: Any, batches: np.ndarray
) -> jax.stages.Compiled:
    """`make_dispatch`'s function, compiled; the state is donated.

    The most recently used programs of this process are cached, so that another seed compiles nothing.

    Args:
        program: see `Program`.
        state: like the other arguments, used only for shapes and shardings.
        tables: frozen arrays.
        data: training arrays.
        order: the epoch's shuffle.
        batches: ``<int32>[n]``, the batches of one dispatch.
    """
    arguments = (state, tables, data, order, batches)
    leaves, structure = jax.tree.flatten(arguments)
    places = [(leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)) for leaf in leaves]
    key = (program, sizes(), structure, *places)
    if key not in _compiled:
        outputs = (shardings(state), replicated())
        dispatch = jax.jit(partial(_dispatch, program), donate_argnums=0, out_shardings=outputs)
        _compiled[key] = dispatch.lower(*arguments).compile()
        while len(_compiled) > _KEPT_PROGRAMS:
            _compiled.popitem(last=False)
    _compiled.move_to_end(key)
    return _compiled[key]
