"""The training loop learns, repeats itself exactly, resumes exactly, stops early, and stops at a fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import EvalConfig, TrainConfig
from reland_jax.models import Tables
from reland_jax.train import Evaluator, FitResult, FixedEpochs, Task, fit
from reland_jax.types import RelandError, Splits
from tests.toys import planted_splits, ragged
from tests.train.toys import (
    PAIRS,
    SEQUENTIAL,
    Scripted,
    assert_same_tree,
    constant_splits_ndcg,
    scored,
    slope_task,
    toy_task,
    without_seconds,
)

Toy = tuple[Task, Evaluator]


class Stopped(Exception):
    """Stands for a run that ends in the middle."""


def stop_after(epoch: int) -> Callable[[dict[str, float]], None]:
    """A callback that ends the run when it is told of this epoch."""

    def on_epoch(entry: dict[str, float]) -> None:
        if entry["epoch"] == epoch:
            raise Stopped

    return on_epoch


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_task("sasrec", SEQUENTIAL)


@pytest.fixture(scope="module")
def trained(toy: Toy) -> FitResult:
    """An uninterrupted run without checkpoints."""
    return fit(*toy, SEQUENTIAL)


def test_it_learns_what_was_planted(trained: FitResult) -> None:
    losses = [entry["loss"] for entry in trained.history]
    # An ideal model is certain of every next item; a blind one is at log(12) = 2.48.
    assert losses[0] > 2.0 and losses[-1] < 0.7 * losses[0]
    best = max(entry["ndcg@10"] for entry in trained.history)
    assert best > 1.5 * constant_splits_ndcg(planted_splits())
    assert trained.history[trained.best_epoch - 1]["ndcg@10"] == best


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_so_many_epochs_without_validation_lead_where_they_led_with_it(toy: Toy, schedule: str) -> None:
    """Neither patience nor a validation ends it, and the schedule refers to `max_epochs` as before."""
    config = dataclasses.replace(SEQUENTIAL, schedule=schedule, max_epochs=4, patience=1)
    validated = fit(*toy, dataclasses.replace(config, patience=9))
    fixed = fit(toy[0], FixedEpochs(validated.best_epoch), config)
    assert fixed.best_epoch == validated.best_epoch > 1
    assert_same_tree(fixed.params, validated.params)
    assert {name for entry in fixed.history for name in entry} == {"epoch", "loss", "seconds"}


def test_collaborative_recommenders_learn_too_and_differently_with_another_seed() -> None:
    config = dataclasses.replace(PAIRS, max_epochs=8)
    toy = toy_task("lightgcn", config)
    losses = [entry["loss"] for entry in fit(*toy, config).history]
    assert losses[0] < 0.75 and losses[-1] < 0.75 * losses[0]
    other = fit(*toy, dataclasses.replace(config, max_epochs=1, seed=1))
    assert other.history[0]["loss"] != losses[0]


CHEAP = {
    "neumf": dataclasses.replace(PAIRS, max_epochs=3),
    "ngcf": dataclasses.replace(PAIRS, max_epochs=3),
    "gru4rec": dataclasses.replace(SEQUENTIAL, max_epochs=3),
    "duorec": dataclasses.replace(SEQUENTIAL, max_epochs=3, view_length=4),
    "gat": dataclasses.replace(PAIRS, max_epochs=3),
    "lightgcn sampled": dataclasses.replace(PAIRS, max_epochs=3),
    "gat sampled": dataclasses.replace(PAIRS, max_epochs=3),
}
"""Settings of the backbones that have no tests of their own above and below, and of those that sample two
neighbours of every node; two dispatches an epoch."""


def fit_and_count(task: Task, evaluator: Evaluator, config: TrainConfig) -> tuple[FitResult, list[int]]:
    """A training, and the number of compilations up to the end of every epoch."""
    compiled: list[int] = [0]
    per_epoch: list[int] = []

    def count(event: str, seconds: float, **_: Any) -> None:
        compiled[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        result = fit(task, evaluator, config, on_epoch=lambda entry: per_epoch.append(compiled[0]))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return result, per_epoch


def test_a_training_forgets_programs_where_a_process_is_full_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("reland_jax.train.loop.let_go_of_programs", lambda: asked.append("asked"))
    config = dataclasses.replace(CHEAP["neumf"], max_epochs=1)
    fit(*toy_task("neumf", config), config)
    assert asked == ["asked"]


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if "gat" in name else []) for name in CHEAP]
)
def test_every_backbone_learns_repeats_and_goes_on_after_a_stop(backbone: str, tmp_path: Path) -> None:
    """The loss falls; the same seed gives the same bits, stopped in the middle or not."""
    config = dataclasses.replace(CHEAP[backbone], checkpoint_seconds=0.0)
    toy = toy_task(backbone.split()[0], config, fanout=(2,) if "sampled" in backbone else ())
    whole, per_epoch = fit_and_count(*toy, config)
    assert per_epoch[0] > 0 and per_epoch == [per_epoch[0]] * 3, "an epoch after the first one compiled"
    losses = [entry["loss"] for entry in whole.history]
    assert losses[-1] < 0.95 * losses[0]
    with pytest.raises(Stopped):
        fit(*toy, config, tmp_path, on_epoch=stop_after(2))
    resumed = fit(*toy, config, tmp_path)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert_same_tree(resumed.params, whole.params)


def test_the_history_says_what_happened(trained: FitResult) -> None:
    assert [entry["epoch"] for entry in trained.history] == [1, 2, 3, 4, 5]
    metrics = {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (5, 10, 20)}
    for entry in trained.history:
        assert set(entry) == {"epoch", "loss", "seconds", "evaluation_seconds"} | metrics
    assert trained.seconds_per_epoch == np.median([entry["seconds"] for entry in trained.history])
    assert trained.compile_seconds > 0


def test_the_same_seed_gives_the_same_bits(toy: Toy, trained: FitResult) -> None:
    again = fit(*toy, SEQUENTIAL)
    assert without_seconds(again.history) == without_seconds(trained.history)
    assert_same_tree(again.params, trained.params)


@pytest.mark.parametrize("backbone", ["gru4rec", "neumf", pytest.param("duorec", marks=pytest.mark.slow)])
def test_another_seed_compiles_nothing(backbone: str) -> None:
    """Neither steps nor shuffles nor ranking, though its task is made anew."""
    config = dataclasses.replace(CHEAP[backbone], max_epochs=2)
    # Settings that no other test has, so that what is compiled is compiled here.
    config = dataclasses.replace(config, learning_rate=config.learning_rate * 1.01)
    first, compiled = fit_and_count(*toy_task(backbone, config), config)
    assert compiled[0] > 0 and compiled == [compiled[0]] * 2
    toy, config = toy_task(backbone, config), dataclasses.replace(config, seed=1, patience=50)
    other, compiled = fit_and_count(*toy, config)
    assert compiled == [0, 0]
    assert other.history[0]["loss"] != first.history[0]["loss"]


def test_seeds_one_after_the_other_give_what_each_gives_alone(toy: Toy) -> None:
    """A program that is shared keeps nothing of the seed before."""
    config = dataclasses.replace(SEQUENTIAL, max_epochs=2, seed=5)
    alone = fit(*toy, config)
    fit(*toy, dataclasses.replace(config, seed=6))
    assert_same_tree(fit(*toy, config).params, alone.params)


def test_nothing_is_held_of_an_epoch_that_is_over() -> None:
    """Between epochs there are parameters, Adam's two moments and the best parameters, no state before."""
    toy, held = toy_task("neumf", PAIRS), list[int]()

    def user_embeddings() -> int:
        return sum(array.shape == (32, 16) and array.dtype == jnp.float32 for array in jax.live_arrays())

    before = user_embeddings()
    fit(*toy, PAIRS, on_epoch=lambda entry: held.append(user_embeddings() - before))
    assert 3 <= min(held[1:]) <= max(held[1:]) <= 4


def test_steps_per_dispatch_is_only_about_speed(toy: Toy, trained: FitResult) -> None:
    """One step at a time against four."""
    config = dataclasses.replace(SEQUENTIAL, steps_per_dispatch=1, max_epochs=2)
    assert toy_task("sasrec", config)[0].steps == toy[0].steps
    losses = [entry["loss"] for entry in fit(*toy, config).history]
    np.testing.assert_allclose(losses, [entry["loss"] for entry in trained.history[:2]], rtol=1e-5)


def test_a_stopped_run_goes_on_to_the_same_numbers(toy: Toy, trained: FitResult, tmp_path: Path) -> None:
    """Stopped twice, with dropout and shuffling on: history and parameters agree to the last bit."""
    config = dataclasses.replace(SEQUENTIAL, checkpoint_seconds=0.0)
    told: list[int] = []
    for epoch in (2, 4):
        with pytest.raises(Stopped):
            fit(*toy, config, tmp_path, on_epoch=stop_after(epoch))
    resumed = fit(*toy, config, tmp_path, on_epoch=lambda entry: told.append(int(entry["epoch"])))
    assert told == [4, 5], "it began anew, or lost more than the epoch that was not saved"
    assert without_seconds(resumed.history) == without_seconds(trained.history)
    assert resumed.best_epoch == trained.best_epoch
    assert_same_tree(resumed.params, trained.params)
    finished = fit(*toy, config, tmp_path, on_epoch=stop_after(1))
    assert finished.history == resumed.history
    assert_same_tree(finished.params, resumed.params)


# --- stopping early ------------------------------------------------------------------------------

SLOPE = TrainConfig(learning_rate=0.5, max_epochs=50, steps_per_dispatch=4, checkpoint_seconds=0.0)


@pytest.mark.parametrize(
    ("values", "patience", "eval_every", "max_epochs", "epochs", "best_epoch"),
    [
        ([0.5, 0.4], 1, 1, 50, 2, 1),
        ([0.5, 0.5, 0.5], 2, 1, 50, 3, 1),
        ([0.1, 0.5, 0.4, 0.45], 2, 2, 50, 8, 4),
        ([0.1, 0.2, 0.15, 0.3, 0.2, 0.1], 2, 1, 50, 6, 4),
        ([0.1, 0.2, 0.3], 9, 2, 5, 5, 5),
        ([0.0], 1, 7, 3, 3, 3),
    ],
)
def test_early_stopping(
    values: list[float], patience: int, eval_every: int, max_epochs: int, epochs: int, best_epoch: int
) -> None:
    """`patience` validations without a better one end the run; the last epoch is always validated."""
    config = dataclasses.replace(SLOPE, patience=patience, eval_every=eval_every, max_epochs=max_epochs)
    evaluator = Scripted(values)
    result = fit(slope_task(), evaluator, config)
    assert (len(result.history), result.best_epoch) == (epochs, best_epoch)
    validated = [int(entry["epoch"]) for entry in result.history if "ndcg@10" in entry]
    assert validated == [e for e in range(1, epochs + 1) if e % eval_every == 0 or e == max_epochs]
    # The parameters returned are those that the best validation saw, not the last ones.
    assert float(result.params["params"]["height"]) == evaluator.seen[int(np.argmax(values))]


def test_a_resumed_run_remembers_the_best_and_how_long_it_has_waited(tmp_path: Path) -> None:
    config = dataclasses.replace(SLOPE, patience=3)
    before = Scripted([0.2, 0.6, 0.5, 0.4])
    with pytest.raises(Stopped):
        fit(slope_task(), before, config, tmp_path, on_epoch=stop_after(4))
    result = fit(slope_task(), Scripted([0.4, 0.3]), config, tmp_path)
    assert [entry["ndcg@10"] for entry in result.history] == [0.2, 0.6, 0.5, 0.4, 0.3]
    assert result.best_epoch == 2
    assert float(result.params["params"]["height"]) == before.seen[1]


# --- faults --------------------------------------------------------------------------------------


class Cliff(nn.Module):
    """Below 0, after two steps, the gradient is infinity times zero, while the loss is still a number."""

    @property
    def trained(self) -> nn.Module:
        """What a step trains: the model itself."""
        return self

    def setup(self) -> None:
        self.height = self.param("height", nn.initializers.constant(1.5), ())

    def loss(self, tables: Tables, batch: jax.Array) -> jax.Array:
        del tables, batch
        return jnp.sqrt(jnp.maximum(self.height, 0.0)) + self.height


def test_a_gradient_that_is_not_finite_is_named_with_its_step() -> None:
    """It is the loss of the step after it that is not finite."""
    config = dataclasses.replace(SLOPE, learning_rate=1.0)
    with pytest.raises(RelandError, match=r"stopped at step 2: the gradient of params/height is not finite"):
        fit(slope_task()._replace(model=Cliff()), Scripted([0.0]), config)


def test_a_parameter_that_is_not_finite_is_named_with_its_step() -> None:
    config = dataclasses.replace(SLOPE, learning_rate=3e38)
    with pytest.raises(RelandError, match=r"stopped at step 2: parameter params/height is not finite"):
        fit(slope_task(), Scripted([0.0]), config)


def test_nan_in_the_item_texts_is_named() -> None:
    """One text dimension of zero variance, standardised by its deviation, would do this."""
    text = np.ones((13, 3), np.float32)
    text[:, 1] = np.nan
    toy = toy_task("lightgcn", PAIRS, "f_item", Tables(item_text=jnp.asarray(text)))
    with pytest.raises(RelandError, match=r"stopped at step 0: input table item_text is not finite"):
        fit(*toy, PAIRS)


def test_a_fault_long_after_a_checkpoint_is_found_again(tmp_path: Path) -> None:
    """Training is repeated from the checkpoint up to the step that failed, here of the third epoch."""
    config = dataclasses.replace(SLOPE, learning_rate=0.2, checkpoint_seconds=0.0)
    with pytest.raises(RelandError, match="stopped at step 8: the gradient of params/height is not finite"):
        fit(slope_task()._replace(model=Cliff()), Scripted([0.0] * 9), config)
    with pytest.raises(RelandError, match="stopped at step 8: the gradient of params/height is not finite"):
        fit(slope_task()._replace(model=Cliff()), Scripted([0.0] * 9), config, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["2"]


def test_a_learning_rate_that_explodes_stops_with_its_step() -> None:
    config = dataclasses.replace(PAIRS, learning_rate=1e30)
    with pytest.raises(RelandError, match=r"stopped at step 1: the loss is \S+, of finite parameters"):
        fit(*toy_task("lightgcn", config), config)


def test_a_validation_that_cannot_be_ranked_names_its_step() -> None:
    """A single step an epoch: its loss was finite, and it is the scores after it that overflow."""
    config = dataclasses.replace(PAIRS, learning_rate=1e30, batch_size=1000)
    with pytest.raises(RelandError, match=r"validation after step 1: user vector \d+ .*overflow"):
        fit(*toy_task("lightgcn", config), config)


# --- the evaluator -------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask_history", "expected"), [(False, [3, 0]), (True, [1, 0])])
def test_the_evaluator_ranks_and_masks(mask_history: bool, expected: list[int]) -> None:
    """Items score by their number. In "test" the validation items belong to the history too."""
    splits = Splits(ragged([[5, 4], [1]]), ragged([[2], [5]]), ragged([[3], [4]]), 5, "leave_one_out")
    scores = jnp.arange(6.0)[:, None]
    task = slope_task()._replace(vectors=lambda params, part: scored(jnp.ones((2, 1)), scores))
    evaluator = Evaluator(task, splits, EvalConfig(mask_history=mask_history, cutoffs=(1, 10)))
    assert evaluator.ranks(None, "valid").rank.tolist() == expected
    # User 0 has seen 5, 4 and 2, user 1 has seen 1 and 5: what remains above 3 and above 4 is nothing.
    assert evaluator.ranks(None, "test").rank.tolist() == ([0, 0] if mask_history else [2, 1])
    assert evaluator.metrics(None, "valid")["hr@1"] == 0.5
