"""The training of a ranker: many steps per dispatch, early stopping, exact resume.

A training is a function of a state: it begins with a fresh one, or goes on from an earlier one with new rows,
such as those of a new day. Which rows a step has, and its key, depend on the seed and the step alone, so that
a training that was killed and goes on from its checkpoint ends with the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from reland_jax.device import let_go_of_programs, random_key
from reland_jax.mesh import of_all_processes, of_first_process
from reland_jax.ranker_settings import RankerTrainConfig
from reland_jax.rankers.from_events import named_columns
from reland_jax.rankers.ranker import Ranker
from reland_jax.rankers.row_optimizers import RowOptimizer, lazy_adam, row_wise_adagrad
from reland_jax.rankers.schema import Batch, FieldSchema, blank_row
from reland_jax.rankers.scores import Scores
from reland_jax.rankers.step import Parameters, RankerState, init_params, init_state, predict, train_step
from reland_jax.rankers.text_fields import Texts
from reland_jax.train import Checkpoints, TrainingCheckpoint
from reland_jax.types import RelandError

_STEPS_AT_A_TIME = 64
"""Steps of a dispatch at the most; the program is the same for fewer."""

_PARAMETERS, _STEPS = 0, 1
"""Purposes of keys."""


class Order(Protocol):
    """What each step has: rows of a log in memory (`events.Batches`), or themselves, read from shards.

    A step is a function of its number alone. Where several processes share a step, each is told its own part.
    """

    @property
    def size(self) -> int:
        """Rows of a step over all processes."""

    @property
    def processes(self) -> int:
        """Processes that share a step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row was there once."""

    def at(self, step: int) -> Any:
        """A named tuple of what `ReadBatch.gather` is given of a step, from 0 on, beside the log.

        Of a log in memory that is rows ``<int64>[B]`` and their weights ``<float32>[B]``.
        """


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """How a batch is read from a log on the devices; part of a compiled program.

    Attributes:
        gather: (log, all that `Order.at` says of a step) -> a batch: `events.gather` of rows and weights in a
            log in memory, `events.shards.as_read` of rows that were read.
        schema: names and kinds of its columns.
    """

    gather: Callable[..., Any]
    schema: FieldSchema

    def __call__(self, log: Any, *of_step: Any) -> Batch:
        """The columns of some rows, by name."""
        return named_columns(self.schema, self.gather(log, *of_step))


class Program(NamedTuple):
    """What a compiled training depends on besides shapes; the same for all seeds and all days.

    Attributes:
        ranker: the module.
        config: how to optimise.
        read: how a batch is read.
    """

    ranker: Ranker
    config: RankerTrainConfig
    read: ReadBatch


class RankerData(NamedTuple):
    """What a ranker reads: arrays, on the host or on a device.

    Attributes:
        log: the encoded log, a tree of arrays; none at all where the order has the rows themselves.
        texts: what the arm reads.
    """

    log: Any
    texts: Texts


class TrainedRanker(NamedTuple):
    """A trained ranker and how it got there.

    Attributes:
        params: of the best validation; without validations the last ones.
        state: after the last step, from which a later training goes on.
        history: an entry per validation: "epoch" (with its fraction), "step", "loss", "seconds", and what the
            validation found.
        best: place in `history` of `params`; the last one without validations.
        rows_per_second: trained on, without validation; the median over `history`.
    """

    params: Parameters
    state: RankerState
    history: list[dict[str, float]]
    best: int
    rows_per_second: float


Validate = Callable[[Parameters], Mapping[str, float]]
"""Parameters -> metrics, among them the one that `RankerTrainConfig.monitor` names."""


def optimizers(program: Program) -> tuple[RowOptimizer, optax.GradientTransformation]:
    """The optimisers of the embeddings and of everything else."""
    config, adapted = program.config, program.ranker.adapted
    make = lazy_adam if config.table_optimizer == "lazy_adam" else row_wise_adagrad
    rows = make(config.table_learning_rate)
    if not config.weight_decay:
        return rows, adapted(optax.adam(config.learning_rate))

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return rows, adapted(optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=matrices))


def fresh_state(
    program: Program, data: RankerData, seed: int, params: Parameters | None = None
) -> RankerState:
    """The state before the first step.

    Args:
        program: what is trained.
        data: for its shapes.
        seed: of the parameters.
        params: to begin at; None for fresh ones.
    """
    if params is None:
        params = _fresh_params(program, data.texts, random_key(2 * seed + _PARAMETERS))
    return init_state(jax.tree.map(jnp.array, params), *optimizers(program))


@partial(jax.jit, static_argnums=0)
def _fresh_params(program: Program, texts: Texts, key: jax.Array) -> Parameters:
    return init_params(program.ranker, key, blank_row(program.read.schema), texts)


def train_ranker(
    program: Program,
    data: RankerData,
    order: Order,
    seed: int = 0,
    *,
    state: RankerState | None = None,
    validate: Validate | None = None,
    folder: str | os.PathLike[str] | None = None,
    run: Mapping[str, Any] | None = None,
    label: str = "ranker",
) -> TrainedRanker:
    """Trains until validations have not become better for `patience` of them, or `max_epochs` are over.

    Args:
        program: what is trained, and how.
        data: the log and the texts.
        order: the rows of each step.
        seed: of the parameters and of dropout.
        state: to go on from, such as that of the day before; None for a fresh one. It is not changed.
        validate: measures parameters; None trains for all of `max_epochs`.
        folder: of checkpoints, from which a killed training goes on; None for none.
        run: plain values that identify the training to its checkpoints.
        label: name on the progress bar.

    Raises:
        RelandError: a loss is not finite, or a checkpoint is of another training.
    """
    let_go_of_programs()
    begun = fresh_state(program, data, seed) if state is None else jax.tree.map(jnp.array, state)
    fresh = TrainingCheckpoint(begun, _copied(begun.params), {"sections": 0, "history": [], "best": -1})
    training = _Training(program, data, order, seed, validate)
    if not folder:
        return _trained(training, fresh, None, label)
    identity = {"seed": seed, "rows_of_step": order.size, "steps": order.steps_per_epoch, **(run or {})}
    with contextlib.closing(Checkpoints(folder, identity)) as checkpoints:
        return _trained(training, checkpoints.restore(fresh) or fresh, checkpoints, label)


class _Training(NamedTuple):
    """The arguments of `train_ranker` that do not change."""

    program: Program
    data: RankerData
    order: Order
    seed: int
    validate: Validate | None

    def ends(self) -> list[int]:
        """The step at which each section ends; an epoch has as many as it has validations, or steps."""
        config, steps = self.program.config, self.order.steps_per_epoch
        parts = min(config.validations, steps)
        within = [round(steps * (part + 1) / parts) for part in range(parts)]
        return [epoch * steps + end for epoch in range(config.max_epochs) for end in within]

    def finished(self, progress: Mapping[str, Any]) -> bool:
        """Whether the sections are over, or none of the last ones was better."""
        done, best = progress["sections"], progress["best"]
        waited = done - 1 - best
        return done >= len(self.ends()) or (done > 0 and waited >= self.program.config.patience)


def _trained(
    training: _Training, saved: TrainingCheckpoint, checkpoints: Checkpoints | None, label: str
) -> TrainedRanker:
    """The loop of `train_ranker`: a section of steps, a validation, a checkpoint."""
    last_saved, size = time.monotonic(), training.order.size
    total = training.ends()[-1] * size
    hidden = jax.process_index() > 0
    with tqdm(total=total, desc=label, unit="row", unit_scale=True, disable=hidden, mininterval=1.0) as bar:
        while not training.finished(saved.progress):
            saved = _section(training, saved, bar)
            if checkpoints and (training.finished(saved.progress) or _is_due(training, last_saved)):
                checkpoints.save(saved.progress["sections"], saved)
                last_saved = time.monotonic()
    history = saved.progress["history"]
    steps = np.diff([0, *(entry["step"] for entry in history)])
    # The median, since the first section has the compilation in it.
    rate = float(np.median(steps * size / [entry["seconds"] for entry in history]))
    return TrainedRanker(saved.best, saved.state, history, saved.progress["best"], rate)


def _is_due(training: _Training, last_saved: float) -> bool:
    """Whether a checkpoint is; a save is a collective, and clocks differ, so process 0 decides."""
    due = time.monotonic() - last_saved >= training.program.config.checkpoint_seconds
    return bool(of_first_process(due))


def _section(training: _Training, saved: TrainingCheckpoint, bar: Any) -> TrainingCheckpoint:
    """Steps up to the next validation, and that; donates the arrays of the state."""
    progress, ends, size = saved.progress, training.ends(), training.order.size
    done = progress["sections"]
    first, end = ends[done - 1] if done else 0, ends[done]
    bar.update(first * size - bar.n)
    start = time.perf_counter()
    state, loss = _steps(training, saved.state, range(first, end), bar)
    entry = {"epoch": end / training.order.steps_per_epoch, "step": end, "loss": loss}
    entry["seconds"] = time.perf_counter() - start
    found = _validated(training, state.params, end)
    history = [*progress["history"], entry | found]
    before, monitor = progress["best"], training.program.config.monitor
    better = not found or before < 0 or _is_better(monitor, found, history[before])
    progress = {"sections": done + 1, "history": history, "best": done if better else before}
    bar.set_postfix({name: f"{found[name]:.4f}" for name in ("logloss", "auc") if name in found})
    return TrainingCheckpoint(state, _copied(state.params) if better else saved.best, progress)


def _validated(training: _Training, params: Parameters, step: int) -> dict[str, float]:
    """What the validation finds; empty without one."""
    if training.validate is None:
        return {}
    found, monitor = dict(training.validate(params)), training.program.config.monitor
    if not math.isfinite(found[monitor]):
        raise RelandError(f"validation after step {step}: {monitor} is {found[monitor]}")
    return found


def _is_better(monitor: str, entry: Mapping[str, float], best: Mapping[str, float]) -> bool:
    sign = 1 if monitor == "auc" else -1
    return sign * entry[monitor] > sign * best[monitor]


def _steps(training: _Training, state: RankerState, steps: range, bar: Any) -> tuple[RankerState, float]:
    """Takes steps, and returns their mean loss."""
    losses, size = [], training.order.size
    key = random_key(2 * training.seed + _STEPS)
    for part, of_steps in _ahead(training.order, steps):
        count = np.int32(len(part))
        state, found = _dispatch(training.program, state, training.data, of_steps, count, key)
        losses.append(_finite(np.asarray(found)[: len(part)], part.start))
        bar.update(len(part) * size)
    return state, float(np.concatenate(losses).mean())


def _ahead(order: Order, steps: range) -> Iterator[tuple[range, Any]]:
    """The steps of each dispatch, and what they have; the next ones are read while these are taken."""
    parts = [steps[at : at + _STEPS_AT_A_TIME] for at in range(0, len(steps), _STEPS_AT_A_TIME)]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(_stacked, order, parts[0])
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            of_steps = following.result()
            if after is not None:
                following = pool.submit(_stacked, order, after)
            yield part, jax.tree.map(partial(of_all_processes, processes=order.processes), of_steps)


def _stacked(order: Order, steps: range) -> Any:
    """What an order says of the steps of a dispatch, ``[S, B, ...]``; the places after them are zero."""

    def together(*leaves: np.ndarray) -> np.ndarray:
        dtype = np.int32 if leaves[0].dtype.kind == "i" else leaves[0].dtype
        whole = np.zeros((_STEPS_AT_A_TIME, *leaves[0].shape), dtype)
        np.stack(leaves, out=whole[: len(leaves)])
        return whole

    return jax.tree.map(together, *[order.at(step) for step in steps])


def _finite(losses: np.ndarray, first: int) -> np.ndarray:
    """The losses, if all are finite."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        raise RelandError(
            f"step {first + wrong[0]}: the loss is {losses[wrong[0]]}; choose smaller learning rates "
            "(config.train.learning_rate, config.train.table_learning_rate)"
        )
    return losses


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _dispatch(
    program: Program,
    state: RankerState,
    data: RankerData,
    of_steps: Any,
    count: jax.Array,
    key: jax.Array,
) -> tuple[RankerState, jax.Array]:
    """The first `count` of the steps that `_stacked` has, and the losses ``<float32>[S]``."""
    of_table, of_dense = optimizers(program)

    def step(at: jax.Array, carried: tuple[RankerState, jax.Array]) -> tuple[RankerState, jax.Array]:
        state, losses = carried
        batch = program.read(data.log, *jax.tree.map(lambda leaf: leaf[at], of_steps))
        own = jax.random.fold_in(key, state.rows.step)
        state, loss = train_step(program.ranker, of_table, of_dense, state, batch, data.texts, own)
        return state, losses.at[at].set(loss)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(_STEPS_AT_A_TIME)))


def step_bytes(
    program: Program,
    data: RankerData,
    size: int,
    parts: Sequence[str] = ("temp", "argument", "output"),
) -> int:
    """Memory of a compiled step of some rows: its arguments, its results, and what lies between (temp).

    Raises:
        RelandError: this backend of JAX does not tell.
    """
    batch = program.read(data.log, np.zeros(size, np.int32), np.ones(size, np.float32))
    step = jax.jit(partial(train_step, program.ranker, *optimizers(program)))
    found = step.lower(fresh_state(program, data, 0), batch, data.texts, random_key(0)).compile()
    memory = found.memory_analysis()
    if memory is None:
        raise RelandError(f"JAX on {jax.default_backend()} does not report memory; use a CPU")
    return sum(int(getattr(memory, f"{part}_size_in_bytes")) for part in parts)


def predict_rows(
    program: Program, params: Parameters, data: RankerData, rows: np.ndarray, size: int = 4096
) -> Scores:
    """Probabilities of rows of a log, on the host.

    Args:
        program: of the ranker.
        params: what it has learned.
        data: the log and the texts.
        rows: ``<int64>[n]``.
        size: rows at a time.

    Returns:
        ``<float32>[n, T]`` twice.
    """
    whole = np.resize(rows, (-(-len(rows) // size), size)).astype(np.int32)
    parts = [jax.device_get(_predict(program, params, data, part)) for part in whole]
    empty: Any = np.zeros((0, len(program.ranker.config.labels)), np.float32)
    whole_log = jax.tree.map(lambda *each: np.concatenate(each)[: len(rows)], Scores(empty, empty), *parts)
    return Scores(*whole_log)


@partial(jax.jit, static_argnums=0)
def _predict(program: Program, params: Parameters, data: RankerData, rows: jax.Array) -> Scores:
    batch = program.read(data.log, rows, jnp.ones(rows.shape[0], jnp.float32))
    return predict(program.ranker, params, batch, data.texts)


def _copied(params: Parameters) -> Parameters:
    """A copy that outlives the next step, which is given the memory of the first."""
    return jax.tree.map(jnp.copy, params)
