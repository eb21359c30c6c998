"""The paper's Table 1: the data sets beside those at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.analysis.findings import Finding, Part, judged, not_testable
from reland_jax.report.paper import SAME_DATA, TABLE_1, DataFigures, paper_name
from reland_jax.report.tables import MISSING, Table

TITLE = "Table 1: data sets"
_SAME = "The data set is the paper's."
_ROUNDED = "the paper rounds its interactions, and counts items that nobody rated"


def datasets(names: Sequence[str], counts: Mapping[str, DataFigures]) -> Part:
    """Table 1 with its claims.

    Args:
        names: of data sets.
        counts: of those at hand.
    """
    rows = [
        (
            name,
            *(
                cell
                for pair in zip(*_both(counts.get(name), TABLE_1.get(paper_name(name))), strict=True)
                for cell in pair
            ),
        )
        for name in names
    ]
    header = ["data set"]
    for field in DataFigures._fields:
        header += [field, f"{field} paper"]
    findings = [_finding(name, counts.get(name), TABLE_1.get(paper_name(name))) for name in names]
    return Part("table1", TITLE, findings, (), [Table("Counts after filtering.", header, rows)])


def _finding(name: str, ours: DataFigures | None, paper: DataFigures | None) -> Finding:
    if ours is None or paper is None:
        return not_testable(_SAME, name, "the data are not here" if paper else "the paper does not use it")
    told = ", ".join(f"{value:,} {field}" for field, value in ours._asdict().items())
    if name in SAME_DATA:
        return not_testable(_SAME, name, _ROUNDED, told)
    return judged(_SAME, name, told, ours == paper, "all three counts are equal, or they are not")


def _both(ours: DataFigures | None, paper: DataFigures | None) -> tuple[list[str], list[str]]:
    return _cells(ours), _cells(paper)


def _cells(figures: DataFigures | None) -> list[str]:
    return [MISSING] * 3 if figures is None else [f"{value:,}" for value in figures]
