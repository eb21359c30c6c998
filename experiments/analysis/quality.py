"""The paper's Table 2 and what the words are worth: claims judged by the grid and its pooled tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set

from experiments.analysis.findings import Finding, Part, judged, not_testable
from experiments.grid.pooled import Pooled, pooled_tests
from experiments.grid.scores import Group
from experiments.grid.summary import GridSummary, JudgedGroup, summarise_grid, summarise_group
from experiments.grid.tables import dataset_tables, dataset_words
from reland_jax.config import BACKBONES
from reland_jax.eval.significance import is_gain
from reland_jax.report.paper import NOTES, TABLE_2, paper_name
from reland_jax.types import COMPARED
from reland_jax.variants import EXPECTED, F_ITEM, ID, RELAND, Pair

TITLE = "Table 2: backbones and variants; what the words are worth"
_BARRED = "no large language model wrote these rationales"
_OF_PAPER = {
    Pair(RELAND.name, ID.name): "ReLand improves every backbone.",
    Pair(RELAND.name, F_ITEM.name): "ReLand is above the backbone with item features.",
    Pair(F_ITEM.name, ID.name): "Item features improve every backbone.",
}
_OF_CONTROL = {
    F_ITEM.name: "Rationales help beyond item texts, over all backbones.",
    "permuted": "The words of the user's own seed users help (control: those of other seed users).",
    "noise": "Words help (control: random vectors).",
    "seed_id": "Words help beyond being matched (control: a learned vector of the seed user).",
    "heuristic": "An LLM helps beyond counting over the same histories (control: a text without an LLM).",
}


def grid_of(groups: Sequence[Group], environment: Mapping[str, object]) -> GridSummary:
    """The grid of kept cells; of their groups no levels of activity are known."""
    summaries = [dataclasses.replace(summarise_group(group), levels=()) for group in groups]
    return summarise_grid(summaries, groups[0].config, environment, pooled_tests(groups))


def quality(grid: GridSummary, words: Sequence[str] = ()) -> Part:
    """Table 2 with its claims.

    Args:
        grid: trained, or kept.
        words: said before the tables.
    """
    findings = [one for dataset in grid.datasets for one in _findings(grid, dataset)]
    told = [f"{name}: {text}" for name in grid.datasets for text in dataset_words(grid, name)]
    tables = [
        table._replace(caption=f"{name}. {table.caption}")
        for name in grid.datasets
        for table in dataset_tables(grid, name)
    ]
    return Part("table2", TITLE, findings, [*words, *told], tables)


def _findings(grid: GridSummary, dataset: str) -> Iterator[Finding]:
    groups = [group for group in grid.groups if group.dataset == dataset]
    by_llm = _by_llm(groups)
    for pair in EXPECTED:
        yield _expected(pair, dataset, groups, by_llm)
    yield _mean_gain(dataset, groups, by_llm)
    yield _fair(grid, dataset)
    for control in _OF_CONTROL:
        yield _words(control, dataset, grid.pooled.get(dataset, {}), by_llm)


def _by_llm(groups: Sequence[JudgedGroup]) -> str:
    return barred({group.pool.provider for group in groups})


def barred(writers: Set[str]) -> str:
    """Why rationales of these providers say nothing about an LLM; "" where they do."""
    if writers & {""}:
        return "it is not known who wrote the rationales"
    return _BARRED if writers & {"heuristic"} else ""


def _expected(pair: Pair, dataset: str, groups: Sequence[JudgedGroup], by_llm: str) -> Finding:
    """Backbone by backbone: all above zero, in both metrics."""
    compared = [group.comparisons.get(pair.name, {}) for group in groups if group.backbone in BACKBONES]
    found = [each for each in compared if len(each) == len(COMPARED)]
    claim = _OF_PAPER[pair]
    if not found:
        return not_testable(claim, dataset, f"no backbone has both {pair.ours} and {pair.base}")
    counts = {
        metric: (
            sum(each[metric].difference > 0 for each in found),
            sum(each[metric].significant_gain for each in found),
        )
        for metric in COMPARED
    }
    told = "; ".join(
        f"{metric.upper()} {above} of {len(found)} above, {marked} significant"
        for metric, (above, marked) in counts.items()
    )
    if RELAND.name in pair and by_llm:
        return not_testable(claim, dataset, by_llm, told)
    if len(found) < len(BACKBONES):
        return not_testable(claim, dataset, f"{len(found)} of {len(BACKBONES)} backbones are here", told)
    holds = all(above == len(found) for above, _ in counts.values())
    why = "every backbone has the sign" if holds else "not every backbone has the sign, in both metrics"
    return judged(claim, dataset, told, holds, why)


def _mean_gain(dataset: str, groups: Sequence[JudgedGroup], by_llm: str) -> Finding:
    """Over the paper's backbones; others that are in the grid have no figures there."""
    claim = "The mean gain of ReLand over the backbones is at least the paper's."
    name, known = Pair(RELAND.name, ID.name).name, {}
    for metric in COMPARED:
        compared = [group.comparisons.get(name, {}) for group in groups]
        found = [each[metric] for each in compared if metric in each]
        gains = [(one.relative, one.paper_relative) for one in found if one.relative is not None]
        both = [(ours, paper) for ours, paper in gains if paper is not None]
        if both:
            known[metric] = [sum(each) / len(both) for each in zip(*both, strict=True)]
    if len(known) < len(COMPARED):
        return not_testable(claim, dataset, "reland or id is missing, or the paper has no figures")
    told = "; ".join(f"{metric.upper()} {a:+.1%}, paper {b:+.1%}" for metric, (a, b) in known.items())
    if note := by_llm or NOTES.get(dataset, ""):
        return not_testable(claim, dataset, note, told)
    holds = all(ours >= paper for ours, paper in known.values())
    return judged(claim, dataset, told, holds, "means over the paper's backbones that are here")


def _fair(grid: GridSummary, dataset: str) -> Finding:
    claim = "Our plain backbones are no weaker than the paper's, so that gains are not over a weak base."
    one = grid.datasets[dataset]
    if not one.id_with_paper:
        return not_testable(claim, dataset, "the paper has no figures of this data set")
    told = f"id is at or above the paper's NDCG@10 with {one.id_at_or_above_paper} of {one.id_with_paper}"
    if note := NOTES.get(dataset, ""):
        return not_testable(claim, dataset, note, told)
    absent = sum(key[0] == paper_name(dataset) and key[2] == ID.name for key in TABLE_2) - one.id_with_paper
    holds = one.id_at_or_above_paper == one.id_with_paper
    return judged(claim, dataset, told, holds, f"{absent} of the paper's backbones are not here")


def _words(control: str, dataset: str, tests: Mapping[str, Mapping[str, Pooled]], by_llm: str) -> Finding:
    """One pooled test per control: a gain with p < 0.05 after Holm in both metrics."""
    pair = Pair(RELAND.name, control)
    found = tests.get(pair.name, {})
    if len(found) < len(COMPARED):
        return not_testable(_OF_CONTROL[control], dataset, f"{control} was not trained")
    told = "; ".join(f"{name.upper()} {_told(one)}" for name, one in found.items())
    one = next(iter(found.values()))
    told += f"; {len(one.backbones)} backbones, {min(one.seeds)} to {max(one.seeds)} training seeds"
    if by_llm:
        return not_testable(_OF_CONTROL[control], dataset, by_llm, told)
    holds = all(is_gain(one.difference, one.p_holm) for one in found.values())
    why = "a gain over all backbones, p < 0.05 after Holm in both metrics" if holds else (
        "no gain over all backbones with p < 0.05 after Holm in both metrics"
    )  # fmt: skip
    return judged(_OF_CONTROL[control], dataset, told, holds, why)


def _told(one: Pooled) -> str:
    share = "" if one.relative is None else f" ({one.relative:+.1%})"
    return f"{one.difference:+.5f}{share}, p = {one.p_value:.2g}, after Holm {one.p_holm:.2g}"
