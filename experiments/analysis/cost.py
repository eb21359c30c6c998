"""The ledger: inferences of an LLM as the paper counts them and as they are run, tokens and hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.analysis.asking import ANSWER_TOKENS
from experiments.analysis.findings import Finding, Part, judged, not_testable
from experiments.grid.scores import GroupPool
from reland_jax.report.paper import SECONDS_PER_INFERENCE, TABLE_1, TABLE_3, DataFigures, paper_name
from reland_jax.report.tables import MISSING, Table

TITLE = "Cost: what an LLM is asked"
_LESS = "ReLand asks an LLM a tenth as often as KAR, and a hundredth as often as SLIM, or less."
_CLAIMED = {"kar": 0.1, "slim": 0.01}


class Row(NamedTuple):
    """What a method asks on a data set.

    Attributes:
        method: name.
        as_paper: inferences as the paper counts them.
        as_run: inferences for one set of texts; None where it is not known.
        tokens: read and written, of `as_run`; None where it is not known.
    """

    method: str
    as_paper: int
    as_run: int | None
    tokens: int | None


def ledger(
    data: DataFigures, pool: GroupPool | None, asked: Mapping[str, Mapping[str, int]] | None = None
) -> list[Row]:
    """What KAR, SLIM and ReLand ask.

    The paper counts SLIM once per interaction, a rationale for each prefix of a history. One set of texts for
    the users of today takes one per user.

    Args:
        data: counts of the data set.
        pool: of `reland`; None where there is none.
        asked: method -> "prompts" and "tokens" of one set of texts, see `asking.would_ask`; without it every
            user and item is one inference.
    """
    everything = data.users + data.items
    counted = {"kar": (everything, everything), "slim": (data.interactions, data.users)}
    rows = []
    for method, (as_paper, as_run) in counted.items():
        one = (asked or {}).get(method, {})
        rows.append(Row(method, as_paper, one.get("prompts", as_run), one.get("tokens")))
    if pool is None or not pool.llm_inferences:
        return [*rows, Row("reland", round(0.1 * data.users), None, None)]
    tokens = pool.prompt_tokens + pool.response_tokens if pool.tokens_known else None
    return [*rows, Row("reland", pool.seeds, pool.llm_inferences, tokens)]


def cost(
    datasets: Sequence[str],
    counts: Mapping[str, DataFigures],
    pools: Mapping[str, GroupPool],
    seconds: float | None = None,
    asked: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
) -> Part:
    """The ledger with its claim.

    Args:
        datasets: names.
        counts: of data sets at hand; of others the paper's Table 1 is taken.
        pools: of `reland`, by data set.
        seconds: measured per inference; None where nothing was measured.
        asked: data set -> what KAR and SLIM would ask, see `ledger`.
    """
    known = {name: TABLE_1[paper] for name in datasets if (paper := paper_name(name)) in TABLE_1}
    known |= dict(counts)
    findings: list[Finding] = []
    tables = []
    for name in datasets:
        if name not in known:
            findings.append(not_testable(_LESS, name, "its users and items are not counted here"))
            continue
        rows = ledger(known[name], pools.get(name), (asked or {}).get(name))
        findings.append(_finding(name, rows))
        tables.append(_table(name, rows, seconds))
    return Part("cost", TITLE, findings, _words(seconds), tables)


def _words(seconds: float | None) -> list[str]:
    given = "none was given (--seconds_per_inference)" if seconds is None else f"{seconds:g} s"
    return [
        f"Hours are those of one request after the other, at the paper's {SECONDS_PER_INFERENCE} s and at a "
        f"measured rate: {given}. As run, equal prompts share an answer. Tokens of KAR and SLIM are "
        f"estimated from their prompts, and {ANSWER_TOKENS} for each answer; those of ReLand are of its pool."
    ]


def _finding(name: str, rows: Sequence[Row]) -> Finding:
    counts = {row.method: row.as_run for row in rows}
    ours = counts["reland"]
    if ours is None:
        return not_testable(_LESS, name, "no LLM wrote its rationales, or it is not known who did")
    shares = {method: ours / (counts[method] or 1) for method in _CLAIMED}
    paid = {row.method: row.as_paper for row in rows}
    told = "; ".join(f"{share:.1%} of {method} as run" for method, share in shares.items())
    told += f"; {ours / paid['slim']:.2%} of slim as the paper counts"
    holds = all(shares[method] <= limit for method, limit in _CLAIMED.items())
    why = "as run, SLIM asks once per user, and not once per interaction, as the paper counts"
    return judged(_LESS, name, told, holds, why)


def _table(name: str, rows: Sequence[Row], seconds: float | None) -> Table:
    cells = []
    for row in rows:
        theirs = TABLE_3.get((paper_name(name), row.method))
        cells.append((
            row.method, f"{theirs.inferences:,}" if theirs else MISSING, f"{row.as_paper:,}",
            _whole(row.as_run), _whole(row.tokens), f"{theirs.hours:g}" if theirs else MISSING,
            _hours(row.as_paper, SECONDS_PER_INFERENCE), _hours(row.as_run, SECONDS_PER_INFERENCE),
            _hours(row.as_run, seconds),
        ))  # fmt: skip
    header = (
        "method", "paper's inferences", "counted as the paper does", "as run", "tokens", "paper's hours",
        "hours, paper's count and rate", "hours, as run, paper's rate", "hours, as run, measured",
    )  # fmt: skip
    return Table(f"{name}. What each method asks an LLM, once.", header, cells)


def _whole(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _hours(count: int | None, seconds: float | None) -> str:
    return MISSING if count is None or seconds is None else f"{count * seconds / 3600:.2f}"
