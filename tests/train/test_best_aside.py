"""The best parameters of a training, kept in the memory of the host so that a step has that of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from reland_jax.config import MeshConfig
from reland_jax.device import sizes, use_sizes
from reland_jax.mesh import use_mesh
from reland_jax.train import fit, fit_together, loop
from reland_jax.train.checkpoint import TrainingCheckpoint
from tests.train.test_loop import SLOPE, Stopped, stop_after
from tests.train.toys import Scripted, assert_same_tree, slope_task

VALUES = [0.1, 0.3, 0.5, 0.2, 0.4, 0.1]
CONFIG = dataclasses.replace(SLOPE, patience=10, max_epochs=len(VALUES), checkpoint_seconds=0.0)


@pytest.fixture
def aside() -> Iterator[None]:
    with use_sizes(dataclasses.replace(sizes(), best_kept_in="pinned_host")):
        yield


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Where the parameters and the best of them are after every epoch."""
    found, one_epoch = set[tuple[str, str]](), loop._one_epoch

    def watched(*arguments: object) -> TrainingCheckpoint:
        saved = one_epoch(*arguments)  # type: ignore[arg-type]
        kind = [
            {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}
            for tree in (saved.state, saved.best)
        ]
        found.add((*kind[0], *kind[1]))
        return saved

    monkeypatch.setattr(loop, "_one_epoch", watched)
    return found


def test_the_best_is_aside_and_comes_back(aside: None, kinds: set[tuple[str, str]]) -> None:
    evaluator = Scripted(VALUES)
    result = fit(slope_task(), evaluator, CONFIG)
    assert kinds == {("device", "pinned_host")}
    assert result.best_epoch == 3
    height = result.params["params"]["height"]
    assert float(height) == evaluator.seen[2] != evaluator.seen[-1]
    assert height.sharding.memory_kind == "device"


def test_a_stopped_run_finds_its_best_again(aside: None, kinds: set[tuple[str, str]], tmp_path: Path) -> None:
    whole = fit(slope_task(), Scripted(VALUES), CONFIG)
    with pytest.raises(Stopped):
        fit(slope_task(), Scripted(VALUES), CONFIG, tmp_path, on_epoch=stop_after(4))
    resumed = fit(slope_task(), Scripted(VALUES[3:]), CONFIG, tmp_path)
    assert resumed.best_epoch == whole.best_epoch == 3
    assert_same_tree(resumed.params, whole.params)
    assert kinds == {("device", "pinned_host")}


def test_of_several_seeds_only_the_better_are_replaced(aside: None) -> None:
    """The values go to seeds 0 and 1 in turn: 0.1, 0.5, 0.4 and 0.3, 0.2, 0.1."""
    config = dataclasses.replace(CONFIG, max_epochs=3)
    evaluator = Scripted([0.1, 0.3, 0.5, 0.2, 0.4, 0.1])
    first, second = fit_together(slope_task(), evaluator, config, (0, 1))
    assert (first.best_epoch, second.best_epoch) == (2, 1)
    assert float(first.params["params"]["height"]) == evaluator.seen[2]
    assert float(second.params["params"]["height"]) == evaluator.seen[1]


def test_on_a_mesh_the_best_keeps_its_shards(aside: None, kinds: set[tuple[str, str]]) -> None:
    with use_mesh(MeshConfig(data=2, model=4)):
        result = fit(slope_task(), Scripted(VALUES), CONFIG)
    assert kinds == {("device", "pinned_host")}
    assert result.best_epoch == 3
