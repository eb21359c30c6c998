"""The results of a comparison of arms for people: Markdown, and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence

from experiments.ranking.judged import TRUTH, ArmResults, Difference, RankerResults
from experiments.ranking.search import trials_table
from reland_jax.events import Quality
from reland_jax.events.levels import NAMES
from reland_jax.records import to_plain
from reland_jax.report.render import render
from reland_jax.report.tables import MISSING, Table, p_value, to_markdown

_TASKS = {
    "ctr": "Clicks, on all test rows",
    "cvr": "Conversions, on clicked test rows alone",
    "ctcvr": "Clicks with a conversion, on all test rows",
}
_COLUMNS = {
    "AUC": "auc", "logloss": "logloss", "NE": "normalised_entropy", "calibration": "calibration",
    "ECE": "calibration_error", "GAUC weighted": "gauc_weighted", "GAUC plain": "gauc_mean",
}  # fmt: skip


def markdown(results: RankerResults) -> str:
    """Everything but the settings, as Markdown."""
    blocks = [f"# {_title(results)}", *notes(results)]
    for name, words, tables in _sections(results):
        blocks += [f"## {name}", *words, *(to_markdown(one) for one in tables)]
    return "\n\n".join([*blocks, "## Environment", to_markdown(_environment(results))]) + "\n"


def page(results: RankerResults) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    sections = [
        {"name": name, "words": words, "tables": tables} for name, words, tables in _sections(results)
    ]
    return render(
        "tables.html.j2",
        {
            "dataset": results.log, "backbone": results.config["ranker"]["network"],
            "title": _title(results), "notes": notes(results), "sections": sections,
            "environment": _environment(results),
            "settings": {"settings": json.dumps(to_plain(results.config), indent=1)},
        },
    )  # fmt: skip


def _title(results: RankerResults) -> str:
    ranker = results.config["ranker"]
    labels = " and ".join(ranker["labels"])
    return f"Ranker on {results.log}: {ranker['network']}, {ranker['task']}, {labels}"


def notes(results: RankerResults) -> list[str]:
    """What the tables are of, and how they are to be read."""
    seeds = len(results.config["seeds_of_training"])
    return [
        *results.about,
        f"Each figure is the mean over {seeds} training seeds. Rationales were written by: {results.writer}.",
        "GAUC is the mean AUC of the users that have both classes, weighted by impressions or plain. NE is "
        "the logloss over the entropy of the rows' own rate, calibration the predicted over the true "
        "positives, ECE its error over ten bins.",
    ]


def draws_note(comparisons: int, draws: int) -> list[str]:
    """That no difference of a table can be significant, where it has too many for the draws of users."""
    least = comparisons / draws
    if least <= 0.05:
        return []
    return [
        f"In a table of {comparisons} comparisons with {draws} draws of users no p after Holm can be "
        f"below {min(least, 1):.2g}, whatever the difference: read the intervals, each of one comparison, "
        "or set config.draws higher."
    ]


def _sections(results: RankerResults) -> list[tuple[str, list[str], list[Table]]]:
    tasks = list(dict.fromkeys(each.task for arm in results.arms.values() for each in arm.quality))
    found: list[tuple[str, list[str], list[Table]]] = [
        (_TASKS[task], [], _of_task(results, task)) for task in tasks
    ]
    if results.differences:
        words = [
            "A difference is of the AUC, ours less the baseline, each the mean over the training seeds. The "
            "interval is of 95%, by a bootstrap over users, paired; Holm's correction is over each table; a "
            "star marks p < 0.05 after it."
        ]
        for table in (results.differences, results.differences_by_level):
            words += draws_note(len(table), results.config["draws"])
        tables = [_differences(results.differences, "On all rows")]
        if results.differences_by_level:
            tables.append(_differences(results.differences_by_level, "Per activity level"))
        found.append(("Differences of AUC", words, tables))
    trials = [trials_table("arm", results.chosen)] if results.chosen else []
    return [*found, ("Trainings", [], [_trainings(results), *trials])]


def _of_task(results: RankerResults, task: str) -> list[Table]:
    overall = Table(
        f"{_TASKS[task]}: all segments together",
        ("arm", *_COLUMNS, "users covered", "rows covered", "parameters"),
        [_overall(name, arm, task) for name, arm in results.arms.items()] + _truth(results, task),
    )
    arms = list(results.arms.items())
    segments = [each.segment for each in arms[0][1].quality if each.task == task and each.segment != "all"]
    scenarios = [name for name in segments if name not in NAMES]
    cuts = ", ".join(map(str, results.levels["cuts"]))
    levels = [name for name in NAMES if name in segments]
    return [
        overall,
        *([_by_segment(results, task, scenarios, "AUC per scenario")] if scenarios else []),
        _by_segment(
            results, task, levels,
            f"AUC per activity level: clicks and conversions in training up to {cuts} are L1, L2 and L3",
        ),
    ]  # fmt: skip


def _overall(name: str, arm: ArmResults, task: str) -> list[str]:
    found = _quality(arm.quality, task, "all")
    deviation = arm.auc_deviation[task]
    cells = [_figure(getattr(found, field)) for field in _COLUMNS.values()]
    cells[0] += "" if deviation is None else f" ± {deviation:.4f}"
    covered = [f"{found.covered_users:.1%}", f"{found.covered_impressions:.1%}"]
    return [name, *cells, *covered, f"{sum(arm.parameters.values()):,}"]


def _truth(results: RankerResults, task: str) -> list[list[str]]:
    if results.truth is None:
        return []
    found = _quality(results.truth, task, "all")
    cells = [_figure(getattr(found, field)) for field in _COLUMNS.values()]
    covered = [f"{found.covered_users:.1%}", f"{found.covered_impressions:.1%}"]
    return [[TRUTH, *cells, *covered, MISSING]]


def _by_segment(results: RankerResults, task: str, segments: Sequence[str], caption: str) -> Table:
    first = next(iter(results.arms.values())).quality
    counts = [_quality(first, task, segment) for segment in segments]
    rows = [
        [name, *(_figure(_quality(arm.quality, task, segment).auc) for segment in segments)]
        for name, arm in results.arms.items()
    ]
    rows.append(["rows", *(f"{each.rows:,}" for each in counts)])
    rows.append(["users", *(f"{each.users:,}" for each in counts)])
    rates = [f"{each.positives / each.rows:.3f}" if each.rows else MISSING for each in counts]
    return Table(caption, ("arm", *segments), [*rows, ["rate", *rates]])


def _quality(entries: Sequence[Quality], task: str, segment: str) -> Quality:
    return next(each for each in entries if (each.task, each.segment) == (task, segment))


def _differences(entries: Sequence[Difference], caption: str) -> Table:
    rows = []
    for each in entries:
        found = each.auc
        star = "*" if found.p_holm < 0.05 else ""
        rows.append([
            f"{each.arm} over {each.baseline}", each.task, each.segment, f"{found.difference:+.5f}{star}",
            f"{found.low:+.5f} to {found.high:+.5f}", p_value(found.p_value), p_value(found.p_holm),
        ])  # fmt: skip
    header = ("arms", "task", "rows", "AUC", "95% interval", "p", "p after Holm")
    return Table(caption, header, rows)


def _trainings(results: RankerResults) -> Table:
    rows = []
    for name, arm in results.arms.items():
        for entry in arm.seeds:
            rows.append([
                name, str(entry["seed"]), f"{entry['best_epoch']:.1f}", f"{entry['epochs']:.1f}",
                _figure(entry["valid_logloss"]), _figure(entry["valid_auc"]),
                f"{entry['rows_per_second']:,.0f}", f"{entry['seconds']:.0f}",
            ])  # fmt: skip
    header = ("arm", "seed", "best epoch", "epochs", "valid logloss", "valid AUC", "rows/s", "seconds")
    return Table("Every training", header, rows)


def _environment(results: RankerResults) -> Table:
    rows = [(name, str(value)) for name, value in results.environment.items()]
    return Table("Environment", ("", "version"), rows)


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"
