"""Figure 6, Table 1 and the ledger, from figures made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.analysis.asking import ANSWER_TOKENS, would_ask
from experiments.analysis.cost import cost, ledger
from experiments.analysis.datasets import datasets
from experiments.analysis.findings import Verdict
from experiments.analysis.seed_numbers import seed_numbers
from experiments.grid.scores import GroupPool
from reland_jax.config import PoolConfig
from reland_jax.data import load_interactions, split
from reland_jax.pool.item_facts import fact_requests
from reland_jax.pool.prompting.requests import pool_requests
from reland_jax.pool.prompting.tokens import chat_tokens, token_counter
from reland_jax.presets import preset
from reland_jax.report.paper import SECONDS_PER_INFERENCE, TABLE_1, TABLE_3, DataFigures
from reland_jax.types import SeedSet


def curve(*gains: tuple[float, float, float, float]) -> dict[str, Any]:
    """A result of the command, of (share, low, gain, high)."""
    sizes = [
        {
            "fraction": share, "seeds": 3, "tokens": 1e6 * share, "price": None, "covered": 0.5,
            "valid": {"ndcg@10": {
                "values": [0.1 + gain], "mean_ours": 0.1 + gain, "difference": gain, "low": low, "high": high,
            }},
        }
        for share, low, gain, high in gains
    ]  # fmt: skip
    found = {"seeds": 1, "reference": "f_item", "f_item": {"valid": {"ndcg@10": [0.1]}}, "sizes": sizes}
    return {"data": "demo", "model": "m", "currency": "USD", "validation": found}


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([(0.01, 0, 0.01, 0.02), (0.1, 0.02, 0.03, 0.05), (1.0, 0.03, 0.04, 0.05)], ["holds", "holds"]),
        ([(0.01, 0, 0.01, 0.02), (0.1, 0, 0.01, 0.02), (1.0, 0.03, 0.04, 0.05)], ["holds", "does not hold"]),
        ([(0.01, 0, 0.01, 0.02), (0.1, 0, 0.01, 0.02), (1.0, 0.01, 0.02, 0.05)], ["does not hold", "holds"]),
        ([(0.01, 0, 0.01, 0.02), (0.1, 0.03, 0.04, 0.05)], ["holds", "not testable here"]),
    ],
)
def test_seed_numbers_are_judged_by_intervals(gains: Any, expected: list[str]) -> None:
    part = seed_numbers([curve(*gains)], {"beauty": "none is kept"})
    assert [one.verdict.value for one in part.findings] == [*expected, "not testable here"]
    assert part.findings[-1].why == "none is kept" and len(part.tables[0].rows) == len(gains)
    assert part.drawings[0][0].startswith("<svg")


def test_a_data_set_is_the_paper_s_if_all_counts_are() -> None:
    beauty = TABLE_1["amazon-beauty"]
    names = ["amazon-beauty", "amazon-sports", "demo"]
    part = datasets(names, {"amazon-beauty": beauty, "demo": DataFigures(1, 2, 3)})
    assert [one.verdict for one in part.findings] == [
        Verdict.HOLDS, Verdict.NOT_TESTABLE, Verdict.NOT_TESTABLE,
    ]  # fmt: skip
    copy = datasets(["ml-1m-full"], {"ml-1m-full": DataFigures(6040, 3416, 999_611)}).findings[0]
    assert copy.verdict == Verdict.NOT_TESTABLE and "rounds" in copy.why and "6,040" in copy.found
    other = datasets(names[:1], {"amazon-beauty": beauty._replace(items=3)})
    assert other.findings[0].verdict == Verdict.DOES_NOT


def test_the_ledger_counts_as_the_paper_and_as_run() -> None:
    """By hand; users with the same prompt share one inference."""
    pool = GroupPool(10, {}, 8, 800, 80, True, {"llm": 10}, {"provider": "file"}, 0)
    rows = ledger(DataFigures(100, 50, 2000), pool)
    assert [tuple(row) for row in rows] == [
        ("kar", 150, 150, None), ("slim", 2000, 100, None), ("reland", 10, 8, 880),
    ]  # fmt: skip
    asked = {"kar": {"prompts": 140, "tokens": 9}, "slim": {"prompts": 90, "tokens": 8}}
    rows = ledger(DataFigures(100, 50, 2000), pool, asked)
    assert [tuple(row) for row in rows] == [
        ("kar", 150, 140, 9), ("slim", 2000, 90, 8), ("reland", 10, 8, 880),
    ]  # fmt: skip
    part = cost(["demo"], {"demo": DataFigures(100, 50, 2000)}, {"demo": pool}, 1.5)
    assert part.findings[0].verdict == Verdict.DOES_NOT  # 8 of 100 users is more than a hundredth
    assert part.tables[0].rows[2][-1] == f"{8 * 1.5 / 3600:.2f}"
    full = cost(["ml-1m-full"], {}, {}).tables[0]
    assert [row[1] for row in full.rows] == ["9,993", "1,000,000", "604"]  # the paper's, by the other name
    known = cost(["demo"], {"demo": DataFigures(1000, 500, 20000)}, {"demo": pool}).findings[0]
    assert known.verdict == Verdict.HOLDS


def test_the_paper_s_hours_are_its_inferences_at_its_rate() -> None:
    """In all cells of its Table 3 but KAR's on Beauty; KAR asks per user and item, SLIM per interaction."""
    for (dataset, method), one in TABLE_3.items():
        data = TABLE_1[dataset]
        if method != "reland":
            counted = {row.method: row.as_paper for row in ledger(data, None)}
            assert one.inferences == counted[method]
        hours = one.inferences * SECONDS_PER_INFERENCE / 3600
        misprint = (dataset, method) == ("amazon-beauty", "kar")
        assert (abs(one.hours - hours) < 0.011) != misprint


def test_what_kar_and_slim_would_ask_is_counted_and_not_sent() -> None:
    """Against the prompts themselves: equal ones once, and tokens of each by the same counter."""
    config = preset("demo", "sasrec", {"data.demo_users": 80, "data.demo_items": 40})
    found = would_ask(config)["asked"]
    interactions = load_interactions(config.data)
    train = split(interactions, "leave_one_out").train
    users = np.arange(train.num_rows, dtype=np.int32)
    everyone = SeedSet(users, users, np.zeros(len(users), np.int8))
    steps, factors = (
        pool_requests(everyone, train, interactions, PoolConfig(prompt=kind), config.data).requests
        for kind in ("steps", "factors")
    )
    about_items = fact_requests(interactions, config.pool, config.data)
    counter = token_counter(config.pool)
    for method, requests in {"slim": steps, "kar": [*factors, *about_items]}.items():
        prompts = {each.prompt for each in requests}
        tokens = sum(chat_tokens(counter, [{"role": "user", "content": each}]) for each in prompts)
        expected = {"prompts": len(prompts), "tokens": tokens + ANSWER_TOKENS * len(prompts)}
        assert found[method] == expected
