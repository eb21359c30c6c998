"""A grid of backbones, variants and training seeds, summarised as the paper's Table 2.

Groups are summarised separately, so that a new cell costs the comparisons of its group only; `summarise_grid`
combines them and does what needs all of them: Holm's correction.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.grid.pooled import PooledTests
from experiments.grid.scores import Group, GroupPool, Scores
from reland_jax.config import Config
from reland_jax.eval.significance import Comparison, holm, is_gain, paired_comparison, stars
from reland_jax.overview import Figures, Level, levels_of, mean_or_none, relative
from reland_jax.presets import row_name
from reland_jax.report.paper import TABLE_2, paper_name
from reland_jax.results import PerSeed
from reland_jax.types import COMPARED, NDCG, PARTS
from reland_jax.variants import ABLATIONS, EXPECTED, F_ITEM, ID, PAIRS, RELAND, VARIANTS, Pair

ENOUGH_SEEDS = 5


@dataclasses.dataclass(frozen=True)
class CellFigures:
    """One cell.

    Attributes:
        seeds: training seeds that are finished.
        valid: means over them of the metrics on validation.
        test: the same on test.
        seconds_per_epoch: median over them.
        per_seed: the same seed by seed.
        paper: the paper's test metrics; None where it has none.
        difference: `test` minus `paper`.
        failed: training seed -> why it has no figures.
    """

    seeds: Sequence[int]
    valid: Figures
    test: Figures
    seconds_per_epoch: float | None
    per_seed: PerSeed
    paper: Mapping[str, float] | None
    difference: Mapping[str, float] | None
    failed: Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class Contrast(Comparison):
    """Two cells of a group, compared over users.

    Attributes:
        seeds: training seeds of both, over which users are averaged.
        paper_relative: the paper's relative gain; None where it has none.
    """

    seeds: Sequence[int]
    paper_relative: float | None


@dataclasses.dataclass(frozen=True)
class Judged(Contrast):
    """A contrast among all of the grid.

    Attributes:
        p_holm: p-value after Holm's correction over the grid.
        stars: its mark.
        significant_gain: whether ours is better with significance.
    """

    p_holm: float
    stars: str
    significant_gain: bool


@dataclasses.dataclass(frozen=True)
class GroupSummary:
    """A group.

    Attributes:
        dataset: name.
        backbone: name.
        protocol: of the split.
        objective: see `TrainConfig`.
        cells: by variant.
        comparisons: pair -> metric -> contrast; without those that cannot be made.
        controls_over_f_item: ablation -> its relative gain over `f_item` in test NDCG@10.
        levels: by level of activity; empty where no seed is finished.
        pool: the reasoning pool.
        config: all settings.
    """

    dataset: str
    backbone: str
    protocol: str
    objective: str
    cells: Mapping[str, CellFigures]
    comparisons: Mapping[str, Mapping[str, Contrast]]
    controls_over_f_item: Figures
    levels: Sequence[Level]
    pool: GroupPool
    config: Mapping[str, object]


class Attribution(enum.StrEnum):
    """Whose the gain of `reland` is, by its ablations."""

    NO_ABLATION = "no_control"
    """None was compared."""
    NOT_LLM = "not_llm"
    """An ablation is not below `reland` with significance."""
    NO_GAIN = "no_gain"
    """All are, but `reland` is not above `f_item`."""
    CONTENT = "content"
    """It is due to the content of the rationales."""


@dataclasses.dataclass(frozen=True)
class JudgedGroup(GroupSummary):
    """A group among all of the grid."""

    comparisons: Mapping[str, Mapping[str, Judged]]
    attribution: Attribution


@dataclasses.dataclass(frozen=True)
class MeanGain:
    """Mean relative gain over the backbones that have one; None unless all that are compared do.

    Attributes:
        backbones: that are compared.
        ours: the mean.
        paper: the paper's.
    """

    backbones: int
    ours: float | None
    paper: float | None


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """All groups of a data set.

    Attributes:
        mean_gains: pair -> metric -> mean gain.
        compared: comparisons of `EXPECTED` in test NDCG@10.
        not_below: of them, those where ours is not below.
        significant: of them, those with a significant gain.
        id_with_paper: backbones whose `id` can be compared with the paper's.
        id_at_or_above_paper: of them, those not below the paper's.
    """

    mean_gains: Mapping[str, Mapping[str, MeanGain]]
    compared: int
    not_below: int
    significant: int
    id_with_paper: int
    id_at_or_above_paper: int


@dataclasses.dataclass(frozen=True)
class GridSummary:
    """The content of table2.json.

    Attributes:
        training_seeds: of every cell.
        variants: of every group.
        fewest_seeds: that a cell has.
        enough_seeds: with fewer, stars are preliminary.
        comparisons: how many Holm's correction runs over.
        datasets: by name.
        pooled: the tests over all backbones of a data set.
        groups: in the order in which they are shown.
        environment: versions and device.
    """

    training_seeds: Sequence[int]
    variants: Sequence[str]
    fewest_seeds: int
    enough_seeds: int
    comparisons: int
    datasets: Mapping[str, DatasetSummary]
    pooled: PooledTests
    groups: Sequence[JudgedGroup]
    environment: Mapping[str, object]


def summarise_group(group: Group) -> GroupSummary:
    """Cells, comparisons before correction, and activity levels of a group.

    A comparison, and a gain, is over the training seeds that both variants have.
    """
    config, runs = group.config, group.runs
    dataset, backbone = os.path.basename(config.data.name.rstrip("/")), row_name(config)
    of_paper = paper_name(dataset)
    paper = {name: TABLE_2[key] for name in VARIANTS if (key := (of_paper, backbone, name)) in TABLE_2}
    present = set(config.variants)
    return GroupSummary(
        dataset=dataset,
        backbone=backbone,
        protocol=group.protocol,
        objective=config.train.objective,
        cells={name: _cell(runs[name], group.failed[name], paper.get(name)) for name in config.variants},
        comparisons={pair.name: _compare(runs, pair, paper) for pair in PAIRS if {*pair} <= present},
        controls_over_f_item={
            name: _relative_of(runs, Pair(name, F_ITEM.name)) for name in ABLATIONS if name in present
        },
        levels=_levels(group),
        pool=group.pool,
        config=config.to_keep(),
    )


def summarise_grid(
    groups: Sequence[GroupSummary], config: Config, environment: Mapping[str, object], pooled: PooledTests
) -> GridSummary:
    """All groups, with Holm's correction over all their comparisons.

    Args:
        groups: in the order in which they are shown.
        config: of any of them: they share variants and training seeds.
        environment: versions and device.
        pooled: see `experiments.grid.pooled`; a test of its own beside Holm's family of the groups.
    """
    judged = _judged(groups)
    names = dict.fromkeys(group.dataset for group in judged)
    return GridSummary(
        training_seeds=config.seeds_of_training,
        variants=config.variants,
        fewest_seeds=min((len(cell.seeds) for group in judged for cell in group.cells.values()), default=0),
        enough_seeds=ENOUGH_SEEDS,
        comparisons=sum(len(metrics) for group in judged for metrics in group.comparisons.values()),
        datasets={name: _dataset([group for group in judged if group.dataset == name]) for name in names},
        pooled=pooled,
        groups=judged,
        environment=environment,
    )


# --- a group --------------------------------------------------------------------------------------


def _cell(
    runs: Mapping[int, Scores], failed: Mapping[int, str], paper: Mapping[str, float] | None
) -> CellFigures:
    seeds = sorted(runs)
    summaries = [runs[seed].summary for seed in seeds]
    valid, test = (
        {name: [getattr(each, part)[name] for each in summaries] for name in COMPARED} for part in PARTS
    )
    seconds = [each.seconds_per_epoch for each in summaries]
    difference = None
    if paper and seeds:
        difference = {name: float(np.mean(test[name])) - paper[name] for name in COMPARED}
    return CellFigures(
        seeds=seeds,
        valid={name: mean_or_none(values) for name, values in valid.items()},
        test={name: mean_or_none(values) for name, values in test.items()},
        seconds_per_epoch=float(np.median(seconds)) if seeds else None,
        per_seed=PerSeed(
            valid, test, [each.epochs for each in summaries], [each.best_epoch for each in summaries], seconds
        ),
        paper=paper,
        difference=difference,
        failed=failed,
    )


def _compare(
    runs: Mapping[str, Mapping[int, Scores]], pair: Pair, paper: Mapping[str, Mapping[str, float]]
) -> dict[str, Contrast]:
    """Metric -> paired comparison and the paper's relative gain; nothing where there is none to make."""
    seeds = _shared_seeds(runs, pair)
    theirs, base = paper.get(pair.ours), paper.get(pair.base)
    found = {}
    for name in COMPARED if seeds else ():
        a, b = (_over_seeds(runs[variant], seeds, name) for variant in pair)
        if len(a) > 1 and np.isfinite(a).all() and np.isfinite(b).all():
            gain = theirs[name] / base[name] - 1 if theirs and base else None
            found[name] = Contrast(**vars(paired_comparison(a, b)), seeds=seeds, paper_relative=gain)
    return found


def _levels(group: Group) -> list[Level]:
    """Test NDCG@10 and the gains of `reland` by level, over the seeds that all of `VARIANTS` have."""
    variants = [variant for variant in VARIANTS if group.runs.get(variant)]
    seeds = _shared_seeds(group.runs, variants)
    if not seeds:
        return []
    activity = group.activity[group.runs[variants[0]][seeds[0]].users]
    return levels_of(
        activity, {variant: _over_seeds(group.runs[variant], seeds, NDCG) for variant in variants}
    )


def _relative_of(runs: Mapping[str, Mapping[int, Scores]], pair: Pair) -> float | None:
    seeds = _shared_seeds(runs, pair)
    if not seeds:
        return None
    return relative(*(mean_or_none(_over_seeds(runs[variant], seeds, NDCG)) for variant in pair))


def _shared_seeds(runs: Mapping[str, Mapping[int, Scores]], variants: Sequence[str]) -> list[int]:
    return sorted(set.intersection(*(set(runs.get(v, ())) for v in variants))) if variants else []


def _over_seeds(runs: Mapping[int, Scores], seeds: Sequence[int], name: str) -> np.ndarray:
    """A metric of every user averaged over training seeds, ``<float64>[n]``."""
    return np.mean([runs[seed].test[name] for seed in seeds], axis=0)


# --- the grid -------------------------------------------------------------------------------------


def _judged(groups: Sequence[GroupSummary]) -> list[JudgedGroup]:
    """The groups with Holm's correction over all their comparisons."""
    found = [one for group in groups for metrics in group.comparisons.values() for one in metrics.values()]
    adjusted = iter(holm([one.p_value for one in found]).tolist())
    judged = []
    for group in groups:
        comparisons = {
            pair: {name: _verdict(one, next(adjusted)) for name, one in metrics.items()}
            for pair, metrics in group.comparisons.items()
        }
        values = vars(group) | {"comparisons": comparisons, "attribution": _attribution(comparisons)}
        judged.append(JudgedGroup(**values))
    return judged


def _verdict(one: Contrast, p_holm: float) -> Judged:
    gains = is_gain(one.difference, p_holm)
    return Judged(**vars(one), p_holm=p_holm, stars=stars(p_holm), significant_gain=gains)


def _attribution(comparisons: Mapping[str, Mapping[str, Judged]]) -> Attribution:
    found = {pair: metrics[NDCG] for pair, metrics in comparisons.items() if NDCG in metrics}
    over = [found[pair.name] for pair in PAIRS if pair.base in ABLATIONS and pair.name in found]
    if not over:
        return Attribution.NO_ABLATION
    if not all(one.significant_gain for one in over):
        return Attribution.NOT_LLM
    over_texts = found.get(Pair(RELAND.name, F_ITEM.name).name)
    return Attribution.NO_GAIN if over_texts and over_texts.difference <= 0 else Attribution.CONTENT


def _dataset(groups: Sequence[JudgedGroup]) -> DatasetSummary:
    """Mean gains over the backbones of a data set, and how many comparisons came out as expected."""
    found = [one for pair in EXPECTED for one in _select(groups, pair, NDCG)]
    plain = [group.cells[ID.name].difference for group in groups if ID.name in group.cells]
    against_paper = [difference[NDCG] for difference in plain if difference]
    pairs = [pair for pair in PAIRS if any(pair.name in group.comparisons for group in groups)]
    return DatasetSummary(
        mean_gains={
            pair.name: {name: _mean_gain(_select(groups, pair, name)) for name in COMPARED} for pair in pairs
        },
        compared=len(found),
        not_below=sum(one.difference >= 0 for one in found),
        significant=sum(one.significant_gain for one in found),
        id_with_paper=len(against_paper),
        id_at_or_above_paper=sum(difference >= 0 for difference in against_paper),
    )


def _select(groups: Sequence[JudgedGroup], pair: Pair, name: str) -> list[Judged]:
    """A comparison of every group that has it."""
    found = [group.comparisons.get(pair.name, {}) for group in groups]
    return [metrics[name] for metrics in found if name in metrics]


def _mean_gain(found: Sequence[Judged]) -> MeanGain:
    ours, paper = [one.relative for one in found], [one.paper_relative for one in found]
    return MeanGain(len(found), _mean_of_all(ours), _mean_of_all(paper))


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean, unless one is missing."""
    known = [value for value in values if value is not None]
    return mean_or_none(known) if len(known) == len(values) else None
