"""Figure 6, Table 1 and the ledger, from figures made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.analysis.cost import cost, ledger
from experiments.analysis.datasets import datasets
from experiments.analysis.findings import Verdict
from experiments.analysis.seed_numbers import seed_numbers
from experiments.grid.scores import GroupPool
from reland_jax.report.paper import SECONDS_PER_INFERENCE, TABLE_1, TABLE_3, DataFigures


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
    other = datasets(names[:1], {"amazon-beauty": beauty._replace(items=3)})
    assert other.findings[0].verdict == Verdict.DOES_NOT


def test_the_ledger_counts_as_the_paper_and_as_run() -> None:
    """By hand; users with the same prompt share one inference."""
    pool = GroupPool(10, {}, 8, 800, 80, True, {"llm": 10}, {"provider": "file"}, 0)
    rows = ledger(DataFigures(100, 50, 2000), pool)
    assert [tuple(row) for row in rows] == [
        ("kar", 150, 150, None), ("slim", 2000, 100, None), ("reland", 10, 8, 880),
    ]  # fmt: skip
    part = cost(["demo"], {"demo": DataFigures(100, 50, 2000)}, {"demo": pool}, 1.5)
    assert part.findings[0].verdict == Verdict.DOES_NOT  # 8 of 100 users is more than a hundredth
    assert part.tables[0].rows[2][-1] == f"{8 * 1.5 / 3600:.2f}"
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
