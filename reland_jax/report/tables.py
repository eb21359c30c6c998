"""The tables of a report, once as plain rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reland_jax.report.paper import NOTES, TABLE_2
from reland_jax.types import RelandError
from reland_jax.variants import ID, VARIANTS, Pair

METRICS = ("ndcg@10", "hr@10", "mrr@10")
MISSING = "–"
_LEVEL = 0.05


class Table(NamedTuple):
    """A table of text.

    Attributes:
        caption: what it shows, how to read it.
        header: column names; the first column names the row.
        rows: as many cells each as `header`.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def variant_results(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Variant -> its results: id, f_item, reland first, then any others as they come.

    Raises:
        RelandError: `results` has no variant.
    """
    variants = results.get("variants") or {}
    if not variants:
        raise RelandError("results['variants'] is empty: train at least one of id, f_item, reland first")
    names = [name for name in VARIANTS if name in variants]
    return {name: variants[name] for name in names + [name for name in variants if name not in names]}


def comparison(results: Mapping[str, Any]) -> Table:
    """Every variant's NDCG, HR and MRR at 10 on test and validation, and its seconds per epoch.

    A test figure is followed by its gain over `id`, and by a star where it is above `id`'s with
    p < 0.05 after Holm (docs/method.md, "Significance").
    """
    variants = variant_results(results)
    rows = []
    for name, one in variants.items():
        test = [_test_cell(results, variants, name, metric) for metric in METRICS]
        valid = [_number(one.get("valid", {}).get(metric)) for metric in METRICS]
        epochs = [_text(one.get(field)) for field in ("best_epoch", "epochs")]
        rows.append((name, *test, *valid, _seconds(one.get("seconds_per_epoch")), *epochs))
    star = " * = above id, p < 0.05 after Holm." if results.get("significance") else ""
    return Table(
        f"Full ranking over all items; in brackets the gain over id.{star}",
        (
            "variant",
            *(f"test {metric.upper()}" for metric in METRICS),
            *(f"valid {metric.upper()}" for metric in METRICS),
            "s/epoch",
            "best epoch",
            "epochs",
        ),
        rows,
    )


def against_paper(results: Mapping[str, Any]) -> Table | None:
    """Ours, the paper's Table 2 and the difference; None where the paper has no such cell."""
    dataset, backbone = results.get("dataset", ""), results.get("backbone", "")
    rows = []
    for name, one in variant_results(results).items():
        paper = TABLE_2.get((dataset, backbone, name))
        if paper is None:
            continue
        cells = []
        for metric, figure in paper.items():
            ours = one.get("test", {}).get(metric)
            cells += [_number(ours), _number(figure), _signed(None if ours is None else ours - figure)]
        rows.append((name, *cells))
    if not rows:
        return None
    sides = ("ours", "paper", "ours − paper")
    header = [f"{metric} {side}" for metric in ("NDCG@10", "HR@10") for side in sides]
    return Table(_paper_caption(results), ("variant", *header), rows)


def over_training_seeds(results: Mapping[str, Any]) -> Table | None:
    """Mean, standard deviation and range of test NDCG@10 over training seeds; None below two seeds."""
    rows = []
    for name, one in variant_results(results).items():
        values = np.asarray(one.get("per_seed", {}).get("test", {}).get("ndcg@10", ()), np.float64)
        if len(values) >= 2:
            figures = (values.mean(), values.std(ddof=1), values.min(), values.max())
            rows.append((name, str(len(values)), *map(_number, figures)))
    header = ("variant", "training seeds", "mean", "standard deviation", "lowest", "highest")
    return Table("Test NDCG@10 over training seeds.", header, rows) if rows else None


def significance(results: Mapping[str, Any]) -> Table | None:
    """Differences of per-user metrics with interval and p-values; None where nothing was tested."""
    rows = [
        (
            f"{pair} {metric.upper()}",
            _signed(test.get("difference")),
            f"{_signed(test.get('low'))} to {_signed(test.get('high'))}",
            p_value(test.get("p_value")),
            p_value(test.get("p_holm")),
        )
        for pair, metrics in (results.get("significance") or {}).items()
        for metric, test in metrics.items()
    ]
    caption = (
        "Left of > minus right of >, over test users, each averaged over training seeds: positive means the "
        "left is better. Two-sided paired t test; Holm's correction over this table."
    )
    header = ("comparison", "difference", "95% bootstrap interval", "p", "p after Holm")
    return Table(caption, header, rows) if rows else None


def evaluated(results: Mapping[str, Any]) -> Table | None:
    """How many users are evaluated by how many held-out items; None where it was not recorded."""
    rows = []
    for part, counts in (results.get("held_out") or {}).items():
        figures = (counts[name] for name in ("users", "users_without", "targets", "had_before"))
        rows.append((part, *(f"{figure:,}" for figure in figures)))
    header = ("part", "users evaluated", "users without an item", "held-out items", "of them had before")
    return Table("Who is evaluated, by which held-out items.", header, rows) if rows else None


def result_tables(results: Mapping[str, Any]) -> list[Table]:
    """The comparison, then whichever of the paper's, the seeds', the significance and the evaluation table
    there are."""
    optional = (
        against_paper(results), over_training_seeds(results), significance(results), evaluated(results)
    )  # fmt: skip
    return [comparison(results), *(table for table in optional if table is not None)]


def to_markdown(table: Table) -> str:
    """A table in Markdown, its columns aligned so that it reads well as plain text too."""
    lines = [table.header, *table.rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(table.header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [_line(table.header, widths), _line(rule, widths), *(_line(row, widths) for row in table.rows)]
    return f"{table.caption}\n\n" + "\n".join(body)


def comparison_table(results: Mapping[str, Any]) -> str:
    """All result tables of a run as Markdown, and what to know about them, for the terminal.

    Args:
        results: the content of results.json.

    Raises:
        RelandError: `results` has no variant.
    """
    tables = [to_markdown(table) for table in result_tables(results)]
    notes = "\n".join(f"Note: {note}" for note in results.get("notes") or ())
    return "\n\n".join([*tables, notes] if notes else tables)


def gain(value: float | None, base: float | None) -> str:
    """The relative gain over `base` as "+7.3%", "" where it cannot be said."""
    return "" if value is None or not base else f"{value / base - 1:+.1%}"


def is_significant_gain(results: Mapping[str, Any], pair: str, metric: str) -> bool:
    """Whether `pair` ("reland>id") gains on `metric` with p < 0.05 after Holm."""
    test = (results.get("significance") or {}).get(pair, {}).get(metric, {})
    return test.get("p_holm", 1.0) < _LEVEL and test.get("difference", 0.0) > 0


def _test_cell(results: Mapping[str, Any], variants: Mapping[str, Any], name: str, metric: str) -> str:
    value = variants[name].get("test", {}).get(metric)
    base = variants.get(ID.name, {}).get("test", {}).get(metric)
    star = "*" if is_significant_gain(results, Pair(name, ID.name).name, metric) else ""
    relative = "" if name == ID.name else gain(value, base)
    return _number(value) + star + (f" ({relative})" if relative else "")


def _paper_caption(results: Mapping[str, Any]) -> str:
    pool = results.get("pool", {})
    if pool.get("provider") == "heuristic":
        writer = "here a heuristic wrote them, no LLM"
    else:
        writer = f"here they come from {', '.join(pool.get('models') or ()) or 'a writer that is not named'}"
    note = NOTES.get(results.get("dataset", ""), "")
    source = f"The paper's rationales come from ChatGPT-3.5, {writer}."
    return f"Test, beside the paper's Table 2. {source} {note}".strip()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join([cells[0].ljust(widths[0]), *figures]) + " |"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.4f}"


def _seconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def p_value(value: float | None) -> str:
    """A p value in [0, 1] for people, to four digits."""
    return MISSING if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _text(value: object) -> str:
    return MISSING if value is None else str(value)
