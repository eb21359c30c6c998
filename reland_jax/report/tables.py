"""The tables of a report, once as plain rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.report.paper import NOTES, TABLE_2, paper_name
from reland_jax.results import RunResults, VariantResults
from reland_jax.types import COMPARED, MRR, NDCG
from reland_jax.variants import BY_NAME, ID, Pair

METRICS = (*COMPARED, MRR)
POPULARITY = "(popularity)"
ABOUT = {"finished": "finished", "code": "commit"}
"""Name for people -> key of `RunResults.about`."""

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
    """NDCG, HR and MRR at 10 on test: of a list by popularity, then of every variant.

    A figure of a variant is followed by its gain over `id`, and by a star where it is above `id`'s with
    p < 0.05 after Holm (docs/method.md, "Significance").
    """
    rows = [(POPULARITY, *(_number(results.overview.popularity[metric]) for metric in METRICS))]
    rows += [(name, *(_test_cell(results, name, metric) for metric in METRICS)) for name in in_order(results)]
    star = " * = above id, p < 0.05 after Holm." if results.significance else ""
    caption = (
        f"Test, full ranking over all items; in brackets the gain over id.{star} By popularity everybody "
        "gets the items with the most training interactions."
    )
    return Table(caption, ("variant", *(f"test {metric.upper()}" for metric in METRICS)), rows)


def trainings(results: RunResults) -> Table:
    """Every variant's metrics on validation, its epochs and its seconds per epoch."""
    rows = []
    for name, one in in_order(results).items():
        valid = [_number(one.valid[metric]) for metric in METRICS]
        rows.append((name, *valid, str(one.best_epoch), str(one.epochs), _seconds(one.seconds_per_epoch)))
    header = (
        "variant",
        *(f"valid {metric.upper()}" for metric in METRICS),
        "best epoch",
        "epochs",
        "s/epoch",
    )
    return Table("Validation and training.", header, rows)


def by_activity(results: RunResults) -> Table:
    """NDCG@10 and the gains of `reland` by how many training interactions a user has."""
    levels, names = results.overview.levels, list(in_order(results))
    pairs = list(levels[0].gains) if levels else []
    rows = []
    for level in levels:
        low, high = level.interactions or (0, 0)
        span = f"{low}" if low == high else f"{low} to {high}"
        ndcg = [_or_missing(level.ndcg.get(name), _number) for name in names]
        gains = [_or_missing(level.gains.get(pair), "{:+.1%}".format) for pair in pairs]
        rows.append((level.level, f"{level.users:,}", span if level.users else MISSING, *ndcg, *gains))
    caption = (
        "Test NDCG@10 by activity: L1 has the users with the fewest training interactions. Users with the "
        "same number are on one level, so levels differ in size."
    )
    return Table(caption, ("level", "users", "interactions", *names, *pairs), rows)


def of_lists(results: RunResults) -> Table | None:
    """Coverage and novelty of the lists; None where too few lists are known."""
    found = results.overview.lists
    if not found:
        return None
    rows = [
        (name, f"{found[name].users:,}", f"{found[name].coverage:.1%}", f"{found[name].novelty:.2f} bits")
        for name in in_order(results)
        if name in found
    ]
    caption = (
        "Lists of ten of test users drawn at random. Coverage: share of all items that are in a list. "
        "Novelty: mean of log2(users / users who have had the item); the higher, the less popular."
    )
    return Table(caption, ("variant", "lists", "coverage", "novelty"), rows)


def of_the_run(results: RunResults) -> Table:
    """What the run is: data, size, and the time and code that made it."""
    size, about = results.overview.size, results.about
    rows = [
        ("data set", f"{results.dataset}, split {results.protocol}"),
        ("users", f"{size.users:,}"),
        ("items", f"{size.items:,}"),
        ("interactions", f"{size.interactions:,}, of which {size.training:,} for training"),
        ("training seeds", ", ".join(map(str, results.training_seeds))),
        ("rationales", _writer(results)),
        *((name, about[key]) for name, key in ABOUT.items() if about.get(key)),
    ]
    return Table("What this run is.", ("what", "value"), rows)


def of_stages(results: RunResults) -> Table:
    """Seconds of every stage, those of an earlier run where an artefact was up to date."""
    rows = [(name, _seconds(seconds)) for name, seconds in results.stage_seconds.items()]
    rows.append(("together", _seconds(sum(results.stage_seconds.values()))))
    return Table("Seconds per stage; where it was up to date, those of its own run.", ("stage", "s"), rows)


def against_paper(results: RunResults) -> Table | None:
    """Ours, the paper's Table 2 and the difference; None where the paper has no such cell."""
    rows = []
    for name, one in in_order(results).items():
        paper = TABLE_2.get((paper_name(results.dataset), results.backbone, name))
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
    """All tables of results; of some there are none without a paper's figure, several seeds or a test."""
    optional = (significance(results), against_paper(results), over_training_seeds(results))
    others = (of_lists(results), evaluated(results))
    made = (comparison(results), trainings(results), *optional, by_activity(results), *others)
    return [table for table in made if table is not None]


def to_markdown(table: Table) -> str:
    """A table in Markdown, its columns aligned so that it reads well as plain text too."""
    lines = [table.header, *table.rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(table.header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [_line(table.header, widths), _line(rule, widths), *(_line(row, widths) for row in table.rows)]
    return f"{table.caption}\n\n" + "\n".join(body)


def gain(value: float, base: float) -> str:
    """The relative gain over `base` as "+7.3%", "" where it cannot be said."""
    return f"{round(value / base - 1, 3) + 0.0:+.1%}" if base else ""


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


def _or_missing(value: float | None, shown: Callable[[float], str]) -> str:
    return MISSING if value is None else shown(value)


def _writer(results: RunResults) -> str:
    pool = results.pool
    writers = "the offline heuristic, no LLM" if pool.provider == "heuristic" else ", ".join(pool.models)
    return (
        f"{pool.seeds:,} by {writers or 'a writer that is not named'}, {pool.rationales_each} for each user"
    )


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
