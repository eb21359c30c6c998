"""The tables of a report, once as plain rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.report.paper import NOTES, TABLE_2
from reland_jax.results import RunResults, VariantResults
from reland_jax.types import COMPARED, MRR, NDCG
from reland_jax.variants import BY_NAME, ID, Pair

METRICS = (*COMPARED, MRR)
MISSING = "–"


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


def in_order(results: RunResults) -> dict[str, VariantResults]:
    """Variant -> its results: id, f_item, reland first, then the ablations."""
    return {name: results.variants[name] for name in BY_NAME if name in results.variants}


def histories(results: RunResults) -> dict[str, Sequence[Mapping[str, float]]]:
    """Variant -> entries of its epochs."""
    return {name: one.history for name, one in in_order(results).items()}


def comparison(results: RunResults) -> Table:
    """Every variant's NDCG, HR and MRR at 10 on test and validation, and its seconds per epoch.

    A test figure is followed by its gain over `id`, and by a star where it is above `id`'s with
    p < 0.05 after Holm (docs/method.md, "Significance").
    """
    rows = []
    for name, one in in_order(results).items():
        test = [_test_cell(results, name, metric) for metric in METRICS]
        valid = [_number(one.valid[metric]) for metric in METRICS]
        effort = (_seconds(one.seconds_per_epoch), str(one.best_epoch), str(one.epochs))
        rows.append((name, *test, *valid, *effort))
    star = " * = above id, p < 0.05 after Holm." if results.significance else ""
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


def against_paper(results: RunResults) -> Table | None:
    """Ours, the paper's Table 2 and the difference; None where the paper has no such cell."""
    rows = []
    for name, one in in_order(results).items():
        paper = TABLE_2.get((results.dataset, results.backbone, name))
        if paper is None:
            continue
        cells = []
        for metric, figure in paper.items():
            cells += [_number(one.test[metric]), _number(figure), _signed(one.test[metric] - figure)]
        rows.append((name, *cells))
    if not rows:
        return None
    sides = ("ours", "paper", "ours − paper")
    header = [f"{metric.upper()} {side}" for metric in COMPARED for side in sides]
    return Table(_paper_caption(results), ("variant", *header), rows)


def over_training_seeds(results: RunResults) -> Table | None:
    """Mean, standard deviation and range of test NDCG@10 over training seeds; None below two seeds."""
    rows = []
    for name, one in in_order(results).items():
        values = np.asarray(one.per_seed.test[NDCG], np.float64)
        if len(values) >= 2:
            figures = (values.mean(), values.std(ddof=1), values.min(), values.max())
            rows.append((name, str(len(values)), *map(_number, figures)))
    header = ("variant", "training seeds", "mean", "standard deviation", "lowest", "highest")
    return Table("Test NDCG@10 over training seeds.", header, rows) if rows else None


def significance(results: RunResults) -> Table | None:
    """Differences of per-user metrics with interval and p-values; None where nothing was tested."""
    rows = [
        (
            f"{pair} {metric.upper()}",
            _signed(test.difference),
            f"{_signed(test.low)} to {_signed(test.high)}",
            p_value(test.p_value),
            p_value(test.p_holm),
        )
        for pair, metrics in results.significance.items()
        for metric, test in metrics.items()
    ]
    caption = (
        "Differences over test users, first variant minus second, averaged over training seeds: where "
        "positive, the first is better. Two-sided paired t test; Holm's correction over this table."
    )
    header = ("comparison", "difference", "95% bootstrap interval", "p", "p after Holm")
    return Table(caption, header, rows) if rows else None


def evaluated(results: RunResults) -> Table:
    """How many users are evaluated by how many held-out items."""
    rows = []
    for part, counts in results.held_out.items():
        figures = (counts.users, counts.users_without, counts.targets, counts.had_before)
        rows.append((part, *(f"{figure:,}" for figure in figures)))
    header = ("part", "users evaluated", "users without an item", "held-out items", "the user had before")
    return Table("Who is evaluated, by which held-out items.", header, rows)


def result_tables(results: RunResults) -> list[Table]:
    """The comparison, whichever of the paper's, the seeds' and the significance table there are, and who is
    evaluated."""
    optional = (against_paper(results), over_training_seeds(results), significance(results))
    return [comparison(results), *(table for table in optional if table is not None), evaluated(results)]


def to_markdown(table: Table) -> str:
    """A table in Markdown, its columns aligned so that it reads well as plain text too."""
    lines = [table.header, *table.rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(table.header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [_line(table.header, widths), _line(rule, widths), *(_line(row, widths) for row in table.rows)]
    return f"{table.caption}\n\n" + "\n".join(body)


def comparison_table(results: RunResults) -> str:
    """All result tables of a run as Markdown, and what to know about them, for the terminal."""
    tables = [to_markdown(table) for table in result_tables(results)]
    notes = "\n".join(f"Note: {note}" for note in results.notes)
    return "\n\n".join([*tables, notes] if notes else tables)


def gain(value: float, base: float) -> str:
    """The relative gain over `base` as "+7.3%", "" where it cannot be said."""
    return f"{value / base - 1:+.1%}" if base else ""


def is_significant_gain(results: RunResults, pair: Pair, metric: str) -> bool:
    """Whether a pair was compared and gains on `metric` with p < 0.05 after Holm."""
    test = results.significance.get(pair.name, {}).get(metric)
    return test is not None and test.is_gain


def _test_cell(results: RunResults, name: str, metric: str) -> str:
    value = results.variants[name].test[metric]
    base = results.variants[ID.name].test[metric] if ID.name in results.variants else 0.0
    star = "*" if is_significant_gain(results, Pair(name, ID.name), metric) else ""
    relative = "" if name == ID.name else gain(value, base)
    return _number(value) + star + (f" ({relative})" if relative else "")


def _paper_caption(results: RunResults) -> str:
    if results.pool.provider == "heuristic":
        writer = "here a heuristic wrote them, no LLM"
    else:
        writer = f"here they come from {', '.join(results.pool.models) or 'a writer that is not named'}"
    note = NOTES.get(results.dataset, "")
    source = f"The paper's rationales come from ChatGPT-3.5, {writer}."
    return f"Test, beside the paper's Table 2. {source} {note}".strip()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join([cells[0].ljust(widths[0]), *figures]) + " |"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def p_value(value: float) -> str:
    """A p value in [0, 1] for people, to four digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
