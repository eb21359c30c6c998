"""Invented results of a run, and a report made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from reland_jax.config import Config
from reland_jax.eval import HeldOut
from reland_jax.eval.significance import Corrected
from reland_jax.overview import DataSize, ExpectedBill, Level, ListFigures, Overview
from reland_jax.pool import Problem
from reland_jax.report import Case, GivenRationale, ItemLabel, ReportContent
from reland_jax.results import AllPerSeed, PoolFigures, RunResults, VariantResults
from reland_jax.types import Assignment, SeedSet

HOSTILE = "<script>alert('x')</script> & \"co\""

_TEST = {
    "id": {"ndcg@10": 0.0420, "hr@10": 0.0840, "mrr@10": 0.0301},
    "f_item": {"ndcg@10": 0.0431, "hr@10": 0.0835, "mrr@10": 0.0309},
    "reland": {"ndcg@10": 0.0462, "hr@10": 0.0882, "mrr@10": 0.0330},
}


def variant_results(
    test: dict[str, float], history: Sequence[Mapping[str, float]] = (), seeds: Sequence[float] = (0.0,)
) -> VariantResults:
    """Figures of a variant; `seeds` are what test metrics of each training seed differ from the mean by."""
    valid = {metric: value + 0.008 for metric, value in test.items()}
    scores = [
        {name: [value + shift for shift in seeds] for name, value in part.items()} for part in (valid, test)
    ]
    speeds = [[8.25] * len(seeds)] * 4
    per_seed = AllPerSeed(*scores, [30] * len(seeds), [20] * len(seeds), *speeds)
    return VariantResults(valid, test, 30, 20, "shifted", 8.25, 1.0, 100.0, 0.5, history, per_seed, 0, 0, 0)


def _variant(name: str, rng: np.random.Generator) -> VariantResults:
    curve = 0.05 * (1 - np.exp(-np.arange(1, 31) / 8)) + 0.0005 * rng.standard_normal(30)
    history = [
        {"epoch": epoch, "loss": 9.0 / epoch, "ndcg@10": float(score)}
        for epoch, score in enumerate(curve, start=1)
    ]
    return variant_results(_TEST[name], history, (-0.001, 0.0, 0.001))


SURE = Corrected(0.0462, 0.0420, 0.0042, 0.1, 0.00001, 0.0021, 0.0063, p_holm=0.0002)
UNSURE = Corrected(0.0431, 0.0420, 0.0011, 0.026, 0.04, -0.0001, 0.0023, p_holm=0.08)
_COUNTS = HeldOut(users=1200, users_without=34, targets=1500, repeated=2, had_before=7, short_lists={})


OVERVIEW = Overview(
    DataSize(2000, 5000, 21_000, 17_000),
    {"ndcg@10": 0.0123, "hr@10": 0.0234, "mrr@10": 0.0111},
    [
        Level("L1", 900, (3, 4), {"id": 0.04, "f_item": 0.041, "reland": 0.05}, {"reland>id": 0.25}),
        Level("L2", 0, None, {"id": None, "f_item": None, "reland": None}, {"reland>id": None}),
    ],
    {"id": ListFigures(1000, 0.125, 6.5)},
    None,
)
BILL = ExpectedBill("gpt-3.5-turbo", 200, 100_000, 80_000, 0.17, "USD")


def _results() -> RunResults:
    rng = np.random.default_rng(0)
    return RunResults(
        dataset="amazon-beauty",
        backbone="sasrec",
        protocol="leave_one_out",
        training_seeds=(0, 1, 2),
        held_out={"valid": _COUNTS, "test": _COUNTS._replace(had_before=0)},
        notes=(),
        variants={name: _variant(name, rng) for name in ("id", "f_item", "reland")},
        significance={"reland>id": {"ndcg@10": SURE, "hr@10": UNSURE}, "f_item>id": {"ndcg@10": UNSURE}},
        data=None,
        pool=PoolFigures(
            seeds=200, how={"representative": 100, "important": 100}, llm_inferences=200,
            prompt_tokens=100_000, response_tokens=20_000, tokens_known=True, models={"some-llm-1": 200},
            provider="file", remarks=0, ledger={}, rationales_each=1, rationales_in_use=200,
        ),
        stage_seconds={"load": 1.5, "assign": 200.0},
        environment={"jax": "0.10.2", "device": "cpu", "packages": {"numpy": "2.0"}},
        overview=OVERVIEW,
        about={"command": "python -m experiments.run --workdir=x", "finished": "today", "commit": "abc"},
    )  # fmt: skip


def _case(user_id: str, seed_user_id: str) -> Case:
    names = [ItemLabel(f"B{number:04d}", f"Item number {number}") for number in range(40)]
    target = ItemLabel("B0099", HOSTILE)
    return Case(
        user_id=user_id,
        history=names[:14],
        held_for_validation=1,
        was_read="The model read " + HOSTILE,
        rationales=[
            GivenRationale(seed_user_id, 0.874, "Prefers gentle products " + HOSTILE, "Recommended: A; B."),
            GivenRationale("user-11", 0.5, "Another taste.", "Recommended: C."),
        ],
        recommendations={
            "id": names[20:25],
            "f_item": [*names[20:23], ItemLabel("B0100", HOSTILE)],
            "reland": [names[30], target, names[31]],
        },
        targets=[target],
    )


@pytest.fixture(scope="session")
def sample() -> ReportContent:
    """A report of 2,000 users, 200 of them seeds, with hostile texts in every place people fill in."""
    rng = np.random.default_rng(1)
    users = rng.permutation(2000)[:200].astype(np.int32)
    cosine = np.clip(rng.normal(0.8, 0.1, (2000, 1)), -1, 1).astype(np.float32)
    cosine[users] = 1.0
    seed = rng.integers(200, size=(2000, 1), dtype=np.int32)
    seed[users, 0] = np.arange(200)
    return ReportContent(
        results=_results(),
        config=Config().to_dict(),
        masked=False,
        activity=3 + rng.geometric(0.2, 2000),
        seeds=SeedSet(users, rng.integers(100, size=200, dtype=np.int32), np.arange(200, dtype=np.int8) % 2),
        cluster_sizes=rng.multinomial(2000, np.full(100, 0.01)),
        assignment=Assignment(seed, cosine),
        cases=[_case("user-7", "user-9"), _case(HOSTILE, HOSTILE)],
        problems=[Problem("user-3", "step 2 is missing: " + HOSTILE)],
        data=[("rows read", "10,000"), (f"column of the {HOSTILE}", HOSTILE)],
    )


@pytest.fixture
def results(sample: ReportContent) -> RunResults:
    """Beauty with SASRec, all three variants, every optional part present."""
    return sample.results


@pytest.fixture
def heuristic_results(results: RunResults) -> RunResults:
    """The same run with one seed and rationales of the offline heuristic, and nothing compared."""
    pool = replace(
        results.pool, provider="heuristic", models={"heuristic": 200}, llm_inferences=0, tokens_known=False
    )
    variants = {name: variant_results(test) for name, test in _TEST.items()}
    expected = replace(results.overview, expected=BILL)
    return replace(results, pool=pool, significance={}, variants=variants, overview=expected)
