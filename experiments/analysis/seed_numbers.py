"""The paper's Figure 6: quality by the number of seed users, from results of `experiments.seed_count`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.analysis.findings import Finding, Part, judged, not_testable
from reland_jax.report.plots import share_curves
from reland_jax.report.tables import MISSING, Table
from reland_jax.types import NDCG, PARTS

TITLE = "Figure 6: how many seed users"
PAPER_SHARE = 0.1
"""Seed users of the paper, as a share of all users."""
_RISES = "More seed users are better."
_ENOUGH = "A tenth of the users as seed users comes near to asking about all of them."


def seed_numbers(results: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> Part:
    """Figure 6 with its claims.

    Args:
        results: of `experiments.seed_count` with --validate.
        missing: data set -> why there is no result.
    """
    findings = [one for result in results for one in _findings(result)]
    findings += [not_testable(_RISES, name, why) for name, why in missing.items()]
    words = [
        f"{result['data']}: {result['validation']['seeds']} training seeds, {_part(result)} items; the "
        f"rationales are those of {result['model']}, as the settings name it."
        for result in results
    ]
    drawings = [(_drawn(result, place), _caption(result)) for place, result in enumerate(results)]
    return Part("figure6", TITLE, findings, words, [_table(result) for result in results], drawings)


def _part(result: Mapping[str, Any]) -> str:
    """The last part of the split that was told: test, else validation."""
    return [part for part in PARTS if part in result["validation"]["sizes"][0]][-1]


def _findings(result: Mapping[str, Any]) -> list[Finding]:
    sizes, part = result["validation"]["sizes"], _part(result)
    gains = {size["fraction"]: size[part][NDCG] for size in sizes}
    shares = sorted(gains)
    first, last = gains[shares[0]], gains[shares[-1]]
    told = f"{part} NDCG@10 over f_item: {_gain(first)} at {shares[0]:.0%}, {_gain(last)} at {shares[-1]:.0%}"
    why = "the interval at the largest share lies above that at the smallest, or it does not"
    found = [judged(_RISES, result["data"], told, last["low"] > first["high"], why)]
    if PAPER_SHARE not in gains or shares[-1] < 1:
        return [*found, not_testable(_ENOUGH, result["data"], "there are no rationales of all users")]
    tenth = gains[PAPER_SHARE]
    told = f"{tenth['difference']:+.4f} at 10%, {last['difference']:+.4f} at 100%"
    why = "the interval at 10% reaches the gain at 100%, or it does not"
    return [*found, judged(_ENOUGH, result["data"], told, tenth["high"] >= last["difference"], why)]


def _gain(one: Mapping[str, Any]) -> str:
    return f"{one['difference']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"


def _table(result: Mapping[str, Any]) -> Table:
    part = _part(result)
    rows = []
    for size in result["validation"]["sizes"]:
        one = size[part][NDCG]
        rows.append((
            f"{size['fraction']:.0%}", f"{size['seeds']:,}", f"{size['tokens'] / 1e6:.2f}",
            MISSING if size["price"] is None else f"{size['price']:.2f}", f"{size['covered']:.3f}",
            f"{one['mean_ours']:.4f}", _gain(one),
        ))  # fmt: skip
    header = ("share", "seed users", "M tokens", result["currency"], "covered", f"{part} NDCG@10")
    return Table(
        f"{result['data']}. Seed users, what their prompts and answers cost, mean cosine of a user to its "
        "seed user, quality, and its difference to f_item.",
        (*header, "over f_item (95% interval over users)"),
        rows,
    )


def _drawn(result: Mapping[str, Any], place: int) -> str:
    found, part = result["validation"], _part(result)
    return share_curves(
        [size["fraction"] for size in found["sizes"]],
        [size[part][NDCG]["values"] for size in found["sizes"]],
        found[found["reference"]][part][NDCG],
        [size["tokens"] / 1e6 for size in found["sizes"]],
        f"shares-{place}",
    )


def _caption(result: Mapping[str, Any]) -> str:
    return (
        f"{result['data']}: NDCG@10 of reland by share of seed users, mean and range over training seeds; "
        "the flat line is f_item; dotted, on the right axis, the tokens that it costs."
    )
