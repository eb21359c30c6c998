"""A run as one self-contained HTML page: no script, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reland_jax.files import write_text
from reland_jax.report import plots, tables, words
from reland_jax.report.content import ReportContent
from reland_jax.report.paper import BACKBONE_NAMES
from reland_jax.report.render import render
from reland_jax.report.tables import Table
from reland_jax.results import RunResults

if TYPE_CHECKING:
    from markupsafe import Markup

SECTIONS = (
    ("results", "Results"),
    ("data", "Run and data"),
    ("seeds", "Seed users"),
    ("assignment", "Matching"),
    ("cases", "Cases"),
    ("cost", "Cost"),
    ("environment", "Environment"),
    ("problems", "Problems"),
)
"""Element id and name of every section, in order."""

_TEMPLATE = "page.html.j2"
_SHOWN_HISTORY = 10
_SHOWN_PROBLEMS = 50


def write_report(path: str | Path, content: ReportContent) -> None:
    """Writes the report of a run as one HTML file.

    The file is written aside and then renamed, so an interrupted call leaves no half page. It shows ids and
    histories of people, so only its owner may read it.

    Args:
        path: the file to write; its folder is made if it is missing.
        content: what to show.
    """
    write_text(Path(path), render_report(content), private=True)


def render_report(content: ReportContent) -> str:
    """The HTML of `write_report`."""
    return render(_TEMPLATE, _values(content))


def _values(content: ReportContent) -> dict[str, object]:
    results = content.results
    return {
        "dataset": results.dataset,
        "backbone": BACKBONE_NAMES.get(results.backbone, results.backbone),
        "headline": words.headline(results),
        "warnings": words.warnings(results),
        "sections": SECTIONS,
        "tables": tables.result_tables(results),
        "notes": results.notes,
        "masked": content.masked,
        "run": tables.of_the_run(results),
        # A flag on a line, as a shell takes it too.
        "command": results.about.get("command", "").replace(" --", " \\\n  --"),
        "data": Table("What was read, taken away and left.", ("what", "value"), content.data),
        "plots": _plots(content),
        "seeds_words": words.seeds_words(content),
        "assignment_words": words.assignment_words(content.assignment, content.seeds),
        "cases": content.cases,
        "shown_history": _SHOWN_HISTORY,
        "provider": results.pool.provider,
        "models": results.pool.models,
        "cost": words.cost_of(results, len(content.activity)),
        "stages": tables.of_stages(results),
        "environment": _settings("What the run ran on.", results.environment),
        "config": _settings("Every setting of the run.", content.config),
        "problems": content.problems,
        "shown_problems": _SHOWN_PROBLEMS,
    }


def _plots(content: ReportContent) -> dict[str, Markup]:
    from markupsafe import Markup

    # The drawings are ours and matplotlib escapes the texts in them; all else on the page is escaped here.
    return {
        "gains": Markup(plots.gain_intervals(_gain_bars(content.results))),
        "validation": Markup(plots.validation_curves(tables.histories(content.results))),
        "activity": Markup(plots.activity_histogram(content.activity, content.seeds)),
        "clusters": Markup(plots.cluster_scatter(content.cluster_sizes, content.seeds)),
        "cosines": Markup(plots.cosine_histogram(content.assignment, content.seeds)),
    }


def _gain_bars(results: RunResults) -> list[plots.GainBar]:
    return [
        plots.GainBar(f"{pair} {metric.upper()}", *shares, test.is_gain)
        for pair, metrics in results.significance.items()
        for metric, test in metrics.items()
        if (base := test.mean_baseline)
        for shares in [(test.low / base, test.difference / base, test.high / base)]
    ]


def _settings(caption: str, values: Mapping[str, object]) -> Table:
    return Table(caption, ("name", "value"), list(_flat(values).items()))


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted names and values as text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
