"""The training loop: dispatch, check, validate, keep the best parameters, stop early."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import TrainConfig
from reland_jax.device import let_go_of_programs, set_aside, sizes, taken_back
from reland_jax.device.aside import DEVICE
from reland_jax.mesh import active_mesh, of_first_process
from reland_jax.progress import Progress
from reland_jax.train.checkpoint import Checkpoints, TrainingCheckpoint
from reland_jax.train.closed_form import ClosedForm
from reland_jax.train.evaluator import Evaluator, FixedEpochs
from reland_jax.train.state import (
    Program,
    TrainState,
    compiled_dispatch,
    create_optimizer,
    init_state,
    loss_and_gradients,
    of_one,
    program_of,
    shuffled,
    step_key,
)
from reland_jax.train.tasks import Task
from reland_jax.types import NDCG, RelandError

MONITOR = NDCG


class FitResult(NamedTuple):
    """A trained recommender and how it got there.

    Attributes:
        params: parameters of the best validation.
        history: one entry per epoch: "epoch", "loss", "seconds", and after a validation its metrics. The
            seconds are those of all seeds that were trained together.
        best_epoch: epoch of `params`, from 1.
        compile_seconds: time spent compiling the training dispatch.
        seconds_per_epoch: median over epochs, without compilation and validation.
    """

    params: Any
    history: list[dict[str, float]]
    best_epoch: int
    compile_seconds: float
    seconds_per_epoch: float


def fit(
    task: Task | ClosedForm,
    evaluator: Evaluator | FixedEpochs,
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
        evaluator: ranks the validation targets; or how many epochs are trained without any.
        config: how to optimise.
        folder: where checkpoints go and from where a killed run continues, or None for neither.
        run: plain values that identify the run to its checkpoints.
        label: name on the progress bar.
        on_epoch: called with every new entry of the history.

    Raises:
        RelandError: a loss or a score is not finite; the error names the step and the tensor.
    """

    def told(seed: int, entry: dict[str, float]) -> None:
        on_epoch(entry)

    seeds = (config.seed,)
    return fit_together(task, evaluator, config, seeds, folder, run=run, label=label, on_epoch=told)[0]


def fit_together(
    task: Task | ClosedForm,
    evaluator: Evaluator | FixedEpochs,
    config: TrainConfig,
    seeds: Sequence[int],
    folder: str | os.PathLike[str] | None = None,
    *,
    run: Mapping[str, Any] | None = None,
    label: str = "train",
    on_epoch: Callable[[int, dict[str, float]], None] = lambda seed, entry: None,
) -> list[FitResult]:
    """Trains several seeds at once, by one program over the states of all of them.

    Each seed stops by its own validations: it keeps its best parameters, and what the program goes on to
    compute for it is discarded. The training ends when all have stopped. Sums are taken in another order than
    for one seed alone, so parameters agree with those of `fit` to rounding.

    Args:
        task: as of `fit`, like what is not described here.
        evaluator: ranks the validation targets, for one seed after the other; see `fit`.
        config: how to optimise; its own seed does not count.
        seeds: the training seeds.
        folder: of the checkpoints of all of them.
        run: plain values that identify the run to its checkpoints.
        label: name on the progress bar.
        on_epoch: called with a seed and the new entry of its history.

    Returns:
        A result for each seed.

    Raises:
        RelandError: as of `fit`, for any of the seeds that have not stopped; or several seeds on a mesh.
    """
    let_go_of_programs()
    if isinstance(task, ClosedForm):
        return [_solved(task, evaluator, seed, partial(on_epoch, seed)) for seed in seeds]
    if len(seeds) > 1 and active_mesh() is not None:
        raise RelandError(
            "config.train.together: seeds are trained together on one device only; on a mesh, or in a job of "
            "several processes, set it to 1"
        )
    if not folder:
        return _trained(task, evaluator, config, seeds, None, label, on_epoch)
    with contextlib.closing(Checkpoints(folder, {**(run or {}), "seeds": list(seeds)})) as checkpoints:
        return _trained(task, evaluator, config, seeds, checkpoints, label, on_epoch)


def _trained(
    task: Task,
    evaluator: Evaluator | FixedEpochs,
    config: TrainConfig,
    seeds: Sequence[int],
    checkpoints: Checkpoints | None,
    label: str,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> list[FitResult]:
    """The loop of `fit_together`."""
    saved = _initial_checkpoint(task, config, seeds, checkpoints)
    epoch_fn = _Epoch(task, config, saved.state)
    last_saved, upto = time.monotonic(), _most_epochs(evaluator, config)
    with Progress(
        label, upto, "epoch", done=_epochs(saved.progress), every=0.0,
        quiet=jax.process_index() > 0,
    ) as shown:  # fmt: skip
        while not _all_finished(saved.progress, config, upto):
            try:
                saved = _one_epoch(evaluator, config, epoch_fn, saved)
            except _NotFinite as fault:
                del saved
                again = _initial_checkpoint(task, config, seeds, checkpoints)
                raise epoch_fn.diagnose(fault, again, seeds) from None
            _tell(saved.progress, seeds, task.targets, shown, on_epoch)
            # A checkpoint is a collective, and the clocks of processes differ, so process 0 decides.
            due = of_first_process(time.monotonic() - last_saved >= config.checkpoint_seconds)
            if checkpoints and (due or _all_finished(saved.progress, config, upto)):
                checkpoints.save(_epochs(saved.progress), saved)
                last_saved = time.monotonic()
        shown.stop(_why_stopped(saved.progress, config))
    return _results(saved.progress, saved.best, epoch_fn.compile_seconds)


def _tell(
    progress: Mapping[str, Any],
    seeds: Sequence[int],
    targets: int,
    shown: Progress,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> None:
    """Passes the newest entries on, and shows their mean."""
    histories, epoch = [each["history"] for each in progress["seeds"]], _epochs(progress)
    newest = {
        seed: history[-1] for seed, history in zip(seeds, histories, strict=True) if len(history) == epoch
    }
    for seed, entry in newest.items():
        on_epoch(seed, entry)
    entries = list(newest.values())
    told = [
        f"{label} {sum(entry[name] for entry in entries) / len(entries):.4f}"
        for name, label in (("loss", "loss"), (MONITOR, f"validation {MONITOR.upper()}"))
        if name in entries[0]
    ]
    told.append(f"{len(seeds) * targets / entries[0]['seconds']:,.0f} targets/s")
    shown.advance(1, ", ".join(told))


def _results(progress: Mapping[str, Any], best: Any, compile_seconds: float) -> list[FitResult]:
    results, alone, best = [], len(progress["seeds"]) == 1, taken_back(best)
    for index, each in enumerate(progress["seeds"]):
        params = best if alone else of_one(best, index)
        seconds = float(np.median([entry["seconds"] for entry in each["history"]]))
        results.append(FitResult(params, each["history"], each["best_epoch"], compile_seconds, seconds))
    return results


def _solved(
    task: ClosedForm,
    evaluator: Evaluator | FixedEpochs,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None],
) -> FitResult:
    """One epoch that solves for the parameters, and its validation."""
    start = time.perf_counter()
    equations = task.equations()
    counted = time.perf_counter()
    task.compile(equations)
    compile_seconds = time.perf_counter() - counted
    params = jax.block_until_ready(task.solve(equations, seed))
    seconds = time.perf_counter() - start - compile_seconds
    entry = {"epoch": 1, "seconds": seconds}
    if not isinstance(evaluator, FixedEpochs):
        start = time.perf_counter()
        entry |= evaluator.metrics(params, "valid")
        entry["evaluation_seconds"] = time.perf_counter() - start
    on_epoch(entry)
    return FitResult(params, [entry], 1, compile_seconds, seconds)


def _initial_checkpoint(
    task: Task, config: TrainConfig, seeds: Sequence[int], checkpoints: Checkpoints | None
) -> TrainingCheckpoint:
    """Where a run begins or goes on: fresh, or the newest checkpoint."""
    state = init_state(task, config, seeds)
    # Steps donate their state, so the best parameters are a separate copy.
    best = set_aside(state.params)
    progress = {"seeds": [{"history": [], "best_epoch": 0, "best": -1.0} for _ in seeds]}
    fresh = TrainingCheckpoint(state, best, progress)
    return (checkpoints.restore(fresh) if checkpoints else None) or fresh


def _epochs(progress: Mapping[str, Any]) -> int:
    """Epochs of the seeds that have not stopped."""
    return max(len(each["history"]) for each in progress["seeds"])


def _most_epochs(evaluator: Evaluator | FixedEpochs, config: TrainConfig) -> int:
    return evaluator.epochs if isinstance(evaluator, FixedEpochs) else config.max_epochs


def _all_finished(progress: Mapping[str, Any], config: TrainConfig, upto: int) -> bool:
    return all(_finished(each, config, upto) for each in progress["seeds"])


def _finished(progress: Mapping[str, Any], config: TrainConfig, upto: int) -> bool:
    """Whether one seed has stopped: it is not better for long, or has so many epochs."""
    epochs, validated = len(progress["history"]), progress["best_epoch"] > 0
    waited = (epochs - progress["best_epoch"]) // config.eval_every
    return epochs >= upto or (validated and waited >= config.patience)


def _why_stopped(progress: Mapping[str, Any], config: TrainConfig) -> str:
    """Why a training ends, for people; of several seeds, why each does."""
    told = []
    for each in progress["seeds"]:
        epochs, best = len(each["history"]), each["best_epoch"]
        waited = (epochs - best) // config.eval_every >= config.patience
        why = f"no better for {config.patience} validations" if waited else f"all {epochs} epochs are trained"
        told.append(f"stopped: {why}, the best epoch is {best}")
    return "; ".join(told)


def _one_epoch(
    evaluator: Evaluator | FixedEpochs, config: TrainConfig, epoch_fn: _Epoch, saved: TrainingCheckpoint
) -> TrainingCheckpoint:
    """Trains all seeds for an epoch and validates those that have not stopped; donates `saved`'s arrays."""
    progress, epoch = list(saved.progress["seeds"]), _epochs(saved.progress) + 1
    upto = _most_epochs(evaluator, config)
    running = [index for index, each in enumerate(progress) if not _finished(each, config, upto)]
    start = time.perf_counter()
    state, losses = epoch_fn(saved.state, epoch, running)
    seconds = time.perf_counter() - start
    validated = epoch % config.eval_every == 0 or epoch == upto
    better = np.zeros(len(progress), bool)
    for index in running:
        entry = {"epoch": epoch, "loss": float(losses[index]), "seconds": seconds}
        if isinstance(evaluator, FixedEpochs):
            better[index] = epoch == upto
        elif validated:
            start = time.perf_counter()
            entry |= _validate(evaluator, state, index)
            entry["evaluation_seconds"] = time.perf_counter() - start
            better[index] = entry[MONITOR] > progress[index]["best"]
        progress[index] = progress[index] | {"history": [*progress[index]["history"], entry]}
        if better[index]:
            progress[index] |= {"best_epoch": epoch, "best": entry.get(MONITOR, 0.0)}
    best = _better(saved.best, state.params, better) if better.any() else saved.best
    return TrainingCheckpoint(state, best, {"seeds": progress})


def _better(best: Any, params: Any, better: np.ndarray) -> Any:
    """The best parameters after a validation; donates those before."""
    if sizes().best_kept_in == DEVICE:
        return _copy_over(best, params, better)
    if better.all():
        return set_aside(params)
    # One array after the other, so that only one of the best is on the device.
    return jax.tree.map(lambda old, new: set_aside(_copy_over(taken_back(old), new, better)), best, params)


@partial(jax.jit, donate_argnums=0, keep_unused=True)
def _copy_over(old: Any, new: Any, better: jax.Array) -> Any:
    """Copies what is better into the memory of `old`, so that there is never a second copy.

    Args:
        old: best parameters.
        new: present parameters.
        better: ``<bool>[S]``, the seeds to copy; of a single one always true.
    """
    if len(better) == 1:
        return jax.tree.map(jnp.copy, new)
    choose = jax.vmap(jnp.where)
    return jax.tree.map(lambda ours, theirs: choose(better, theirs, ours), old, new)


def _validate(evaluator: Evaluator, state: TrainState, index: int) -> dict[str, float]:
    """Validates one of the seeds."""
    params = of_one(state.params, index) if state.step.ndim else state.params
    try:
        return evaluator.metrics(params, "valid")
    except RelandError as error:
        raise RelandError(f"validation after {_where(state, index)}: {error}") from error


def _where(state: TrainState, index: int) -> str:
    """A step for people, with the seed if there are several."""
    step, seed = np.atleast_1d(state.step)[index], np.atleast_1d(state.seed)[index]
    return f"step {step}" + (f" of training seed {seed}" if state.step.ndim else "")


class _NotFinite(Exception):
    """A loss was not finite.

    Attributes:
        epoch: from 1.
        dispatch: of the epoch, from 0.
        index: whose loss, of the seeds that are trained together.
    """

    def __init__(self, epoch: int, dispatch: int, index: int) -> None:
        super().__init__(epoch, dispatch, index)
        self.epoch, self.dispatch, self.index = epoch, dispatch, index


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

    def __call__(
        self, state: TrainState, epoch: int, running: Sequence[int]
    ) -> tuple[TrainState, np.ndarray]:
        """The state after an epoch, which uses up the given one, and the mean losses ``<float32>[S]``.

        Args:
            state: of one or more seeds.
            epoch: from 1.
            running: the places of the seeds that have not stopped; losses of others are not looked at.

        Raises:
            _NotFinite: a loss is not; see `diagnose`.
        """
        order, losses = self._order(state, epoch), list[Any]()
        for number, batches in enumerate(self._batches):
            state, loss = self._dispatch(state, order, batches)
            losses.append(loss)
            # One dispatch behind, so that the device already has its next work while the host checks.
            _look(losses, epoch, number - 1, running)
        _look(losses, epoch, len(losses) - 1, running)
        return state, np.concatenate(losses, axis=1).mean(1)

    def diagnose(self, fault: _NotFinite, saved: TrainingCheckpoint, seeds: Sequence[int]) -> RelandError:
        """Repeats a run up to the dispatch that failed, and that one step by step.

        Steps donate their state, so the run is repeated from its start or its last checkpoint, to the same
        numbers.
        """
        state = saved.state
        for epoch in range(_epochs(saved.progress) + 1, fault.epoch):
            state, _ = self._repeated(state, epoch, len(self._batches))
        state, order = self._repeated(state, fault.epoch, fault.dispatch)
        whose = ""
        if len(seeds) > 1:
            (state, order), whose = of_one((state, order), fault.index), f" of seed {seeds[fault.index]}"
        return _diagnose(self._task, self._program, state, order, self._batches[fault.dispatch], whose)

    def _repeated(self, state: TrainState, epoch: int, dispatches: int) -> tuple[TrainState, Any]:
        """The state after some dispatches of an epoch, and the epoch's order."""
        order = self._order(state, epoch)
        for batches in self._batches[:dispatches]:
            state, _ = self._dispatch(state, order, batches)
        return state, order


def _look(losses: list[Any], epoch: int, dispatch: int, running: Sequence[int]) -> None:
    """Waits for the losses of a dispatch, puts them on the host as ``<float32>[S, n]`` and checks them."""
    if dispatch < 0:
        return
    losses[dispatch] = np.atleast_2d(losses[dispatch])
    for index in running:
        if not np.isfinite(losses[dispatch][index]).all():
            raise _NotFinite(epoch, dispatch, index)


def _diagnose(
    task: Task, program: Program, state: TrainState, order: Any, batches: np.ndarray, whose: str
) -> RelandError:
    """Replays a failed dispatch step by step and returns which step and tensor were not finite first."""
    optimizer = create_optimizer(program.config, program.steps)
    for index in batches:
        where = f"step {int(state.step)}"
        for kind, tree in (("input table", task.tables), ("parameter", state.params)):
            if name := _first_not_finite(tree):
                return RelandError(f"training{whose} stopped at {where}: {kind} {name} is not finite")
        given = (state.params, task.tables, task.data, order, index, step_key(state))
        loss, gradients = loss_and_gradients(program, *given)
        if not math.isfinite(float(loss)):
            return RelandError(
                f"training{whose} stopped at {where}: the loss is {float(loss)}, of finite parameters"
            )
        if name := _first_not_finite(gradients):
            return RelandError(f"training{whose} stopped at {where}: the gradient of {name} is not finite")
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        state = TrainState(params, opt_state, state.step + 1, state.seed)
    return RelandError(f"training{whose} stopped before step {int(state.step)}: a loss was not finite")


def _first_not_finite(tree: Any) -> str | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(jnp.isfinite(leaf).all()):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None
