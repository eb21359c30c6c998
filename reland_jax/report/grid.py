"""The tables of a grid compared with the paper's Table 2, as Markdown and as one HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reland_jax.files import write_text
from reland_jax.report.paper import BACKBONE_NAMES, NOTES
from reland_jax.report.render import render
from reland_jax.report.tables import MISSING, Table, p_value, to_markdown
from reland_jax.report.words import writer_warning
from reland_jax.variants import ABLATIONS, BY_NAME, EXPECTED, ID, RELAND, VARIANTS, Pair

METRICS = ("ndcg@10", "hr@10")
_MAIN = METRICS[0]
_TITLE = "Backbones and variants beside the paper's Table 2"
_TEMPLATE = "grid.html.j2"
_OVER = tuple(pair.name for pair in EXPECTED if pair.ours == RELAND.name)
_LEVEL_RULE = (
    "Test NDCG@10, mean over training seeds, of users by number of training interactions, L1 the fewest: "
    "a user's level says how many of the three quartiles its number exceeds. Equal numbers are on one level, "
    "so levels differ in size. The paper's Table 5 is of an online test: no figure of it compares with these."
)


def write_grid(folder: Path, table: Mapping[str, Any]) -> None:
    """Writes ``table2.md`` and ``table2.html``, each aside and then renamed.

    Args:
        folder: where they go; it must exist.
        table: the content of table2.json.
    """
    for name, text in (("table2.md", grid_markdown(table)), ("table2.html", grid_page(table))):
        write_text(folder / name, text)


def grid_markdown(table: Mapping[str, Any]) -> str:
    """Everything but the settings, as Markdown."""
    blocks = [f"# {_TITLE}", *notes(table)]
    for dataset in table["datasets"]:
        blocks += [f"## {dataset}", *dataset_words(table, dataset)]
        blocks += [to_markdown(one) for one in dataset_tables(table, dataset)]
    return "\n\n".join([*blocks, "## Environment", to_markdown(_environment(table))]) + "\n"


def grid_page(table: Mapping[str, Any]) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    sections = [
        {"name": name, "words": dataset_words(table, name), "tables": dataset_tables(table, name)}
        for name in table["datasets"]
    ]
    settings = {
        f"{group['dataset']}, {_backbone(group)}": json.dumps(
            {"pool": group["pool"], "config": group["config"]}, indent=1
        )
        for group in table["groups"]
    }
    values = {
        "title": _TITLE,
        "dataset": "Table 2",
        "backbone": ", ".join(table["datasets"]),
        "notes": notes(table),
        "sections": sections,
        "environment": _environment(table),
        "settings": settings,
    }
    return render(_TEMPLATE, values)


def notes(table: Mapping[str, Any]) -> list[str]:
    """What holds for the whole grid: seeds, the test, and cells that failed."""
    seeds = ", ".join(map(str, table["training_seeds"]))
    told = [
        f"Training seeds {seeds}, fixed beforehand. A star is a gain (in tables of scores: over id) with "
        "p < 0.05: two-sided paired t test over users, each averaged over training seeds, and Holm's "
        f"correction over all {table['comparisons']} comparisons of this grid. Controls (permuted, noise) "
        "are tested against reland only."
    ]
    if table["fewest_seeds"] < table["enough_seeds"]:
        told.append(
            f"There are cells with fewer than {table['enough_seeds']} training seeds (the least is "
            f"{table['fewest_seeds']}): stars are preliminary."
        )
    for group in table["groups"]:
        for variant, cell in group["cells"].items():
            for seed, why in cell["failed"].items():
                told.append(f"{group['dataset']}, {_backbone(group)}, {variant}, seed {seed} failed: {why}")
    return told


def dataset_words(table: Mapping[str, Any], dataset: str) -> list[str]:
    """A summary of the tables of a data set, by rule."""
    groups, one = _groups(table, dataset), table["datasets"][dataset]
    told = []
    if one["compared"]:
        told.append(
            f"reland >= f_item >= id in test NDCG@10 holds in {one['not_below']} of {one['compared']} "
            f"comparisons, in {one['significant']} of them as a significant gain."
        )
    if one["id_with_paper"]:
        told.append(
            f"id is at or above the paper's NDCG@10 with {one['id_at_or_above_paper']} of "
            f"{one['id_with_paper']} backbones."
        )
    gain = one["mean_gains"].get(_OVER[0], {}).get(_MAIN, {})
    if gain.get("ours") is not None:
        paper = "" if gain["paper"] is None else f"; the paper's is {gain['paper']:+.1%}"
        over = f"over id in test NDCG@10, {gain['backbones']} backbones"
        told.append(f"Mean gain of reland {over}: {gain['ours']:+.1%}{paper}.")
    told += [attribution_words(group) for group in groups]
    warnings = dict.fromkeys(writer_warning(group["pool"]["provider"]) for group in groups)
    return told + [text for text in (*warnings, NOTES.get(dataset, "")) if text]


def attribution_words(group: Mapping[str, Any]) -> str:
    """Whether the gain of `reland` may be attributed to the LLM, by the controls."""
    name, verdict = _backbone(group), group["attribution"]
    if verdict == "no_control":
        return f"{name}: no control arm was compared, so whose the gain of reland is cannot be said."
    found = {pair: metrics.get(_MAIN, {}) for pair, metrics in group["comparisons"].items()}
    arms = {control: group["controls_over_f_item"].get(control) for control in ABLATIONS}
    arms = {control: arm for control, arm in arms.items() if found.get(Pair(RELAND.name, control).name)}
    gains = ", ".join(f"{control} {_percent(arm)}" for control, arm in arms.items())
    ours = _percent(found.get(_OVER[1], {}).get("relative"))
    sentence = f"{name}: over f_item, reland gains {ours}, the controls gain {gains}."
    if verdict == "content":
        return f"{sentence} All are below reland with significance: its gain lies in what rationales say."
    if verdict == "no_gain":
        return f"{sentence} There is no gain over f_item that could be the LLM's."
    level = " and ".join(c for c in arms if not found[Pair(RELAND.name, c).name]["significant_gain"])
    return f"{sentence} Not below reland with significance: {level}. The gain is not the LLM's."


def dataset_tables(table: Mapping[str, Any], dataset: str) -> list[Table]:
    """All tables of a data set; a figure that is missing is a dash."""
    groups, variants = _groups(table, dataset), _in_order(table["variants"])
    made = [_scores(groups, variants, metric) for metric in METRICS]
    if any(group["comparisons"] for group in groups):
        made += [_gains(groups, table["datasets"][dataset], metric) for metric in METRICS]
    if RELAND.name in variants:
        made.append(_levels(groups))
    made += [_trainings(groups, variants), _per_seed(groups, variants)]
    return made + ([_significance(groups)] if any(group["comparisons"] for group in groups) else [])


# --- the tables -----------------------------------------------------------------------------------


def _scores(groups: Sequence[Mapping[str, Any]], variants: Sequence[str], metric: str) -> Table:
    papers = [v for v in variants if any(group["cells"][v]["paper"] for group in groups)]
    header = ["backbone"]
    for variant in variants:
        header += [variant, f"{variant} paper", f"{variant} − paper"] if variant in papers else [variant]
    rows = []
    for group in groups:
        row = [_backbone(group)]
        for variant in variants:
            cell = group["cells"][variant]
            star = "*" if _test(group, Pair(variant, ID.name).name, metric).get("significant_gain") else ""
            row.append(_figure(cell["test"][metric]) + star)
            if variant in papers:
                theirs, difference = cell["paper"] or {}, cell["difference"] or {}
                row += [_figure(theirs.get(metric)), _figure(difference.get(metric), "+.4f")]
        rows.append(row)
    source = ", the paper's Table 2 and the difference" if papers else ""
    return Table(f"Test {metric.upper()}, mean over training seeds{source}. {_writers(groups)}", header, rows)


def _gains(groups: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any], metric: str) -> Table:
    means = dataset["mean_gains"]
    papers = [p for p in means if any(_test(g, p, metric).get("paper_relative") is not None for g in groups)]
    header = ["backbone"]
    for pair in means:
        header += [pair, f"{pair} paper"] if pair in papers else [pair]
    rows = []
    for group in groups:
        row = [_backbone(group)]
        for pair in means:
            test = _test(group, pair, metric)
            row.append(_percent(test.get("relative")) + ("*" if test.get("significant_gain") else ""))
            row += [_percent(test.get("paper_relative"))] if pair in papers else []
        rows.append(row)
    if len(groups) > 1:
        row = ["mean"]
        for pair, metrics in means.items():
            row.append(_percent(metrics[metric]["ours"]))
            row += [_percent(metrics[metric]["paper"])] if pair in papers else []
        rows.append(row)
    caption = f"Gain of the left of > over the right in test {metric.upper()}; * = p < 0.05 after Holm."
    return Table(caption, header, rows)


def _levels(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for group in groups:
        for level in group["levels"]:
            low, high = level["interactions"] or (None, None)
            span = MISSING if low is None else f"{low}" if low == high else f"{low} to {high}"
            figures = [_figure(level[_MAIN].get(variant)) for variant in VARIANTS]
            gains = [_percent(level["gains"].get(pair)) for pair in _OVER]
            name = f"{_backbone(group)} {level['level']}"
            rows.append((name, f"{level['users']:,}", span, *figures, *gains))
    header = ("backbone, level", "users", "interactions", *VARIANTS, *_OVER)
    return Table(_LEVEL_RULE, header, rows)


def _trainings(groups: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> Table:
    rows = []
    for name, cell in _cells(groups, variants):
        valid = [_figure(cell["valid"][metric]) for metric in METRICS]
        epochs = [_listed(cell["per_seed"][field], "d") for field in ("epochs", "best_epoch")]
        seconds = _figure(cell["seconds_per_epoch"], ".3g")
        rows.append((name, str(len(cell["seeds"])), *valid, *epochs, seconds))
    header = ("backbone, variant", "seeds", *(f"valid {metric.upper()}" for metric in METRICS))
    header += ("epochs", "best epochs", "s/epoch")
    return Table("Trainings: validation, epochs seed by seed, median seconds per epoch.", header, rows)


def _per_seed(groups: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> Table:
    parts = [(part, metric) for part in ("test", "valid") for metric in METRICS]
    rows = [
        (name, *(_listed(cell["per_seed"][part][metric], ".4f") for part, metric in parts))
        for name, cell in _cells(groups, variants)
    ]
    header = ("backbone, variant", *(f"{part} {metric.upper()}" for part, metric in parts))
    return Table("The same seed by seed.", header, rows)


def _significance(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for group in groups:
        for pair, metrics in group["comparisons"].items():
            for metric, test in metrics.items():
                interval = f"{_figure(test['low'], '+.4f')} to {_figure(test['high'], '+.4f')}"
                figures = (_figure(test["difference"], "+.4f"), interval)
                p_values = (p_value(test["p_value"]), p_value(test["p_holm"]))
                name = f"{_backbone(group)} {pair} {metric.upper()}"
                rows.append((name, str(len(test["seeds"])), *figures, *p_values))
    caption = "Left of > minus right of >, over test users: positive means the left is better."
    return Table(caption, ("comparison", "seeds", "difference", "95% interval", "p", "p after Holm"), rows)


def _environment(table: Mapping[str, Any]) -> Table:
    rows = [(name, str(value)) for name, value in table["environment"].items()]
    return Table("What the grid ran on.", ("name", "value"), rows)


# --- pieces ---------------------------------------------------------------------------------------


def _groups(table: Mapping[str, Any], dataset: str) -> list[Mapping[str, Any]]:
    return [group for group in table["groups"] if group["dataset"] == dataset]


def _in_order(variants: Sequence[str]) -> list[str]:
    return [variant for variant in BY_NAME if variant in variants]


def _backbone(group: Mapping[str, Any]) -> str:
    return BACKBONE_NAMES.get(group["backbone"], group["backbone"])


def _cells(
    groups: Sequence[Mapping[str, Any]], variants: Sequence[str]
) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"{_backbone(group)} {v}", group["cells"][v]) for group in groups for v in variants]


def _test(group: Mapping[str, Any], pair: str, metric: str) -> Mapping[str, Any]:
    return group["comparisons"].get(pair, {}).get(metric, {})


def _writers(groups: Sequence[Mapping[str, Any]]) -> str:
    models = list(dict.fromkeys(model for group in groups for model in group["pool"]["models"]))
    return f"The paper's rationales come from ChatGPT-3.5, these from {', '.join(models)}."


def _figure(value: float | None, form: str = ".4f") -> str:
    return MISSING if value is None or not math.isfinite(value) else format(value, form)


def _percent(value: float | None) -> str:
    return _figure(value, "+.1%")


def _listed(values: Sequence[float | None], form: str) -> str:
    return " ".join(_figure(value, form) for value in values) or MISSING
