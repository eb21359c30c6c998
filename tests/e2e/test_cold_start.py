"""The cold-start experiment, and what the pipeline makes of users without training items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cold_start import ColdStart, ColdUsers, Setup, hold_out, judge, plan, run, table
from reland_jax import pipeline as stages
from reland_jax.artefacts import write_json
from reland_jax.config import Config
from reland_jax.eval import per_user_metrics
from reland_jax.storage import Inputs
from reland_jax.types import Interactions, RelandError, TargetRanks
from tests.e2e.conftest import merged
from tests.toys import planted_splits

SETUP = Setup(neighbours=(1, 3), share=0.2, draws=2, seed=0)


@pytest.fixture
def config(settings: Callable[..., dict[str, Any]]) -> Config:
    """LightGCN on the small demo, under the ratio split."""
    values = plan("demo", ["lightgcn"], ["train.max_epochs=2"], SETUP)["lightgcn"].to_dict()
    return Config.from_dict(merged(values, settings(train={"max_epochs": 2})))


@pytest.fixture
def with_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the demo's users a profile of two fields."""
    load = stages.load_interactions

    def loaded(*arguments: Any) -> Interactions:
        found = load(*arguments)
        user = np.arange(found.num_users)
        fields = {"sign": (user % 3).astype(str), "half": (user < 30).astype(str)}
        return found._replace(user_features=fields)

    monkeypatch.setattr(stages, "load_interactions", loaded)


def by_hand(inputs: Inputs, scores: np.ndarray, users: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of `users` when items are ranked by their scores, ties losing."""
    owner = np.repeat(users, inputs.splits.test.lengths()[users])
    item = np.concatenate([inputs.splits.test.row(user) for user in users])
    rank = [(scores[1:] >= scores[target]).sum() - 1 for target in item]
    return per_user_metrics(TargetRanks(owner, item, np.array(rank)), (10,))


@pytest.mark.usefixtures("with_profiles")
def test_a_cold_user_ranks_by_the_seed_users_of_its_profile(config: Config, tmp_path: Path) -> None:
    pipeline = ColdStart(config, tmp_path, SETUP)
    inputs = pipeline.prepare()
    splits, seeds = inputs.splits, inputs.built.pool.seeds.user
    cold = np.flatnonzero(splits.train.lengths() == 0)
    assert len(cold) == 12 and not splits.valid.lengths()[cold].any() and splits.test.lengths()[cold].all()
    assert not np.isin(seeds, cold).any()
    np.testing.assert_array_equal(np.flatnonzero(inputs.clusters < 0), cold)
    nearest, cosine = inputs.assignment.seed[cold, :3], inputs.assignment.cosine[cold, :3]
    equal = (seeds[nearest] % 3 == cold[:, None] % 3) * 1 + ((seeds[nearest] < 30) == (cold[:, None] < 30))
    np.testing.assert_allclose(cosine, equal / 2, atol=1e-6)

    task = pipeline.task(inputs, "reland")
    params = pipeline.train(inputs, "reland", 0).params
    users = np.asarray(task.vectors(params, "test").users)
    own = task.model.apply(params, task.tables, method="user_vectors")
    warm = np.setdiff1d(np.arange(60), cold)
    stands_for = np.array([(inputs.assignment.seed[warm, 0] == row).sum() for row in range(len(seeds))])
    weight = np.where(cosine.any(1, keepdims=True), cosine, 1.0) * stands_for[nearest]
    weight /= weight.sum(1, keepdims=True)
    expected = np.einsum("ck,ckd->cd", weight, own[seeds[nearest]])
    np.testing.assert_allclose(users[cold], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(users[warm], own[warm], rtol=1e-6, atol=1e-7)

    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)
    found = ColdUsers(inputs, config, SETUP)
    assert found.has_profiles and found.chooses.sum() == 6
    np.testing.assert_array_equal(found.user, cold)
    for metric, values in found.popularity().items():
        np.testing.assert_array_equal(values, by_hand(inputs, counts, cold)[metric])
    for position, user in enumerate(cold.tolist()):
        same = [u for u in range(60) if u % 3 == user % 3 and (u < 30) == (user < 30)]
        own_counts = sum(np.bincount(splits.train.row(u), minlength=len(counts)) for u in same)
        expected = by_hand(inputs, own_counts + counts / (counts.sum() + 1), np.array([user]))
        for metric, values in found.profile_popularity().items():
            assert values[position] == pytest.approx(expected[metric][0])


def test_the_experiment_on_the_demo(config: Config, tmp_path: Path) -> None:
    """Without profiles; a second run reads everything back and finds the same."""
    found = run({"lightgcn": config}, ["f_item", "reland"], SETUP, tmp_path)
    names = ["popularity"]
    for variant in ("f_item", "reland"):
        names += [f"lightgcn {variant}", f"lightgcn {variant} random"]
    assert list(found["methods"]) == names
    assert (found["choosing"], found["reported"], found["profiles"]) == (6, 6, 1)
    assert len(found["comparisons"]) == 2 * (2 + 2 + 1)
    again = run({"lightgcn": config}, ["f_item", "reland"], SETUP, tmp_path)
    assert again["methods"] == found["methods"]
    write_json(tmp_path / "out.json", found)
    assert json.loads((tmp_path / "out.json").read_text())["methods"]["popularity"]["k"] == 0
    assert all(name in table(found) for name in names)


def test_hold_out_takes_everything_but_the_targets() -> None:
    splits = planted_splits()
    found = hold_out(splits, 0.25, seed=3)
    cold = found.train.lengths() == 0
    assert cold.sum() == 8
    np.testing.assert_array_equal(found.test.items, splits.test.items)
    for user in range(splits.num_users):
        for part in ("train", "valid"):
            expected = [] if cold[user] else getattr(splits, part).row(user)
            np.testing.assert_array_equal(getattr(found, part).row(user), expected)
    assert (hold_out(splits, 0.25, seed=4).train.lengths() == 0).tolist() != cold.tolist()
    with pytest.raises(RelandError, match="--share=0.1 of 32 users holds out 3"):
        hold_out(splits, 0.1, seed=0)


def test_k_is_chosen_by_one_half_and_reported_on_the_other() -> None:
    """k = 5 is better for those who choose and worse for the others."""
    chooses = np.array([True, False] * 10)
    high, low = np.linspace(0.5, 0.9, 20), np.linspace(0.1, 0.2, 20)

    def both(values: np.ndarray) -> dict[str, np.ndarray]:
        return {"hr@10": values, "ndcg@10": values}

    rows = {
        "popularity": {0: both(np.full(20, 0.3))},
        "b f_item": {1: both(np.where(chooses, low, high)), 5: both(np.where(chooses, high, low))},
        "b f_item random": {1: both(np.zeros(20)), 5: both(np.full(20, 0.01))},
    }
    found = judge(rows, chooses)
    assert [found["methods"][name]["k"] for name in rows] == [0, 5, 5]
    assert found["methods"]["b f_item"]["reported"]["hr@10"] == pytest.approx(low[~chooses].mean())
    assert found["methods"]["b f_item"]["choosing"][1]["hr@10"] == pytest.approx(low[chooses].mean())
    first = found["comparisons"][0]
    assert (first["ours"], first["baseline"], first["metric"]) == ("b f_item", "popularity", "hr@10")
    assert first["difference"] == pytest.approx(low[~chooses].mean() - 0.3)
    assert all(each["p_holm"] >= each["p_value"] for each in found["comparisons"])
