"""A grid of backbones, variants and training seeds, summarised as the paper's Table 2.

A *cell* is a variant of a backbone on a data set, a *group* all cells of one backbone on one data set. Groups
are summarised separately, so that a new cell costs the comparisons of its group only; `summarise_grid`
combines them and does what needs all of them: Holm's correction.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reland_jax.config import Config
from reland_jax.eval import per_user_metrics
from reland_jax.eval.significance import LEVEL, holm, paired_comparison, stars
from reland_jax.pool import pool_provenance, pool_summary
from reland_jax.records import to_plain
from reland_jax.report import TABLE_2
from reland_jax.storage import Inputs, Trained
from reland_jax.types import COMPARED, PARTS
from reland_jax.variants import ABLATIONS, EXPECTED, F_ITEM, ID, PAIRS, RELAND, VARIANTS, Pair

MAIN = "ndcg@10"
LEVELS = ("L1", "L2", "L3", "L4")
ENOUGH_SEEDS = 5

_COUNTS = ("epochs", "best_epoch", "seconds_per_epoch")
_SIDES = {"ours": "relative", "paper": "paper_relative"}


class Scores(NamedTuple):
    """The scores of one trained recommender that the table needs.

    Attributes:
        summary: "valid" and "test" -> metric -> mean over users; "epochs", "best_epoch",
            "seconds_per_epoch".
        users: ``<int32>[n]``, the users that have a test target, sorted.
        test: metric of `COMPARED` -> ``<float64>[n]`` in [0, 1], of each of these users.
    """

    summary: Mapping[str, Any]
    users: np.ndarray
    test: Mapping[str, np.ndarray]


class Group(NamedTuple):
    """All cells of one backbone on one data set; `runs` and `failed` fill up as they are trained.

    Attributes:
        config: settings of the backbone, with the variants and training seeds of the grid.
        protocol: of the split.
        activity: ``<int64>[U]``, number of training interactions of every user.
        pool: what the reasoning pool holds and where it comes from.
        runs: variant -> training seed -> scores.
        failed: variant -> training seed -> why there are none.
    """

    config: Config
    protocol: str
    activity: np.ndarray
    pool: Mapping[str, Any]
    runs: dict[str, dict[int, Scores]]
    failed: dict[str, dict[int, str]]


def new_group(config: Config, inputs: Inputs) -> Group:
    """A group in which nothing is trained yet."""
    pool = to_plain(pool_summary(inputs.built.pool)) | pool_provenance(config.pool, config.data)
    pool["remarks"] = len(inputs.built.problems)
    runs: dict[str, dict[int, Scores]] = {variant: {} for variant in config.variants}
    failed: dict[str, dict[int, str]] = {variant: {} for variant in config.variants}
    return Group(config, inputs.splits.protocol, inputs.splits.train.lengths(), pool, runs, failed)


def score(trained: Trained) -> Scores:
    """The scores of a trained recommender, without its parameters and history.

    Raises:
        RelandError: a score was not a number.
    """
    ranks = trained.ranks["test"]
    per_user = per_user_metrics(ranks, (10,))
    summary = {name: getattr(trained.summary, name) for name in (*PARTS, *_COUNTS)}
    return Scores(summary, np.unique(ranks.user), {name: per_user[name] for name in COMPARED})


def activity_levels(activity: np.ndarray) -> np.ndarray:
    """The quartile of each user by number of interactions (paper, Table 5).

    A user's level is the number of quartiles (the smallest numbers that 25%, 50% and 75% of the users
    do not exceed) that its number exceeds. Users with the same number are on the same level, so levels
    differ in size and one may be empty.

    Args:
        activity: ``<int64>[n]``, number of interactions of every user; may be empty.

    Returns:
        ``<int64>[n]`` from 0, the least active, to 3.
    """
    if not len(activity):
        return np.zeros(0, np.int64)
    quartiles = np.quantile(activity, [0.25, 0.5, 0.75], method="inverted_cdf")
    return np.searchsorted(quartiles, activity, side="left")


def summarise_group(group: Group) -> dict[str, Any]:
    """Cells, comparisons before correction, and activity levels of a group.

    A comparison, and a gain, is over the training seeds that both variants have.
    """
    config = group.config
    dataset, backbone = os.path.basename(config.data.name.rstrip("/")), config.model.backbone
    paper = {variant: TABLE_2.get((dataset, backbone, variant)) for variant in config.variants}
    cells = {
        variant: _cell(group.runs[variant], paper[variant])
        | {"failed": {str(seed): why for seed, why in group.failed[variant].items()}}
        for variant in config.variants
    }
    pairs = [pair for pair in PAIRS if {*pair} <= {*config.variants}]
    return {
        "dataset": dataset,
        "backbone": backbone,
        "protocol": group.protocol,
        "objective": config.train.objective,
        "cells": cells,
        "comparisons": {pair.name: _compare(group.runs, pair, paper) for pair in pairs},
        "controls_over_f_item": {
            name: _relative_of(group.runs, Pair(name, F_ITEM.name)) for name in ABLATIONS if name in cells
        },
        "levels": _levels(group),
        "pool": dict(group.pool),
        "config": config.to_keep(),
    }


def summarise_grid(groups: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The content of table2.json.

    Args:
        groups: what `summarise_group` gave, in the order in which they are shown.
        environment: versions and device.

    Returns:
        Plain values; a number that is not finite is None. "groups" is `groups` with "p_holm" of every
        comparison, corrected over all comparisons of all groups, and with the "attribution" of the gain
        of `reland`: "no_control" where none was compared, "not_llm" where an ablation is not below
        `reland` with significance, else "content", or "no_gain" where it is not above `f_item`.
    """
    corrected = _correct(groups)
    whole = [group | {"attribution": _attribution(group)} for group in corrected]
    names = list(dict.fromkeys(group["dataset"] for group in whole))
    counts = [len(cell["seeds"]) for group in whole for cell in group["cells"].values()]
    return _finite(
        {
            "training_seeds": list(whole[0]["config"]["seeds_of_training"]) if whole else [],
            "variants": list(whole[0]["config"]["variants"]) if whole else [],
            "fewest_seeds": min(counts, default=0),
            "enough_seeds": ENOUGH_SEEDS,
            "comparisons": sum(map(len, (m for group in whole for m in group["comparisons"].values()))),
            "datasets": {name: _dataset([g for g in whole if g["dataset"] == name]) for name in names},
            "groups": whole,
            "environment": dict(environment),
        }
    )


# --- a group --------------------------------------------------------------------------------------


def _cell(runs: Mapping[int, Scores], paper: Mapping[str, float] | None) -> dict[str, Any]:
    seeds = sorted(runs)
    summaries = [runs[seed].summary for seed in seeds]
    per_seed: dict[str, Any] = {
        part: {name: [summary[part][name] for summary in summaries] for name in COMPARED} for part in PARTS
    }
    means = {part: {name: _mean(values) for name, values in per_seed[part].items()} for part in PARTS}
    per_seed |= {name: [summary[name] for summary in summaries] for name in _COUNTS}
    difference = None
    if paper and seeds:
        difference = {name: float(np.mean(per_seed["test"][name])) - paper[name] for name in COMPARED}
    return {
        "seeds": seeds,
        **means,
        "seconds_per_epoch": float(np.median(per_seed["seconds_per_epoch"])) if seeds else None,
        "per_seed": per_seed,
        "paper": dict(paper) if paper else None,
        "difference": difference,
    }


def _compare(
    runs: Mapping[str, Mapping[int, Scores]],
    pair: Pair,
    paper: Mapping[str, Mapping[str, float] | None],
) -> dict[str, dict[str, Any]]:
    """Metric -> paired comparison and the paper's relative gain; nothing where there is none to make."""
    seeds = _shared_seeds(runs, pair)
    theirs, base = paper.get(pair.ours), paper.get(pair.base)
    found = {}
    for name in COMPARED if seeds else ():
        a, b = (_over_seeds(runs[variant], seeds, name) for variant in pair)
        if len(a) > 1 and np.isfinite(a).all() and np.isfinite(b).all():
            gain = theirs[name] / base[name] - 1 if theirs and base else None
            found[name] = vars(paired_comparison(a, b)) | {"seeds": seeds, "paper_relative": gain}
    return found


def _levels(group: Group) -> list[dict[str, Any]]:
    """Test NDCG@10 and the gains of `reland` by level, over the seeds that all of `VARIANTS` have."""
    variants = [variant for variant in VARIANTS if group.runs.get(variant)]
    seeds = _shared_seeds(group.runs, variants)
    if not seeds:
        return []
    activity = group.activity[group.runs[variants[0]][seeds[0]].users]
    level = activity_levels(activity)
    per_user = {variant: _over_seeds(group.runs[variant], seeds, MAIN) for variant in variants}
    return [
        _level(name, activity[level == place], {v: per_user[v][level == place] for v in variants})
        for place, name in enumerate(LEVELS)
    ]


def _level(name: str, activity: np.ndarray, per_user: Mapping[str, np.ndarray]) -> dict[str, Any]:
    means = {variant: _mean(values) for variant, values in per_user.items()}
    pairs = [pair for pair in EXPECTED if pair.ours == RELAND.name and means.keys() >= {*pair}]
    return {
        "level": name,
        "users": len(activity),
        "interactions": [int(activity.min()), int(activity.max())] if len(activity) else None,
        MAIN: means,
        "gains": {pair.name: _relative(*(means[variant] for variant in pair)) for pair in pairs},
    }


def _relative_of(runs: Mapping[str, Mapping[int, Scores]], pair: Pair) -> float | None:
    seeds = _shared_seeds(runs, pair)
    if not seeds:
        return None
    return _relative(*(_mean(_over_seeds(runs[variant], seeds, MAIN)) for variant in pair))


def _shared_seeds(runs: Mapping[str, Mapping[int, Scores]], variants: Sequence[str]) -> list[int]:
    return sorted(set.intersection(*(set(runs.get(v, ())) for v in variants))) if variants else []


def _over_seeds(runs: Mapping[int, Scores], seeds: Sequence[int], name: str) -> np.ndarray:
    """A metric of every user averaged over training seeds, ``<float64>[n]``."""
    return np.mean([runs[seed].test[name] for seed in seeds], axis=0)


# --- the grid -------------------------------------------------------------------------------------


def _correct(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The groups with Holm's correction over all their comparisons."""
    found = [one for group in groups for metrics in group["comparisons"].values() for one in metrics.values()]
    adjusted = iter(holm([one["p_value"] for one in found]).tolist())
    corrected = []
    for group in groups:
        comparisons = {
            pair: {name: one | _verdict(one, next(adjusted)) for name, one in metrics.items()}
            for pair, metrics in group["comparisons"].items()
        }
        corrected.append(dict(group) | {"comparisons": comparisons})
    return corrected


def _verdict(comparison: Mapping[str, Any], p_holm: float) -> dict[str, Any]:
    gains = comparison["difference"] > 0 and p_holm < LEVEL
    return {"p_holm": p_holm, "stars": stars(p_holm), "significant_gain": gains}


def _attribution(group: Mapping[str, Any]) -> str:
    found = {pair: metrics[MAIN] for pair, metrics in group["comparisons"].items() if MAIN in metrics}
    over = [found[pair.name] for pair in PAIRS if pair.base in ABLATIONS and pair.name in found]
    if not over:
        return "no_control"
    if not all(one["significant_gain"] for one in over):
        return "not_llm"
    over_texts = found.get(Pair(RELAND.name, F_ITEM.name).name)
    return "no_gain" if over_texts and over_texts["difference"] <= 0 else "content"


def _dataset(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean gains over the backbones of a data set, and how many comparisons came out as expected."""
    expected = [pair.name for pair in EXPECTED]
    found = [g["comparisons"][pair][MAIN] for g in groups for pair in expected if _has(g, pair, MAIN)]
    plain = [group["cells"][ID.name]["difference"] for group in groups if ID.name in group["cells"]]
    against_paper = [difference[MAIN] for difference in plain if difference]
    pairs = [pair.name for pair in PAIRS if any(pair.name in group["comparisons"] for group in groups)]
    return {
        "mean_gains": {pair: {name: _mean_gain(groups, pair, name) for name in COMPARED} for pair in pairs},
        "compared": len(found),
        "not_below": sum(one["difference"] >= 0 for one in found),
        "significant": sum(one["significant_gain"] for one in found),
        "id_with_paper": len(against_paper),
        "id_at_or_above_paper": sum(difference >= 0 for difference in against_paper),
    }


def _has(group: Mapping[str, Any], pair: str, name: str) -> bool:
    return name in group["comparisons"].get(pair, {})


def _mean_gain(groups: Sequence[Mapping[str, Any]], pair: str, name: str) -> dict[str, Any]:
    """Mean relative gain, and the paper's, over the backbones compared; None unless all have one."""
    found = [group["comparisons"][pair][name] for group in groups if _has(group, pair, name)]
    gains = {side: [one[field] for one in found] for side, field in _SIDES.items()}
    means = {side: None if None in values else _mean(values) for side, values in gains.items()}
    return {"backbones": len(found)} | means


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _relative(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base - 1


def _finite(value: Any) -> Any:
    """Nested plain values, with None for what is not finite: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
