"""The training loop: dispatch, check, validate, keep the best parameters, stop early."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from reland_jax.config import EvalConfig, TrainConfig
from reland_jax.eval import check_targets, mean_metrics, per_user_metrics, plan_ranking, rank_targets
from reland_jax.memory import release_memory
from reland_jax.mesh import of_first_process
from reland_jax.train.checkpoint import Checkpoints, TrainingCheckpoint
from reland_jax.train.closed_form import ClosedForm
from reland_jax.train.state import (
    Program,
    TrainState,
    compiled_dispatch,
    create_optimizer,
    init_state,
    loss_and_gradients,
    program_of,
    shuffled,
    step_key,
)
from reland_jax.train.tasks import Task, append
from reland_jax.types import NDCG, PARTS, RelandError, Splits, TargetRanks

MONITOR = NDCG


class FitResult(NamedTuple):
    """A trained recommender and how it got there.

    Attributes:
        params: parameters of the best validation.
        history: one entry per epoch: "epoch", "loss", "seconds", and after a validation its metrics.
        best_epoch: epoch of `params`, from 1.
        compile_seconds: time spent compiling the training dispatch.
        seconds_per_epoch: median over epochs, without compilation and validation.
    """

    params: Any
    history: list[dict[str, float]]
    best_epoch: int
    compile_seconds: float
    seconds_per_epoch: float


class Evaluator:
    """Ranks the held-out targets of a split for any parameters of a task."""

    def __init__(self, task: Task | ClosedForm, splits: Splits, config: EvalConfig) -> None:
        """Plans the full ranking of both parts of the split.

        Raises:
            RelandError: a part of the split holds no item of anyone.
        """
        check_targets(splits)
        self._task, self._cutoffs = task, config.cutoffs
        masked = {"valid": splits.train, "test": append(splits.train, splits.valid)}
        self._plans = {
            part: plan_ranking(
                getattr(splits, part),
                masked[part] if config.mask_history else None,
                splits.num_items,
                config.tile_bytes,
                splits.train,
            )
            for part in PARTS
        }

    @property
    def users_per_tile(self) -> int:
        """Users ranked at a time."""
        return self._plans["test"].users_at_a_time

    def ranks(self, params: Any, part: str, cutoff: int | None = None) -> TargetRanks:
        """Ranks of the distinct targets of `part`, "valid" or "test"; exact below the cutoff, None for all.

        A target in a masked history is ranked as if it alone were not masked.
        """
        return rank_targets(self._plans[part], self._task.vectors(params, part), cutoff)

    def metrics(self, params: Any, part: str) -> dict[str, float]:
        """Mean HR, NDCG and MRR at every cutoff."""
        return mean_metrics(per_user_metrics(self.ranks(params, part, max(self._cutoffs)), self._cutoffs))


def fit(
    task: Task | ClosedForm,
    evaluator: Evaluator,
    config: TrainConfig,
    folder: str | os.PathLike[str] | None = None,
    *,
    run: Mapping[str, Any] | None = None,
    label: str = "train",
    on_epoch: Callable[[dict[str, float]], None] = lambda entry: None,
) -> FitResult:
    """Trains until validation NDCG@10 has not improved for `config.patience` validations.

    Args:
        task: recommender and data.
        evaluator: ranks the validation targets.
        config: how to optimise.
        folder: where checkpoints go and from where a killed run continues, or None for neither.
        run: plain values that identify the run to its checkpoints.
        label: name on the progress bar.
        on_epoch: called with every new entry of the history.

    Raises:
        RelandError: a loss or a score is not finite; the error names the step and the tensor.
    """
    if isinstance(task, ClosedForm):
        return _solved(task, evaluator, on_epoch)
    checkpoints = Checkpoints(folder, run or {}) if folder else None
    saved = _initial_checkpoint(task, config, checkpoints)
    epoch_fn = _Epoch(task, config, saved.state)
    done = len(saved.progress["history"])
    last_saved = time.monotonic()
    with tqdm(
        total=config.max_epochs, initial=done, desc=label, unit="epoch",
        disable=jax.process_index() > 0,
    ) as bar:  # fmt: skip
        while not _finished(saved.progress, config):
            try:
                saved = _one_epoch(evaluator, config, epoch_fn, saved)
            except _NotFinite as fault:
                del saved
                raise epoch_fn.diagnose(fault, _initial_checkpoint(task, config, checkpoints)) from None
            entry = saved.progress["history"][-1]
            if entry["epoch"] == done + config.eval_every:
                release_memory()  # what compiling the ranking took, for the first validation
            on_epoch(entry)
            bar.set_postfix(
                {k: f"{entry[k]:.4f}" for k in ("loss", MONITOR) if k in entry}
                | {"targets/s": f"{task.targets / entry['seconds']:.0f}"}
            )
            bar.update()
            # A checkpoint is a collective, and the clocks of processes differ, so process 0 decides.
            due = of_first_process(time.monotonic() - last_saved >= config.checkpoint_seconds)
            if checkpoints and (due or _finished(saved.progress, config)):
                checkpoints.save(len(saved.progress["history"]), saved)
                last_saved = time.monotonic()
    if checkpoints:
        checkpoints.close()
    history = saved.progress["history"]
    seconds = float(np.median([entry["seconds"] for entry in history]))
    return FitResult(saved.best, history, saved.progress["best_epoch"], epoch_fn.compile_seconds, seconds)


def _solved(
    task: ClosedForm, evaluator: Evaluator, on_epoch: Callable[[dict[str, float]], None]
) -> FitResult:
    """One epoch that solves for the parameters, and its validation."""
    start = time.perf_counter()
    equations = task.equations()
    counted = time.perf_counter()
    task.compile(equations)
    compile_seconds = time.perf_counter() - counted
    params = jax.block_until_ready(task.solve(equations))
    seconds = time.perf_counter() - start - compile_seconds
    start = time.perf_counter()
    entry = {"epoch": 1, "seconds": seconds, **evaluator.metrics(params, "valid")}
    entry["evaluation_seconds"] = time.perf_counter() - start
    on_epoch(entry)
    return FitResult(params, [entry], 1, compile_seconds, seconds)


def _initial_checkpoint(
    task: Task, config: TrainConfig, checkpoints: Checkpoints | None
) -> TrainingCheckpoint:
    """Where a run begins or goes on: fresh, or the newest checkpoint."""
    state = init_state(task, config)
    # Steps donate their state, so the best parameters are a separate copy.
    best = jax.tree.map(jnp.copy, state.params)
    fresh = TrainingCheckpoint(state, best, {"history": [], "best_epoch": 0, "best": -1.0})
    return (checkpoints.restore(fresh) if checkpoints else None) or fresh


def _finished(progress: Mapping[str, Any], config: TrainConfig) -> bool:
    epochs = len(progress["history"])
    waited = (epochs - progress["best_epoch"]) // config.eval_every
    return epochs >= config.max_epochs or (epochs > 0 and waited >= config.patience)


def _one_epoch(
    evaluator: Evaluator, config: TrainConfig, epoch_fn: _Epoch, saved: TrainingCheckpoint
) -> TrainingCheckpoint:
    """Trains and validates an epoch; the arrays of `saved` are donated."""
    epoch = len(saved.progress["history"]) + 1
    start = time.perf_counter()
    state, loss = epoch_fn(saved.state, epoch)
    entry = {"epoch": epoch, "loss": loss, "seconds": time.perf_counter() - start}
    best, best_epoch, best_params = saved.progress["best"], saved.progress["best_epoch"], saved.best
    if epoch % config.eval_every == 0 or epoch == config.max_epochs:
        start = time.perf_counter()
        entry |= _validate(evaluator, state)
        entry["evaluation_seconds"] = time.perf_counter() - start
        if entry[MONITOR] > best:
            best, best_epoch, best_params = entry[MONITOR], epoch, _copy_over(best_params, state.params)
    progress = {
        "history": [*saved.progress["history"], entry], "best_epoch": best_epoch, "best": best,
    }  # fmt: skip
    return TrainingCheckpoint(state, best_params, progress)


@partial(jax.jit, donate_argnums=0, keep_unused=True)
def _copy_over(old: Any, new: Any) -> Any:
    """Copies `new` into the memory of `old`, so that there is never a second copy."""
    del old
    return jax.tree.map(jnp.copy, new)


def _validate(evaluator: Evaluator, state: TrainState) -> dict[str, float]:
    try:
        return evaluator.metrics(state.params, "valid")
    except RelandError as error:
        raise RelandError(f"validation after step {int(state.step)}: {error}") from error


class _NotFinite(Exception):
    """A loss was not finite.

    Attributes:
        epoch: from 1.
        dispatch: of the epoch, from 0.
    """

    def __init__(self, epoch: int, dispatch: int) -> None:
        super().__init__(epoch, dispatch)
        self.epoch, self.dispatch = epoch, dispatch


class _Epoch:
    """Runs epochs with functions that are compiled once, before the first.

    Attributes:
        compile_seconds: time spent compiling; close to zero if another seed has compiled the same program.
    """

    def __init__(self, task: Task, config: TrainConfig, state: TrainState) -> None:
        self._task, self._program = task, program_of(task, config)
        dispatches = -(-task.steps // config.steps_per_dispatch)
        self._batches = np.arange(task.steps, dtype=np.int32).reshape(dispatches, -1)
        order, start = self._order(state, 1), time.perf_counter()
        arguments = (state, task.tables, task.data, order, self._batches[0])
        self._compiled = compiled_dispatch(self._program, *arguments)
        self.compile_seconds = time.perf_counter() - start

    def _order(self, state: TrainState, epoch: int) -> Any:
        return shuffled(self._program, self._task.data, state.seed, epoch)

    def _dispatch(self, state: TrainState, order: Any, batches: np.ndarray) -> tuple[TrainState, jax.Array]:
        return self._compiled(state, self._task.tables, self._task.data, order, batches)

    def __call__(self, state: TrainState, epoch: int) -> tuple[TrainState, float]:
        """The state after an epoch, which uses up the given one, and the mean loss.

        Raises:
            _NotFinite: a loss is not; see `diagnose`.
        """
        order, losses = self._order(state, epoch), list[Any]()
        for number, batches in enumerate(self._batches):
            state, loss = self._dispatch(state, order, batches)
            losses.append(loss)
            # One dispatch behind, so that the device already has its next work while the host checks.
            self._look(losses, epoch, number - 1)
        self._look(losses, epoch, len(losses) - 1)
        return state, float(np.concatenate(losses).mean())

    def _look(self, losses: list[Any], epoch: int, dispatch: int) -> None:
        if dispatch >= 0:
            losses[dispatch] = np.asarray(losses[dispatch])
            if not np.isfinite(losses[dispatch]).all():
                raise _NotFinite(epoch, dispatch)

    def diagnose(self, fault: _NotFinite, saved: TrainingCheckpoint) -> RelandError:
        """Repeats a run up to the dispatch that failed, and that one step by step.

        Steps donate their state, so the run is repeated from its start or its last checkpoint, to the same
        numbers.
        """
        state = saved.state
        for epoch in range(len(saved.progress["history"]) + 1, fault.epoch):
            state, _ = self._repeated(state, epoch, len(self._batches))
        state, order = self._repeated(state, fault.epoch, fault.dispatch)
        return _diagnose(self._task, self._program, state, order, self._batches[fault.dispatch])


    def _repeated(self, state: TrainState, epoch: int, dispatches: int) -> tuple[TrainState, Any]:
        """The state after some dispatches of an epoch, and the epoch's order."""
        order = self._order(state, epoch)
        for batches in self._batches[:dispatches]:
            state, _ = self._dispatch(state, order, batches)
        return state, order


def _diagnose(
    task: Task, program: Program, state: TrainState, order: Any, batches: np.ndarray
) -> RelandError:
    """Replays a failed dispatch step by step and returns which step and tensor were not finite first."""
    optimizer = create_optimizer(program.config, program.steps)
    for index in batches:
        where = f"step {int(state.step)}"
        for kind, tree in (("input table", task.tables), ("parameter", state.params)):
            if name := _first_not_finite(tree):
                return RelandError(f"training stopped at {where}: {kind} {name} is not finite")
        given = (state.params, task.tables, task.data, order, index, step_key(state))
        loss, gradients = loss_and_gradients(program, *given)
        if not math.isfinite(float(loss)):
            return RelandError(
                f"training stopped at {where}: the loss is {float(loss)}, of finite parameters"
            )
        if name := _first_not_finite(gradients):
            return RelandError(f"training stopped at {where}: the gradient of {name} is not finite")
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        state = TrainState(params, opt_state, state.step + 1, state.seed)
    return RelandError(f"training stopped before step {int(state.step)}: a loss was not finite")


def _first_not_finite(tree: Any) -> str | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(jnp.isfinite(leaf).all()):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None
