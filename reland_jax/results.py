"""What a run found: the content of results.json."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from reland_jax.config import Config
from reland_jax.device import drawn_rate, matmul_precision, sizes
from reland_jax.eval import HeldOut, evaluation_notes, held_out, per_user_metrics
from reland_jax.eval.significance import Corrected, corrected, paired_comparison
from reland_jax.overview import Overview, overview
from reland_jax.pool import PoolSummary, pool_summary
from reland_jax.storage import Inputs, Trained, TrainingSummary
from reland_jax.types import COMPARED, NDCG, PARTS, LoadReport
from reland_jax.variants import PAIRS, find_variant

Runs = Mapping[str, Mapping[int, Trained]]
"""Variant -> training seed -> what was trained."""

SPEEDS = ("seconds_per_epoch", "compile_seconds", "examples_per_second", "evaluation_seconds")
FEWEST_USERS = 2
"""Users that a paired comparison needs."""


@dataclasses.dataclass(frozen=True)
class PerSeed:
    """Figures of a variant seed by seed; see `TrainingSummary`."""

    valid: Mapping[str, Sequence[float]]
    test: Mapping[str, Sequence[float]]
    epochs: Sequence[int]
    best_epoch: Sequence[int]
    seconds_per_epoch: Sequence[float]


@dataclasses.dataclass(frozen=True)
class AllPerSeed(PerSeed):
    """All of them."""

    compile_seconds: Sequence[float]
    examples_per_second: Sequence[float]
    evaluation_seconds: Sequence[float]


@dataclasses.dataclass(frozen=True)
class VariantResults(TrainingSummary):
    """Figures of a variant: metrics are means over seeds, speeds medians, and all else is of the first seed.

    Attributes:
        per_seed: the same seed by seed.
        llm_inferences: that its rationales took.
        prompt_tokens: read in them.
        response_tokens: written in them.
    """

    per_seed: AllPerSeed
    llm_inferences: int
    prompt_tokens: int
    response_tokens: int


@dataclasses.dataclass(frozen=True)
class PoolFigures(PoolSummary):
    """The pool of a run.

    Attributes:
        provider: see `PoolConfig`.
        remarks: answers that a person should look at.
        ledger: what was paid.
        rationales_each: rationales that a user is given.
        rationales_in_use: those that anyone is given.
    """

    provider: str
    remarks: int
    ledger: Mapping[str, object]
    rationales_each: int
    rationales_in_use: int


@dataclasses.dataclass(frozen=True)
class RunResults:
    """The content of results.json.

    Attributes:
        dataset: name.
        backbone: name.
        protocol: of the split.
        training_seeds: of every variant.
        held_out: by part of the split, the counts of evaluated users and items.
        notes: what a reader must know about the numbers.
        variants: by name, in the order of training.
        significance: pair, such as "reland>id" -> metric -> comparison over users.
        data: what was done to load the data; None where nobody kept account.
        pool: the reasoning pool.
        stage_seconds: of every stage.
        environment: see `environment`, and under "config" all settings.
        overview: what the figures are read beside.
        about: "command", "finished" (time, UTC) and "commit" of the code, "" where one is not known.
    """

    dataset: str
    backbone: str
    protocol: str
    training_seeds: Sequence[int]
    held_out: Mapping[str, HeldOut]
    notes: Sequence[str]
    variants: Mapping[str, VariantResults]
    significance: Mapping[str, Mapping[str, Corrected]]
    data: LoadReport | None
    pool: PoolFigures
    stage_seconds: Mapping[str, float]
    environment: Mapping[str, object]
    overview: Overview
    about: Mapping[str, str]


def summarise(
    config: Config,
    inputs: Inputs,
    runs: Runs,
    stage_seconds: Mapping[str, float],
    about: Mapping[str, str] | None = None,
) -> RunResults:
    """Sums up the trainings of a run.

    Args:
        config: all settings.
        inputs: artefacts of the stages before training.
        runs: the trainings.
        stage_seconds: of every stage.
        about: see `RunResults`.
    """
    held = held_out(inputs.splits, config.eval)
    pool = _pool(config, inputs)
    per_user = _per_user(runs)
    lists = {name: trained[min(trained)].lists for name, trained in runs.items()}
    return RunResults(
        dataset=os.path.basename(config.data.name.rstrip("/")),
        backbone=config.model.backbone,
        protocol=inputs.splits.protocol,
        training_seeds=config.seeds_of_training,
        held_out=held,
        notes=_notes(config, inputs, held),
        variants={name: _variant(name, trained, pool) for name, trained in runs.items()},
        significance=_significance(per_user),
        data=inputs.interactions.report,
        pool=pool,
        stage_seconds=stage_seconds,
        environment=environment() | _dropped(config) | {"config": config.to_keep()},
        overview=overview(config, inputs, lists, {name: found[NDCG] for name, found in per_user.items()}),
        about=about or {},
    )


def environment() -> dict[str, str | int]:
    """Versions, device and processors of this run."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "matmul_precision": matmul_precision(),
        "random_bits": sizes().random_bits,
        "processors": len(usable(0)),
    }


def _dropped(config: Config) -> dict[str, float]:
    """The shares that dropout really drops: the rates of the settings as its random bits tell them apart."""
    rates = {"dropout": config.model.dropout, "fusion_dropout": config.fusion.dropout}
    return {name: drawn_rate(rate) for name, rate in rates.items()}


def _pool(config: Config, inputs: Inputs) -> PoolFigures:
    nearest = inputs.assignment.seed[:, : inputs.rationales_each(config)]
    return PoolFigures(
        **vars(pool_summary(inputs.built.pool)),
        provider=config.pool.provider,
        remarks=len(inputs.built.problems),
        ledger=inputs.built.ledger,
        rationales_each=nearest.shape[1],
        rationales_in_use=len(np.unique(nearest)),
    )


def _notes(config: Config, inputs: Inputs, held: Mapping[str, HeldOut]) -> list[str]:
    notes = evaluation_notes(held, inputs.splits.protocol, config.eval.mask_history)
    if config.eval.history == "known":
        notes.append(
            "For the test part the validation items were read, too (config.eval.history=known); by RecBole's "
            "rule, and so in the tables of the paper, models of sets read the training items alone."
        )
    wanted, given = config.retrieval.neighbours, inputs.rationales_each(config)
    if given < wanted:
        notes.append(
            f"config.retrieval.neighbours={wanted} rationales were asked for, and there are {given}: every "
            "user is given all of them."
        )
    if held["test"].users < FEWEST_USERS and len(config.variants) > 1:
        notes.append("A single user is tested: whether a difference is significant cannot be said.")
    return notes


def _variant(variant: str, trained: Mapping[int, Trained], pool: PoolSummary) -> VariantResults:
    summaries = [each.summary for each in trained.values()]
    first = summaries[0]
    scores = {
        part: {metric: [each.of(part)[metric] for each in summaries] for metric in first.of(part)}
        for part in PARTS
    }
    means = {part: {name: float(np.mean(scores[part][name])) for name in scores[part]} for part in PARTS}
    counts = {name: [getattr(each, name) for each in summaries] for name in ("epochs", "best_epoch", *SPEEDS)}
    speeds = {name: float(np.median(counts[name])) for name in SPEEDS}
    per_seed: dict[str, Any] = {**scores, **counts}
    asked = ("llm_inferences", "prompt_tokens", "response_tokens")
    reads = find_variant(variant)
    paid = reads.reads_rationales and not reads.ablation
    values: dict[str, Any] = vars(first) | means | speeds
    values |= {name: getattr(pool, name) if paid else 0 for name in asked}
    return VariantResults(**values, per_seed=AllPerSeed(**per_seed))


def _per_user(runs: Runs) -> dict[str, dict[str, np.ndarray]]:
    """Variant -> metric -> ``<float64>[tested users]``, per-user test metrics averaged over seeds."""
    return {
        variant: {
            name: np.mean([per_user_metrics(t.ranks["test"], (10,))[name] for t in trained.values()], axis=0)
            for name in COMPARED
        }
        for variant, trained in runs.items()
    }


def _significance(means: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Corrected]]:
    """Paired comparisons over users of what `_per_user` gives, Holm-corrected.

    There are none where a single user is tested.
    """
    users = min((len(values) for metrics in means.values() for values in metrics.values()), default=0)
    pairs = PAIRS if users >= FEWEST_USERS else ()
    cells = [(pair, name) for pair in pairs for name in COMPARED if means.keys() >= {*pair}]
    found = [paired_comparison(*(means[variant][name] for variant in pair)) for pair, name in cells]
    out: dict[str, dict[str, Corrected]] = {}
    for (pair, name), comparison in zip(cells, corrected(found), strict=True):
        out.setdefault(pair.name, {})[name] = comparison
    return out
