"""The main job on the demo data, from nothing to results.json and report.html, with every backbone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import run as main_job
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.models import bipartite_graph
from reland_jax.stages import FLOW, ITEMS, SPLIT, lists_to_show, trained_recommender, training, users_to_show
from reland_jax.storage import Lists
from reland_jax.types import Ragged, Splits
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished

METRICS = {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (5, 10, 20)}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gru4rec", "neumf", "ngcf", "duorec", "gat")]
BACKBONES = pytest.mark.parametrize("backbone", ["lightgcn", "sasrec", *SLOW])
Finish = Callable[[str], Finished]


@BACKBONES
def test_results_have_the_documented_form(finished: Finish, backbone: str) -> None:
    run = finished(backbone)
    results = json.loads((run.workdir / "results.json").read_text())
    assert results == json.loads(json.dumps(run.results))
    assert (results["dataset"], results["backbone"]) == ("demo", backbone)
    assert set(results["variants"]) == set(VARIANTS)
    for variant in results["variants"].values():
        for part in ("valid", "test"):
            check_metrics(variant[part])
        assert variant["epochs"] == len(variant["history"]) == 3 and 1 <= variant["best_epoch"] <= 3
        best = max(entry["ndcg@10"] for entry in variant["history"] if "ndcg@10" in entry)
        assert variant["valid"]["ndcg@10"] == pytest.approx(best, abs=1e-9), "not the best validation's"
        for name in ("seconds_per_epoch", "compile_seconds", "examples_per_second", "evaluation_seconds"):
            assert variant[name] > 0
        assert variant["objective"] == run.config.train.objective
        assert variant["per_seed"]["test"]["ndcg@10"] == [variant["test"]["ndcg@10"]]
    assert Config.from_dict(results["environment"]["config"]) == run.config
    assert results["environment"]["jax"] == jax.__version__
    told = results["data"]
    assert told["rows"] - sum(count for _, count in told["dropped"]) == told["left"] > told["users"]
    page = (run.workdir / "report.html").read_text()
    assert "rows read" in page and f"{told['rows']:,}" in page
    assert set(results["significance"]) == {"reland>id", "reland>f_item", "f_item>id"}


def check_metrics(metrics: dict[str, float]) -> None:
    """All are there, in [0, 1], and what must not be smaller is not."""
    assert set(metrics) == METRICS
    assert all(0 <= value <= 1 for value in metrics.values())
    for name in ("hr", "ndcg", "mrr"):
        assert metrics[f"{name}@5"] <= metrics[f"{name}@10"] <= metrics[f"{name}@20"]
    for k in (5, 10, 20):
        assert metrics[f"mrr@{k}"] <= metrics[f"ndcg@{k}"] <= metrics[f"hr@{k}"]


@BACKBONES
def test_the_pool_is_called_heuristic_and_not_an_llm(finished: Finish, backbone: str) -> None:
    run = finished(backbone)
    pool = run.results["pool"]
    assert pool["provider"] == "heuristic"
    assert "heuristic" in json.dumps({name: value for name, value in pool.items() if name != "provider"})
    page = (run.workdir / "report.html").read_text(encoding="utf-8")
    assert "heuristic" in page
    assert all(variant in page for variant in VARIANTS)
    assert 'src="http' not in page and "<link" not in page, "the page must be self-contained"
    assert sorted(path.name for path in (run.workdir / "tensorboard").iterdir()) == sorted(
        f"train-{variant}-seed0" for variant in VARIANTS
    )


def own_ranks(user_vectors: np.ndarray, item_vectors: np.ndarray, splits: Splits) -> np.ndarray:
    """Rank of every test target with the history masked, one user at a time."""
    ranks = []
    for user in range(splits.num_users):
        scores = user_vectors[user] @ item_vectors.T
        scores[[0, *splits.train.row(user), *splits.valid.row(user)]] = -np.inf
        ranks += [int((scores > scores[target]).sum()) for target in splits.test.row(user)]
    return np.array(ranks)


def dense_hop(train: Ragged, num_items: int) -> np.ndarray:
    """The normalised adjacency as a matrix."""
    graph = bipartite_graph(train, num_items)
    adjacency = np.zeros((int(graph.n_node[0]),) * 2)
    np.add.at(adjacency, (graph.receivers, graph.senders), 1.0)
    scale = 1 / np.sqrt(np.maximum(adjacency.sum(1), 1))
    return scale[:, None] * adjacency * scale


def test_the_numbers_are_those_of_the_stored_parameters(finished: Finish) -> None:
    """LightGCN `f_item`, from its parameters to HR@10 and MRR@20 again, by dense algebra in numpy."""
    run = finished("lightgcn")
    made = flow.run(FLOW, run.config, run.workdir)
    trained, splits = made.make(training(made, "f_item", 0)), made[SPLIT]
    _, params = trained_recommender(made, "f_item", 0)
    p = jax.tree.map(np.asarray, params["params"])
    items = p["items"]["id_embedding"] @ p["items"]["from_id"]["kernel"] + p["items"]["from_id"]["bias"]
    items = items + made[ITEMS] @ p["items"]["from_text"]["kernel"]
    items[0] = 0.0
    nodes = np.concatenate([p["user_embedding"], items])
    nodes = (nodes + dense_hop(splits.train, splits.num_items) @ nodes) / 2
    ranks = own_ranks(nodes[: splits.num_users], nodes[splits.num_users :], splits)
    np.testing.assert_array_equal(trained.ranks["test"].rank, ranks)
    owner = np.repeat(np.arange(splits.num_users), splits.test.lengths())
    first = np.array([ranks[owner == user].min() for user in np.unique(owner)])
    reported = run.results["variants"]["f_item"]["test"]
    assert reported["hr@10"] == pytest.approx((first < 10).mean())
    assert reported["mrr@20"] == pytest.approx(np.where(first < 20, 1 / (first + 1), 0).mean())


def forbid(*arguments: Any, **named: Any) -> None:
    raise AssertionError("computed again")


def test_a_second_run_computes_nothing(finished: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished("lightgcn")
    # A finished training is read back without its recommender and its data on the devices.
    monkeypatch.setattr("reland_jax.stages.train.create_task", forbid)
    forbidden = {stage.name: dataclasses.replace(stage, run=forbid) for stage in FLOW.stages}
    made = flow.run(FLOW, run.config, run.workdir, replace=forbidden)
    trainings = [training(made, variant, 0) for variant in VARIANTS]
    for variant, stage in zip(VARIANTS, trainings, strict=True):
        assert made.make(stage).summary.test == run.results["variants"][variant]["test"]
    stages = [stage for stage in (*FLOW.stages, *trainings) if stage.wanted(run.config)]
    assert set(made.seconds) == {stage.name for stage in stages}


def test_the_report_of_a_finished_run_encodes_nobody(
    finished: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless other users are to be shown since; and then their lists are what they would have been."""
    run = finished("lightgcn")
    made = flow.run(FLOW, run.config, run.workdir)
    trained = made.make(training(made, "reland", 0))
    users = users_to_show(made)
    anew = lists_to_show(made, trained._replace(lists=Lists()), "reland", 0, users)
    others = lists_to_show(made, trained, "reland", 0, np.arange(3))
    assert others.shape == anew[:3].shape and len(users) == 6
    monkeypatch.setattr("reland_jax.stages.train.create_task", forbid)
    np.testing.assert_array_equal(lists_to_show(made, trained, "reland", 0, users[::-1]), anew[::-1])
    page = (run.workdir / "report.html").read_bytes()
    assert main_job.run(run.config, run.workdir) == run.results
    assert (run.workdir / "report.html").read_bytes() == page


def test_variants_differ_and_nothing_is_left_aside(finished: Finish) -> None:
    run = finished("sasrec")
    losses = {v: run.results["variants"][v]["history"][-1]["loss"] for v in VARIANTS}
    assert len(set(losses.values())) == 3
    aside = [str(path) for path in Path(run.workdir).rglob("*tmp-*")]
    assert aside == []
