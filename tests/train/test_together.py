"""Several training seeds at once: the numbers of one after the other, each seed stopping by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import MeshConfig
from reland_jax.mesh import use_mesh
from reland_jax.models import Tables
from reland_jax.train import fit, fit_together
from reland_jax.train.state import init_state
from reland_jax.types import RelandError
from tests.train.test_loop import CHEAP, SLOPE, Stopped
from tests.train.test_sharding import in_use
from tests.train.toys import SEQUENTIAL, Scripted, assert_same_tree, slope_task, toy_task, without_seconds

SEEDS = (0, 1, 5)
EACH = {
    # A learning rate that no other test has: those that count compilations find nothing compiled here.
    backbone: dataclasses.replace(config, learning_rate=config.learning_rate * 1.02, max_epochs=3)
    for backbone, config in (CHEAP | {"lightgcn": CHEAP["ngcf"], "sasrec": SEQUENTIAL}).items()
}
SLOW = ("gat", "gat sampled", "lightgcn sampled", "duorec", "gru4rec", "neumf", "ngcf")


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in EACH]
)
def test_every_backbone_trains_together_to_the_numbers_of_one_after_the_other(backbone: str) -> None:
    """To the rounding of sums in another order; `in_use` leaves out what no score depends on."""
    config = EACH[backbone]
    toy = toy_task(backbone.split()[0], config, fanout=(2,) if "sampled" in backbone else ())
    together = fit_together(*toy, config, SEEDS)
    for seed, ours in zip(SEEDS, together, strict=True):
        alone = fit(*toy, dataclasses.replace(config, seed=seed))
        assert ours.best_epoch == alone.best_epoch
        for mine, its in zip(ours.history, alone.history, strict=True):
            assert mine.keys() == its.keys()
            assert mine["loss"] == pytest.approx(its["loss"], rel=1e-6)
            assert mine["ndcg@10"] == pytest.approx(its["ndcg@10"], abs=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
            in_use(ours.params), in_use(alone.params),
        )  # fmt: skip


def test_what_is_trained_beside_a_seed_does_not_matter() -> None:
    toy = toy_task("gru4rec", EACH["gru4rec"])
    first = fit_together(*toy, EACH["gru4rec"], (0, 1))[0]
    assert_same_tree(fit_together(*toy, EACH["gru4rec"], (7, 0))[1].params, first.params)


def test_a_group_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = dataclasses.replace(EACH["gru4rec"], checkpoint_seconds=0.0)
    toy = toy_task("gru4rec", config)

    def stop(seed: int, entry: dict[str, float]) -> None:
        if (seed, entry["epoch"]) == (1, 2):
            raise Stopped

    with pytest.raises(Stopped):
        fit_together(*toy, config, (0, 1), tmp_path, on_epoch=stop)
    told: list[tuple[int, int]] = []
    resumed = fit_together(
        *toy, config, (0, 1), tmp_path, on_epoch=lambda seed, entry: told.append((seed, int(entry["epoch"])))
    )
    assert told == [(0, 2), (1, 2), (0, 3), (1, 3)]
    for ours, whole in zip(resumed, fit_together(*toy, config, (0, 1)), strict=True):
        assert without_seconds(ours.history) == without_seconds(whole.history)
        assert_same_tree(ours.params, whole.params)
    with pytest.raises(RelandError, match="a run with other settings or data"):
        fit_together(*toy, config, (0, 2), tmp_path)


def test_each_seed_stops_by_its_own_validations(tmp_path: Path) -> None:
    """Seed 3 after two epochs, seed 4 after four, also when it was resumed in between."""
    config = dataclasses.replace(SLOPE, patience=1)
    values = [0.5, 0.1, 0.4, 0.2, 0.3, 0.25]
    evaluator = Scripted(values)
    first, second = fit_together(slope_task(), evaluator, config, (3, 4))
    assert [entry["ndcg@10"] for entry in first.history] == [0.5, 0.4]
    assert [entry["ndcg@10"] for entry in second.history] == [0.1, 0.2, 0.3, 0.25]
    assert (first.best_epoch, second.best_epoch) == (1, 3)
    assert float(first.params["params"]["height"]) == evaluator.seen[0]
    assert float(second.params["params"]["height"]) == evaluator.seen[4]

    def stop(seed: int, entry: dict[str, float]) -> None:
        if entry["epoch"] == 3:
            raise Stopped

    with pytest.raises(Stopped):
        fit_together(slope_task(), Scripted(values), config, (3, 4), tmp_path, on_epoch=stop)
    resumed = fit_together(slope_task(), Scripted(values[4:]), config, (3, 4), tmp_path)
    assert [each.best_epoch for each in resumed] == [1, 3]
    assert [len(each.history) for each in resumed] == [2, 4]
    assert_same_tree([each.params for each in resumed], [first.params, second.params])


class Fall(nn.Module):
    """Falls by the learning rate a step from a height that depends on the seed; no number below 0."""

    @property
    def trained(self) -> nn.Module:
        """What a step trains: the model itself."""
        return self

    def setup(self) -> None:
        self.height = self.param("height", nn.initializers.uniform(20.0), ())

    def loss(self, tables: Tables, batch: jax.Array) -> jax.Array:
        del tables, batch
        return jnp.sqrt(self.height) + self.height


def test_only_a_seed_that_has_not_stopped_can_fail() -> None:
    """Two units an epoch: `low` is below 0 in the third epoch, `high` not before the sixth."""
    task = slope_task()._replace(model=Fall())
    config = dataclasses.replace(SLOPE, patience=1, max_epochs=5)
    heights = init_state(task, config, range(40)).params["params"]["height"].tolist()
    low = next(seed for seed, height in enumerate(heights) if 4.2 < height < 5.8)
    high = next(seed for seed, height in enumerate(heights) if height > 12)
    stopped = Scripted([0.5, 0.1, 0.4, 0.2, 0.3, 0.4, 0.5])
    assert [each.best_epoch for each in fit_together(task, stopped, config, (low, high))] == [1, 5]
    rising = Scripted([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    with pytest.raises(RelandError, match=rf"training of seed {low} stopped at step \d+: the loss is nan"):
        fit_together(task, rising, config, (high, low))


def test_several_seeds_on_a_mesh_are_refused() -> None:
    toy = toy_task("gru4rec", EACH["gru4rec"])
    refused = pytest.raises(RelandError, match="config.train.together: .* set it to 1")
    with use_mesh(MeshConfig(data=2)), refused:
        fit_together(*toy, EACH["gru4rec"], (0, 1))
