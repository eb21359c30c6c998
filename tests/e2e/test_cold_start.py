"""The cold-start experiment, and what the pipeline makes of users without training items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cold_start import (
    METRICS,
    TARGETS,
    ColdUsers,
    Setup,
    cold_targets,
    hold_out,
    judge,
    plan,
    prepare,
    run,
    table,
)
from reland_jax.config import Config
from reland_jax.data import split
from reland_jax.eval import per_user_metrics
from reland_jax.files import write_json
from reland_jax.stages import (
    ASSIGN,
    BUILD_POOL,
    LOAD,
    SAMPLE_SEEDS,
    SPLIT,
    load,
    trained_recommender,
    training,
)
from reland_jax.train import Task
from reland_jax.types import Interactions, Ragged, RelandError, TargetRanks
from tests.e2e.conftest import merged
from tests.toys import planted_splits

SETUP = Setup(mismatches=(0.1, 0.5), share=0.2, seed=0)


@pytest.fixture
def config(settings: Callable[..., dict[str, Any]]) -> Config:
    """LightGCN on the small demo, under the ratio split."""
    values = plan("demo", ["lightgcn"], ["train.max_epochs=2"])["lightgcn"].to_dict()
    return Config.from_dict(merged(values, settings(train={"max_epochs": 2})))


@pytest.fixture
def with_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the demo's users a profile of two fields."""
    read = load.load_interactions

    def loaded(*arguments: Any) -> Interactions:
        found = read(*arguments)
        user = np.arange(found.num_users)
        fields = {"sign": (user % 3).astype(str), "half": (user < 30).astype(str)}
        return found._replace(user_features=fields)

    monkeypatch.setattr(load, "load_interactions", loaded)


def by_hand(targets: Ragged, scores: np.ndarray, users: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of `users` when items are ranked by their scores, ties losing."""
    owner = np.repeat(users, targets.lengths()[users])
    item = np.concatenate([targets.row(user) for user in users])
    rank = [(scores[1:] >= scores[target]).sum() - 1 for target in item]
    return per_user_metrics(TargetRanks(owner, item, np.array(rank)), (10,))


def differ(one: int, other: int) -> int:
    """In how many fields of `with_profiles` two users differ."""
    return int(one % 3 != other % 3) + int((one < 30) != (other < 30))


@pytest.mark.usefixtures("with_profiles")
def test_a_cold_user_ranks_by_the_seed_users_of_those_who_are_like_it(config: Config, tmp_path: Path) -> None:
    made = prepare(config, tmp_path, SETUP)
    splits, seeds, nearest = made[SPLIT], made[BUILD_POOL].pool.seeds.user, made[ASSIGN]
    cold = np.flatnonzero(splits.train.lengths() == 0)
    warm = np.setdiff1d(np.arange(60), cold)
    assert len(cold) == 12 and not splits.valid.lengths()[cold].any() and splits.test.lengths()[cold].all()
    assert not np.isin(seeds, cold).any()
    np.testing.assert_array_equal(np.flatnonzero(made[SAMPLE_SEEDS]["cluster_of_user"] < 0), cold)

    made.make(training(made, "reland", 0))
    task, params = trained_recommender(made, "reland", 0)
    assert isinstance(task, Task)
    users = np.asarray(task.vectors(params, "test").users)
    own = task.model.apply(params, task.tables, method="user_vectors")
    source = seeds[nearest.seed[:, 0]]
    for user in cold.tolist():
        votes = np.array([0.1 ** differ(user, voter) for voter in warm])
        expected = votes @ own[source[warm]] / votes.sum()
        np.testing.assert_allclose(users[user], expected, rtol=1e-4, atol=1e-6)
        share = np.bincount(nearest.seed[warm, 0], votes, len(seeds)) / votes.sum()
        np.testing.assert_allclose(nearest.cosine[user, 0], share.max(), rtol=1e-5)
    np.testing.assert_allclose(users[warm], own[warm], rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("with_profiles")
def test_popularity_among_those_who_are_like_a_user(config: Config, tmp_path: Path) -> None:
    """With 1 it is that of everybody; the factors are powers of two, so that counts are exact."""
    made = prepare(config, tmp_path, SETUP)
    whole, train = split(made[LOAD], config.data.protocol), made[SPLIT].train
    found = ColdUsers(made, whole, SETUP)
    targets = cold_targets(whole, train.lengths() == 0)
    assert found.has_profiles and found.half.sum() == 6
    counts = [np.bincount(train.row(user), minlength=train.items.max() + 99) for user in range(60)]
    overall = np.sum(counts, axis=0)
    for mismatch in (0.0, 0.25, 1.0):
        metrics = found.profile_popularity(mismatch)
        for position, user in enumerate(found.user.tolist()):
            ours = sum(mismatch ** differ(user, voter) * counts[voter] for voter in range(60))
            for name, of_name in targets.items():
                expected = by_hand(of_name, ours + overall / 1e4, np.array([user]))
                for metric in METRICS:
                    assert metrics[f"{name} {metric}"][position] == pytest.approx(expected[metric][0])
    np.testing.assert_array_equal(found.popularity()["first ndcg@10"], metrics["first ndcg@10"])


@pytest.mark.usefixtures("with_profiles")
def test_the_experiment_on_the_demo(config: Config, tmp_path: Path) -> None:
    """A second run reads everything back and finds the same."""
    found = run({"lightgcn": config}, ["f_item", "reland"], SETUP, tmp_path)
    names = ["popularity", "profile popularity", "profile popularity smoothed"]
    for variant in ("f_item", "reland"):
        names += [f"lightgcn {variant}", f"lightgcn {variant} everybody"]
    assert list(found["methods"]) == names
    assert (found["cold_users"], found["profiles"]) == (12, 6)
    assert len(found["comparisons"]) == 2 * 2 * (2 * 4 + 1)
    again = run({"lightgcn": config}, ["f_item", "reland"], SETUP, tmp_path)
    assert again["methods"] == found["methods"]
    write_json(tmp_path / "out.json", found)
    assert json.loads((tmp_path / "out.json").read_text())["methods"]["popularity"]["mismatch"] == [1, 1]
    assert all(name in table(found) for name in names)


@pytest.mark.slow
def test_without_profiles_all_users_count_as_much(config: Config, tmp_path: Path) -> None:
    found = run({"lightgcn": config}, ["f_item"], SETUP, tmp_path)
    assert list(found["methods"]) == ["popularity", "lightgcn f_item"]
    assert found["methods"]["lightgcn f_item"]["mismatch"] == [1.0, 1.0]


def test_the_first_interactions_are_as_many_as_the_last() -> None:
    whole = planted_splits()
    cold = np.arange(whole.num_users) % 3 == 0
    found = cold_targets(whole, cold)
    for user in range(whole.num_users):
        every = [*whole.train.row(user), *whole.valid.row(user), *whole.test.row(user)] if cold[user] else []
        count = len(whole.test.row(user)) if cold[user] else 0
        assert found["all"].row(user).tolist() == every
        assert found["first"].row(user).tolist() == every[:count]
        assert found["last"].row(user).tolist() == every[len(every) - count :]


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


def test_each_half_chooses_for_the_other() -> None:
    """The even users are better off with 0.1 and the odd ones with 0.2, so all get what is worse for them."""
    half = np.arange(20) % 2 == 0
    high, low = np.linspace(0.5, 0.9, 20), np.linspace(0.1, 0.2, 20)

    def every(values: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{name} {metric}": values for name in TARGETS for metric in METRICS}

    rows = {
        "popularity": {1.0: every(np.full(20, 0.3))},
        "b f_item": {0.1: every(np.where(half, high, low)), 0.2: every(np.where(half, low, high))},
        "b f_item everybody": {1.0: every(np.full(20, 0.01))},
    }
    found = judge(rows, half)
    assert [found["methods"][name]["mismatch"] for name in rows] == [[1.0, 1.0], [0.2, 0.1], [1.0, 1.0]]
    assert found["methods"]["b f_item"]["first hr@10"] == pytest.approx(low.mean())
    tried = found["methods"]["b f_item"]["tried"]
    assert tried[0.1]["first hr@10"] == pytest.approx(np.where(half, high, low).mean())
    first = found["comparisons"][0]
    assert (first["ours"], first["baseline"], first["metric"]) == ("b f_item", "popularity", "first hr@10")
    assert first["difference"] == pytest.approx(low.mean() - 0.3)
    assert all(each["p_holm"] >= each["p_value"] for each in found["comparisons"])
    assert {each["metric"].split()[0] for each in found["comparisons"]} == {"first", "all"}


def test_no_backbone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="--backbones is empty"):
        run({}, ["reland"], SETUP, tmp_path)
