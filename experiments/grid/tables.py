"""The tables of a grid compared with the paper's Table 2, as Markdown and as one HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.grid.pooled import Pooled
from experiments.grid.summary import Attribution, CellFigures, GridSummary, Judged, JudgedGroup, MeanGain
from reland_jax.files import write_text
from reland_jax.records import to_plain
from reland_jax.report.paper import BACKBONE_NAMES, NOTES
from reland_jax.report.plots import GainBar, gain_intervals, score_dots
from reland_jax.report.render import render
from reland_jax.report.tables import MISSING, Table, p_value, to_markdown
from reland_jax.report.words import may_improve, writer_warning
from reland_jax.types import COMPARED, NDCG
from reland_jax.variants import ABLATIONS, BY_NAME, F_ITEM, ID, RELAND, VARIANTS, Pair

if TYPE_CHECKING:
    from markupsafe import Markup

_TITLE = "Backbones and variants beside the paper's Table 2"
_TEMPLATE = "tables.html.j2"
_OVER_ID = Pair(RELAND.name, ID.name).name
_OVER_F_ITEM = Pair(RELAND.name, F_ITEM.name).name
_LEVEL_RULE = (
    "Test NDCG@10, mean over training seeds, of users by number of training interactions, L1 the fewest: "
    "a user's level says how many of the three quartiles its number exceeds. Equal numbers are on one level, "
    "so levels differ in size. The paper's Table 5 is of an online test: no figure of it compares with these."
)

_POOLED = (
    "What rationales are worth, over all backbones at once: a paired t test over users, where the value of a "
    "user is the mean over backbones of the difference, each variant averaged over the training seeds that "
    "both have. Holm's correction over this table."
)


def write_grid(folder: Path, table: GridSummary) -> None:
    """Writes ``table2.md`` and ``table2.html``, each aside and then renamed.

    Args:
        folder: where they go; it must exist.
        table: see `summarise_grid`.
    """
    for name, text in (("table2.md", grid_markdown(table)), ("table2.html", grid_page(table))):
        write_text(folder / name, text)


def grid_markdown(table: GridSummary) -> str:
    """Everything but the settings, as Markdown."""
    blocks = [f"# {_TITLE}", *(f"**Warning:** {text}" for text in warnings(table)), *notes(table)]
    for dataset in table.datasets:
        blocks += [f"## {dataset}", *dataset_words(table, dataset)]
        blocks += [to_markdown(one) for one in dataset_tables(table, dataset)]
    return "\n\n".join([*blocks, "## Environment", to_markdown(_environment(table))]) + "\n"


def grid_page(table: GridSummary) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    sections = [
        {
            "name": name,
            "words": dataset_words(table, name),
            "tables": dataset_tables(table, name),
            "plots": _plots(table, name, place),
        }
        for place, name in enumerate(table.datasets)
    ]
    settings = {
        f"{group.dataset}, {_backbone(group)}": json.dumps(
            to_plain({"pool": group.pool, "config": group.config}), indent=1
        )
        for group in table.groups
    }
    values = {
        "title": _TITLE,
        "dataset": "Table 2",
        "backbone": ", ".join(table.datasets),
        "notes": notes(table),
        "warnings": warnings(table),
        "sections": sections,
        "environment": _environment(table),
        "settings": settings,
    }
    return render(_TEMPLATE, values)


def notes(table: GridSummary) -> list[str]:
    """What holds for the whole grid: seeds, the test, and cells that failed."""
    seeds = ", ".join(map(str, table.training_seeds))
    told = [
        f"Training seeds {seeds}, fixed beforehand. A star is a gain (in tables of scores: over id) with "
        "p < 0.05: two-sided paired t test over users, each averaged over training seeds, and Holm's "
        f"correction over all {table.comparisons} comparisons of this grid. Ablations (permuted, noise) "
        "are tested against reland only."
    ]
    if table.fewest_seeds < table.enough_seeds:
        told.append(
            f"There are cells with fewer than {table.enough_seeds} training seeds (the least is "
            f"{table.fewest_seeds}): stars are preliminary."
        )
    for group in table.groups:
        for variant, cell in group.cells.items():
            for seed, why in cell.failed.items():
                told.append(f"{group.dataset}, {_backbone(group)}, {variant}, seed {seed} failed: {why}")
    return told


def warnings(table: GridSummary) -> list[str]:
    """What a reader must know before any number: trainings that might have gone on to improve."""
    cut = [
        f"{group.dataset} {_backbone(group)} {variant}"
        for group in table.groups
        for variant, cell in group.cells.items()
        if may_improve(cell.per_seed.epochs, cell.per_seed.best_epoch)
    ]
    if not cut:
        return []
    return [
        f"The best epoch was the last one that was trained of: {'; '.join(cut)}. With more epochs "
        "(--set=train.max_epochs=N) they might be better, and comparisons with them are not fair yet."
    ]


def _plots(table: GridSummary, dataset: str, place: int) -> list[Markup]:
    """The drawings of a data set; the gains with intervals first."""
    from markupsafe import Markup

    groups = _groups(table, dataset)
    bars = [
        GainBar(f"{_backbone(group)} {pair}", *shares, test.significant_gain)
        for group in groups
        for pair in (_OVER_ID, _OVER_F_ITEM)
        if (test := _test(group, pair, NDCG)) is not None and (base := test.mean_baseline)
        for shares in [(test.low / base, test.difference / base, test.high / base)]
    ]
    scores = {
        _backbone(group): {
            name: score
            for name in VARIANTS
            if name in group.cells and (score := group.cells[name].test[NDCG]) is not None
        }
        for group in groups
    }
    drawn = (gain_intervals(bars, f"gains-{place}"), score_dots(scores, f"scores-{place}"))
    return [Markup(drawing) for drawing in drawn]


def dataset_words(table: GridSummary, dataset: str) -> list[str]:
    """A summary of the tables of a data set, by rule."""
    groups, one = _groups(table, dataset), table.datasets[dataset]
    told = []
    if one.compared:
        told.append(
            f"reland >= f_item >= id in test NDCG@10 holds in {one.not_below} of {one.compared} "
            f"comparisons, in {one.significant} of them as a significant gain."
        )
    if one.id_with_paper:
        told.append(
            f"id is at or above the paper's NDCG@10 with {one.id_at_or_above_paper} of "
            f"{one.id_with_paper} backbones."
        )
    gain = one.mean_gains.get(_OVER_ID, {}).get(NDCG)
    if gain is not None and gain.ours is not None:
        paper = "" if gain.paper is None else f"; the paper's is {gain.paper:+.1%}"
        over = f"over id in test NDCG@10, {gain.backbones} backbones"
        told.append(f"Mean gain of reland {over}: {gain.ours:+.1%}{paper}.")
    told += [attribution_words(group) for group in groups]
    warnings = dict.fromkeys(writer_warning(group.pool.provider) for group in groups)
    return told + [text for text in (*warnings, NOTES.get(dataset, "")) if text]


def attribution_words(group: JudgedGroup) -> str:
    """Whether the gain of `reland` may be attributed to the LLM, by the ablations."""
    name, verdict = _backbone(group), group.attribution
    if verdict == Attribution.NO_ABLATION:
        return f"{name}: no ablation was trained, so the cause of the gain of reland is unknown."
    tests = {arm: _test(group, Pair(RELAND.name, arm).name, NDCG) for arm in ABLATIONS}
    below = {arm: test.significant_gain for arm, test in tests.items() if test is not None}
    gains = ", ".join(f"{arm} {_percent(group.controls_over_f_item[arm])}" for arm in below)
    over_texts = _test(group, _OVER_F_ITEM, NDCG)
    ours = _percent(over_texts.relative if over_texts else None)
    sentence = f"{name}: over f_item, reland gains {ours}, the ablations gain {gains}."
    if verdict == Attribution.CONTENT:
        return f"{sentence} All are significantly below reland: its gain is due to the content of rationales."
    if verdict == Attribution.NO_GAIN:
        return f"{sentence} There is no gain over f_item that could be due to the LLM."
    level = " and ".join(arm for arm, is_below in below.items() if not is_below)
    return f"{sentence} Not significantly below reland: {level}. The gain is not due to the LLM."


def dataset_tables(table: GridSummary, dataset: str) -> list[Table]:
    """All tables of a data set; a figure that is missing is a dash."""
    groups, variants = _groups(table, dataset), [each for each in BY_NAME if each in table.variants]
    made = [_scores(groups, variants, metric) for metric in COMPARED]
    if any(group.comparisons for group in groups):
        made += [_gains(groups, table.datasets[dataset].mean_gains, metric) for metric in COMPARED]
    if any(group.levels for group in groups):
        made.append(_levels(groups))
    made += [_trainings(groups, variants), _per_seed(groups, variants)]
    if any(group.comparisons for group in groups):
        made.append(_significance(groups))
    tests = table.pooled.get(dataset)
    return made + ([_pooled(tests)] if tests else [])


# --- the tables -----------------------------------------------------------------------------------


def _scores(groups: Sequence[JudgedGroup], variants: Sequence[str], metric: str) -> Table:
    papers = [v for v in variants if any(group.cells[v].paper for group in groups)]
    header = ["backbone"]
    for variant in variants:
        header += [variant, f"{variant} paper", f"{variant} − paper"] if variant in papers else [variant]
    rows = []
    for group in groups:
        row = [_backbone(group)]
        for variant in variants:
            cell = group.cells[variant]
            test = _test(group, Pair(variant, ID.name).name, metric)
            row.append(_figure(cell.test[metric]) + _star(test))
            if variant in papers:
                theirs, difference = cell.paper or {}, cell.difference or {}
                row += [_figure(theirs.get(metric)), _figure(difference.get(metric), "+.4f")]
        rows.append(row)
    source = ", the paper's Table 2 and the difference" if papers else ""
    return Table(f"Test {metric.upper()}, mean over training seeds{source}. {_writers(groups)}", header, rows)


def _gains(groups: Sequence[JudgedGroup], means: Mapping[str, Mapping[str, MeanGain]], metric: str) -> Table:
    tests = {pair: [_test(group, pair, metric) for group in groups] for pair in means}
    papers = [p for p in means if any(test and test.paper_relative is not None for test in tests[p])]
    header = ["backbone"]
    for pair in means:
        header += [pair, f"{pair} paper"] if pair in papers else [pair]
    rows = []
    for place, group in enumerate(groups):
        row = [_backbone(group)]
        for pair in means:
            test = tests[pair][place]
            row.append(_percent(test.relative if test else None) + _star(test))
            row += [_percent(test.paper_relative if test else None)] if pair in papers else []
        rows.append(row)
    if len(groups) > 1:
        row = ["mean"]
        for pair, metrics in means.items():
            row.append(_percent(metrics[metric].ours))
            row += [_percent(metrics[metric].paper)] if pair in papers else []
        rows.append(row)
    caption = f"Gain of the left of > over the right in test {metric.upper()}; * = p < 0.05 after Holm."
    return Table(caption, header, rows)


def _levels(groups: Sequence[JudgedGroup]) -> Table:
    rows = []
    for group in groups:
        for level in group.levels:
            low, high = level.interactions or (None, None)
            span = MISSING if low is None else f"{low}" if low == high else f"{low} to {high}"
            figures = [_figure(level.ndcg.get(variant)) for variant in VARIANTS]
            gains = [_percent(level.gains.get(pair)) for pair in (_OVER_ID, _OVER_F_ITEM)]
            rows.append((f"{_backbone(group)} {level.level}", f"{level.users:,}", span, *figures, *gains))
    header = ("backbone, level", "users", "interactions", *VARIANTS, _OVER_ID, _OVER_F_ITEM)
    return Table(_LEVEL_RULE, header, rows)


def _trainings(groups: Sequence[JudgedGroup], variants: Sequence[str]) -> Table:
    rows = []
    for name, cell in _cells(groups, variants):
        valid = [_figure(cell.valid[metric]) for metric in COMPARED]
        epochs = [_listed(counts, "d") for counts in (cell.per_seed.epochs, cell.per_seed.best_epoch)]
        seconds = _figure(cell.seconds_per_epoch, ".3g")
        rows.append((name, str(len(cell.seeds)), *valid, *epochs, seconds))
    header = ("backbone, variant", "seeds", *(f"valid {metric.upper()}" for metric in COMPARED))
    header += ("epochs", "best epochs", "s/epoch")
    return Table("Trainings: validation, epochs seed by seed, median seconds per epoch.", header, rows)


def _per_seed(groups: Sequence[JudgedGroup], variants: Sequence[str]) -> Table:
    rows = []
    for name, cell in _cells(groups, variants):
        parts = (cell.per_seed.test, cell.per_seed.valid)
        rows.append((name, *(_listed(part[metric], ".4f") for part in parts for metric in COMPARED)))
    header = ("backbone, variant", *(f"{part} {m.upper()}" for part in ("test", "valid") for m in COMPARED))
    return Table("The same seed by seed.", header, rows)


def _significance(groups: Sequence[JudgedGroup]) -> Table:
    rows = []
    for group in groups:
        for pair, metrics in group.comparisons.items():
            for metric, test in metrics.items():
                interval = f"{_figure(test.low, '+.4f')} to {_figure(test.high, '+.4f')}"
                figures = (_figure(test.difference, "+.4f"), interval)
                p_values = (p_value(test.p_value), p_value(test.p_holm))
                name = f"{_backbone(group)} {pair} {metric.upper()}"
                rows.append((name, str(len(test.seeds)), *figures, *p_values))
    caption = "Differences over test users, first variant minus second: positive means the first is better."
    return Table(caption, ("comparison", "seeds", "difference", "95% interval", "p", "p after Holm"), rows)


def _pooled(tests: Mapping[str, Mapping[str, Pooled]]) -> Table:
    rows = []
    for pair, metrics in tests.items():
        for metric, test in metrics.items():
            counts = (str(len(test.backbones)), _listed(test.seeds, "d"), f"{test.users:,}")
            figures = (_figure(test.difference, "+.4f"), _percent(test.relative))
            interval = f"{_figure(test.low, '+.4f')} to {_figure(test.high, '+.4f')}"
            p_values = (p_value(test.p_value), p_value(test.p_holm))
            rows.append((f"{pair} {metric.upper()}", *counts, *figures, interval, *p_values))
    header = ("comparison", "backbones", "seeds", "users", "difference", "relative", "95% interval", "p")
    return Table(_POOLED, (*header, "p after Holm"), rows)


def _environment(table: GridSummary) -> Table:
    rows = [(name, str(value)) for name, value in table.environment.items()]
    return Table("What the grid ran on.", ("name", "value"), rows)


# --- pieces ---------------------------------------------------------------------------------------


def _groups(table: GridSummary, dataset: str) -> list[JudgedGroup]:
    return [group for group in table.groups if group.dataset == dataset]


def _backbone(group: JudgedGroup) -> str:
    return BACKBONE_NAMES.get(group.backbone, group.backbone)


def _cells(groups: Sequence[JudgedGroup], variants: Sequence[str]) -> list[tuple[str, CellFigures]]:
    return [(f"{_backbone(group)} {v}", group.cells[v]) for group in groups for v in variants]


def _test(group: JudgedGroup, pair: str, metric: str) -> Judged | None:
    return group.comparisons.get(pair, {}).get(metric)


def _star(test: Judged | None) -> str:
    return "*" if test is not None and test.significant_gain else ""


def _writers(groups: Sequence[JudgedGroup]) -> str:
    models = list(dict.fromkeys(model for group in groups for model in group.pool.models))
    writers = ", ".join(models) or "unknown writers"
    return f"The paper's rationales come from ChatGPT-3.5, these from {writers}."


def _figure(value: float | None, form: str = ".4f") -> str:
    return MISSING if value is None or not math.isfinite(value) else format(value, form)


def _percent(value: float | None) -> str:
    return _figure(value, "+.1%")


def _listed(values: Sequence[float | None], form: str) -> str:
    return " ".join(_figure(value, form) for value in values) or MISSING
