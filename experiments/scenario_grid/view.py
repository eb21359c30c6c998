"""The results of a grid of scenarios for people: Markdown, and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from experiments.ranking.view import draws_note
from experiments.scenario_grid.cells import Cell
from experiments.scenario_grid.judged import ALL, OF_USERS, CellResults, Measure, ScenarioResults
from reland_jax.records import to_plain
from reland_jax.report.render import render
from reland_jax.report.tables import MISSING, Table, p_value, to_markdown

_TRUTH = "truth"


def markdown(results: ScenarioResults) -> str:
    """Everything but the settings, as Markdown."""
    blocks = [f"# {_title(results)}", *notes(results)]
    for name, words, tables in _sections(results):
        blocks += [f"## {name}", *words, *(to_markdown(one) for one in tables)]
    return "\n\n".join([*blocks, "## Environment", to_markdown(_environment(results))]) + "\n"


def page(results: ScenarioResults) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    sections = [
        {"name": name, "words": words, "tables": tables} for name, words, tables in _sections(results)
    ]
    return render(
        "tables.html.j2",
        {
            "dataset": results.log, "backbone": "scenarios", "title": _title(results),
            "notes": notes(results), "sections": sections, "environment": _environment(results),
            "settings": {"settings": json.dumps(to_plain(results.config), indent=1)},
        },
    )  # fmt: skip


def _title(results: ScenarioResults) -> str:
    return f"Scenarios of {results.log}: {results.config['ranker']['labels'][0]}"


def notes(results: ScenarioResults) -> list[str]:
    """What the tables are of, and how they are to be read."""
    seeds, asked = len(results.cells[0].seeds), len(results.config["seeds_of_training"])
    told, missing = results.knowledge, f", of {asked} that are asked for" if seeds < asked else ""
    ledger = told["ledger"]
    cost = (
        f"{ledger['requests']:,} calls of an LLM, {ledger['prompt_tokens']:,} tokens read and "
        f"{ledger['response_tokens']:,} written"
        if ledger
        else "no call of an LLM"
    )
    return [
        *results.about,
        f"Each figure is the mean over {seeds} training seeds{missing}.",
        f"Knowledge was written by: {told['writer']}; {told['asked']:,} texts ({cost}), which "
        f"{told['users']:,} users are given.",
        "The meta layers are a reading of LLM4MSR (CIKM 2024), whose tables and code were not at hand.",
    ]


def _sections(results: ScenarioResults) -> list[tuple[str, list[str], list[Table]]]:
    found: list[tuple[str, list[str], list[Table]]] = [
        ("AUC", [], [_of_metric(results, "auc")]),
        ("Logloss", [], [_of_metric(results, "logloss")]),
    ]
    if results.differences:
        words = [
            "A difference is of the AUC, ours less the other's, each the mean over the training seeds. The "
            "interval is of 95%, by a bootstrap over users, paired; p is after Holm's correction over this "
            "whole table; a star marks p < 0.05."
        ]
        words += draws_note(len(results.differences), results.config["draws"])
        found.append(("Differences", words, [_differences(results)]))
    if results.knowledge["scenarios"]:
        rows = [[name, text] for name, text in results.knowledge["scenarios"].items()]
        found.append(("Knowledge of scenarios", [], [Table("What was written", ("scenario", "text"), rows)]))
    return [*found, ("Cost", [], [_cost(results.cells)])]


def _of_metric(results: ScenarioResults, metric: str) -> Table:
    first = results.cells[0].segments
    scenarios = [name for name in first if name not in OF_USERS]
    segments = [ALL, *scenarios, *(name for name in OF_USERS[1:] if name in first)]
    rows = [
        [Cell(each.backbone, each.control).name, *_row(each.segments, segments, metric),
         _figure(each.macro_auc if metric == "auc" else each.macro_logloss)]
        for each in results.cells
    ]  # fmt: skip
    if results.truth is not None:
        rows.append([_TRUTH, *_row(results.truth, segments, metric), MISSING])
    rows.append(["rows", *(f"{first[name].rows:,}" for name in segments), ""])
    rows.append(["users", *(f"{first[name].users:,}" for name in segments), ""])
    return Table(f"{metric}, test rows", ("model", *segments, "mean of scenarios"), rows)


def _row(found: Mapping[str, Measure], segments: Sequence[str], metric: str) -> list[str]:
    return [_figure(getattr(found[name], metric)) for name in segments]


def _differences(results: ScenarioResults) -> Table:
    rows = []
    for each in results.differences:
        found = each.auc
        star = "*" if found.p_holm < 0.05 else ""
        rows.append([
            f"{each.ours} over {each.baseline}", each.segment, f"{found.difference:+.5f}{star}",
            f"{found.low:+.5f} to {found.high:+.5f}", p_value(found.p_value), p_value(found.p_holm),
        ])  # fmt: skip
    header = ("models", "rows", "AUC", "95% interval", "p", "p after Holm")
    return Table("Paired differences of AUC", header, rows)


def _cost(cells: Sequence[CellResults]) -> Table:
    rows = []
    for each in cells:
        rates = [entry["rows_per_second"] for entry in each.seeds]
        epochs = [entry["best_epoch"] for entry in each.seeds if "best_epoch" in entry]
        deviation = MISSING if each.auc_deviation is None else f"{each.auc_deviation:.5f}"
        rows.append([
            Cell(each.backbone, each.control).name, f"{each.parameters['table']:,}",
            f"{each.parameters['dense']:,}", f"{sum(rates) / len(rates):,.0f}",
            f"{sum(epochs) / len(epochs):.1f}" if epochs else MISSING, f"{each.meta_bytes / 1e6:,.1f}",
            deviation, f"{each.rate:g}", MISSING if each.meta_rate is None else f"{each.meta_rate:g}",
        ])  # fmt: skip
    header = (
        "model", "embeddings", "other parameters", "rows/s", "best epoch", "MB of meta layers in a step",
        "deviation of AUC over seeds", "learning rate", "share of it for meta layers",
    )  # fmt: skip
    return Table("Parameters, speed and memory", header, rows)


def _environment(results: ScenarioResults) -> Table:
    rows = [(name, str(value)) for name, value in results.environment.items()]
    return Table("Environment", ("", "version"), rows)


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"
