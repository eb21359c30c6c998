"""Invented results of a run, in the form of results.json, and a report made from them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from reland_jax.config import Config
from reland_jax.report import Case, ItemLabel, Problem, ReportContent
from reland_jax.types import Assignment, SeedSet

HOSTILE = "<script>alert('x')</script> & \"co\""

_TEST = {
    "id": {"ndcg@10": 0.0420, "hr@10": 0.0840, "mrr@10": 0.0301},
    "f_item": {"ndcg@10": 0.0431, "hr@10": 0.0835, "mrr@10": 0.0309},
    "reland": {"ndcg@10": 0.0462, "hr@10": 0.0882, "mrr@10": 0.0330},
}


def _variant(name: str, rng: np.random.Generator) -> dict[str, Any]:
    curve = 0.05 * (1 - np.exp(-np.arange(1, 31) / 8)) + 0.0005 * rng.standard_normal(30)
    return {
        "test": _TEST[name],
        "valid": {metric: value + 0.008 for metric, value in _TEST[name].items()},
        "epochs": 30,
        "best_epoch": 20,
        "seconds_per_epoch": 8.25,
        "history": [
            {"epoch": epoch, "loss": 9.0 / epoch, "ndcg@10": float(score)}
            for epoch, score in enumerate(curve, start=1)
        ],
        "per_seed": {"test": {"ndcg@10": [_TEST[name]["ndcg@10"] + shift for shift in (-0.001, 0.0, 0.001)]}},
    }


def _results() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    test = {"difference": 0.0042, "p_value": 0.00001, "p_holm": 0.0002, "low": 0.0021, "high": 0.0063}
    unsure = {"difference": 0.0011, "p_value": 0.04, "p_holm": 0.08, "low": -0.0001, "high": 0.0023}
    return {
        "dataset": "amazon-beauty",
        "backbone": "sasrec",
        "variants": {name: _variant(name, rng) for name in ("id", "f_item", "reland")},
        "pool": {
            "provider": "file",
            "seeds": 200,
            "llm_inferences": 200,
            "prompt_tokens": 100_000,
            "response_tokens": 20_000,
            "tokens_known": True,
            "models": ["some-llm-1"],
            "how": {"representative": 100, "important": 100},
        },
        "significance": {
            "reland>id": {"ndcg@10": test, "hr@10": unsure},
            "f_item>id": {"ndcg@10": unsure},
        },
        "environment": {"jax": "0.10.2", "device": "cpu", "packages": {"numpy": "2.0"}},
    }


def _case(user_id: str, seed_user_id: str) -> Case:
    names = [ItemLabel(f"B{number:04d}", f"Item number {number}") for number in range(40)]
    target = ItemLabel("B0099", HOSTILE)
    return Case(
        user_id=user_id,
        history=names[:14],
        seed_user_id=seed_user_id,
        cosine=0.874,
        step1="Prefers gentle products " + HOSTILE,
        step2="Recommended categories: A; B.",
        recommendations={
            "id": names[20:25],
            "f_item": [*names[20:23], ItemLabel("B0100", HOSTILE)],
            "reland": [names[30], target, names[31]],
        },
        targets=[target],
    )


@pytest.fixture(scope="session")
def sample() -> ReportContent:
    """A report of 2,000 users, 200 of them seeds, with hostile texts in every place people fill in.

    It is shared between tests: those that change something take `content` or `results`.
    """
    rng = np.random.default_rng(1)
    users = rng.permutation(2000)[:200].astype(np.int32)
    cosine = np.clip(rng.normal(0.8, 0.1, (2000, 1)), -1, 1).astype(np.float32)
    cosine[users] = 1.0
    seed = rng.integers(200, size=(2000, 1), dtype=np.int32)
    seed[users, 0] = np.arange(200)
    return ReportContent(
        results=_results(),
        config=Config().to_dict(),
        activity=3 + rng.geometric(0.2, 2000),
        seeds=SeedSet(users, rng.integers(100, size=200, dtype=np.int32), np.arange(200, dtype=np.int8) % 2),
        cluster_sizes=rng.multinomial(2000, np.full(100, 0.01)),
        assignment=Assignment(seed, cosine),
        cases=[_case("user-7", "user-9"), _case(HOSTILE, HOSTILE)],
        problems=[Problem("user-3", "step 2 is missing", "Step 1: " + HOSTILE)],
        data=[("rows read", "10,000"), (f"column of the {HOSTILE}", HOSTILE)],
    )


@pytest.fixture
def results(sample: ReportContent) -> dict[str, Any]:
    """Beauty with SASRec, all three variants, every optional part present."""
    return copy.deepcopy(dict(sample.results))


@pytest.fixture
def content(sample: ReportContent, results: dict[str, Any]) -> ReportContent:
    """The sample with results that a test may change."""
    return sample._replace(results=results)


@pytest.fixture
def heuristic_results(results: dict[str, Any]) -> dict[str, Any]:
    """The same run with rationales of the offline heuristic and without the optional parts."""
    plain = copy.deepcopy(results)
    nothing_asked = {"llm_inferences": 0, "tokens_known": False}
    plain["pool"] = {"provider": "heuristic", "models": ["heuristic"], "seeds": 200, **nothing_asked}
    del plain["significance"]
    for one in plain["variants"].values():
        del one["per_seed"]
    return plain
