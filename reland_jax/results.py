"""What a run found: results.json, the comparison of the variants, and the cases of the report."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import Config
from reland_jax.data import report_lines
from reland_jax.device import drawn_rate, matmul_precision, sizes
from reland_jax.eval import HeldOut, Vectors, evaluation_notes, held_out, per_user_metrics, recommend
from reland_jax.eval.significance import holm, paired_comparison
from reland_jax.plain import text_columns
from reland_jax.pool import pool_summary
from reland_jax.report import Case, ItemLabel, Problem, ReportContent
from reland_jax.report.choice import users_to_show
from reland_jax.storage import PARTS, Inputs, Trained
from reland_jax.strings import as_strings
from reland_jax.types import (
    PADDING_ITEM,
    Interactions,
    ReasoningPool,
    Splits,
)
from reland_jax.variants import PAIRS, RELAND

Runs = Mapping[str, Mapping[int, Trained]]
"""Variant -> training seed -> what was trained."""

COMPARED = ("ndcg@10", "hr@10")
SPEEDS = ("seconds_per_epoch", "compile_seconds", "examples_per_second", "evaluation_seconds")
TITLE_FIELDS = ("title", "name")
LIST_LENGTH = 10
"""Recommendations that the report shows of a user and variant."""
FEWEST_USERS = 2
"""Users that a paired comparison needs."""


def summarise(
    config: Config, inputs: Inputs, runs: Runs, stage_seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The content of results.json.

    With several training seeds the metrics of a variant are means over them and its speeds are medians;
    "per_seed" lists both seed by seed. Epochs and the history are those of the first seed. "held_out" has the
    counts of evaluated users and items, and "notes" what a reader must know about the numbers.
    """
    held = held_out(inputs.splits, config.eval)
    pool = pool_summary(inputs.built.pool)
    pool |= {"provider": config.pool.provider, "remarks": len(inputs.built.problems)}
    pool["ledger"] = inputs.built.ledger
    nearest = inputs.assignment.seed[:, : inputs.rationales_each(config)]
    pool |= {"rationales_each": nearest.shape[1], "rationales_in_use": len(np.unique(nearest))}
    asked = {key: pool[key] for key in ("llm_inferences", "prompt_tokens", "response_tokens")}
    cost = {variant: asked if variant == RELAND.name else dict.fromkeys(asked, 0) for variant in runs}
    return {
        "dataset": os.path.basename(config.data.name.rstrip("/")),
        "backbone": config.model.backbone,
        "protocol": inputs.splits.protocol,
        "training_seeds": list(config.seeds_of_training),
        "held_out": {part: _plain_counts(one) for part, one in held.items()},
        "notes": _notes(config, inputs, held),
        "variants": {variant: _variant(trained) | cost[variant] for variant, trained in runs.items()},
        "significance": _significance(config, runs),
        "data": None if inputs.interactions.report is None else inputs.interactions.report._asdict(),
        "pool": pool,
        "stage_seconds": dict(stage_seconds),
        "environment": environment() | _dropped(config) | {"config": config.to_keep()},
    }


def environment() -> dict[str, Any]:
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


def _plain_counts(held: HeldOut) -> dict[str, Any]:
    """The counts as JSON has them: names are text."""
    return held._asdict() | {"short_lists": {str(k): users for k, users in held.short_lists.items()}}


def _notes(config: Config, inputs: Inputs, held: Mapping[str, HeldOut]) -> list[str]:
    notes = evaluation_notes(held, inputs.splits.protocol, config.eval.mask_history)
    wanted, given = config.retrieval.neighbours, inputs.rationales_each(config)
    if given < wanted:
        notes.append(
            f"config.retrieval.neighbours={wanted} rationales were asked for, and there are {given}: every "
            "user is given all of them."
        )
    if held["test"].users < FEWEST_USERS and len(config.variants) > 1:
        notes.append("A single user is tested: whether a difference is significant cannot be said.")
    return notes


def _variant(trained: Mapping[int, Trained]) -> dict[str, Any]:
    summaries = [each.summary for each in trained.values()]
    means = {
        part: {name: float(np.mean([s[part][name] for s in summaries])) for name in summaries[0][part]}
        for part in PARTS
    }
    per_seed: dict[str, Any] = {
        part: {name: [s[part][name] for s in summaries] for name in means[part]} for part in PARTS
    }
    per_seed |= {key: [s[key] for s in summaries] for key in ("epochs", "best_epoch", *SPEEDS)}
    speeds = {key: float(np.median(per_seed[key])) for key in SPEEDS}
    return summaries[0] | means | speeds | {"per_seed": per_seed}


def _significance(config: Config, runs: Runs) -> dict[str, Any]:
    """Paired comparisons over users of the per-user test metrics averaged over seeds, Holm-corrected.

    There are none where a single user is tested.
    """
    means = {
        variant: {
            name: np.mean([per_user_metrics(t.ranks["test"], (10,))[name] for t in trained.values()], axis=0)
            for name in COMPARED
        }
        for variant, trained in runs.items()
    }
    users = min((len(values) for metrics in means.values() for values in metrics.values()), default=0)
    pairs = PAIRS if users >= FEWEST_USERS else ()
    cells = [(pair, name) for pair in pairs for name in COMPARED if means.keys() >= {*pair}]
    found = [paired_comparison(*(means[variant][name] for variant in pair)) for pair, name in cells]
    adjusted = holm([comparison.p_value for comparison in found]) if found else np.zeros(0)
    out: dict[str, Any] = {}
    for (pair, name), comparison, p_holm in zip(cells, found, adjusted, strict=True):
        out.setdefault(pair.name, {})[name] = comparison._asdict() | {"p_holm": float(p_holm)}
    return out


# --- the report -----------------------------------------------------------------------------------


def report_content(
    config: Config,
    inputs: Inputs,
    results: Mapping[str, Any],
    vectors: Mapping[str, Vectors],
    num_cases: int = 6,
) -> ReportContent:
    """What the HTML page shows.

    Args:
        config: all settings.
        inputs: artefacts of the stages before training.
        results: see `summarise`.
        vectors: variant -> user and item vectors for the test part.
        num_cases: users shown in full; more only if more were asked for.

    Raises:
        RelandError: a user to show is not known.
    """
    problems = [Problem(p["user_id"], p["why"], "") for p in inputs.built.problems]
    return ReportContent(
        results=results,
        config=config.to_keep(),
        activity=inputs.splits.train.lengths(),
        seeds=inputs.built.pool.seeds,
        cluster_sizes=np.bincount(inputs.clusters[inputs.clusters >= 0]),
        assignment=inputs.assignment,
        cases=_cases(config, inputs, vectors, _choose_cases(config, inputs, num_cases)),
        problems=problems,
        data=() if inputs.interactions.report is None else report_lines(inputs.interactions.report),
    )


def _choose_cases(config: Config, inputs: Inputs, count: int) -> np.ndarray:
    """Users to show: all configured ones, then users drawn at random who have a test target.

    They are drawn without looking at any recommendation, so that the page shows no selected successes.
    """
    wanted = users_to_show(config.report_users, inputs.interactions.ids.users)
    with_target = np.flatnonzero(inputs.splits.test.lengths())
    drawn = np.random.default_rng(0).permutation(with_target)
    drawn = drawn[~np.isin(drawn, wanted)]
    return np.concatenate([wanted, drawn[: max(count - len(wanted), 0)]])


def _cases(config: Config, inputs: Inputs, vectors: Mapping[str, Vectors], users: np.ndarray) -> list[Case]:
    splits, pool = inputs.splits, inputs.built.pool
    masked = _history(splits, users) if config.eval.mask_history else np.zeros((len(users), 1), np.int32)
    best = partial(
        recommend, users=jnp.asarray(users), masked=jnp.asarray(masked), count=LIST_LENGTH,
        num_items=splits.num_items,
    )  # fmt: skip
    lists = {variant: best(of_variant)[0] for variant, of_variant in vectors.items()}
    label = _Labels(inputs.interactions)
    return [
        _case(inputs, pool, label, int(user), {variant: found[row] for variant, found in lists.items()})
        for row, user in enumerate(users)
    ]


def _case(
    inputs: Inputs, pool: ReasoningPool, label: _Labels, user: int, found: Mapping[str, np.ndarray]
) -> Case:
    seed = int(inputs.assignment.seed[user, 0])
    rationale = pool.rationales[seed]
    ids, splits = inputs.interactions.ids.users, inputs.splits
    targets = list(dict.fromkeys(splits.test.row(user).tolist()))
    had = {*splits.train.row(user).tolist(), *splits.valid.row(user).tolist()}
    return Case(
        user_id=str(ids[user]),
        history=label.all(splits.train.row(user)),
        seed_user_id=str(ids[pool.seeds.user[seed]]),
        cosine=float(inputs.assignment.cosine[user, 0]),
        step1=rationale.step1,
        step2=rationale.step2,
        recommendations={
            variant: label.all(items[items != PADDING_ITEM]) for variant, items in found.items()
        },
        targets=label.all(targets),
        had_before=[one.item_id for one in label.all([item for item in targets if item in had])],
    )


class _Labels:
    """Titles and external ids of items."""

    def __init__(self, interactions: Interactions) -> None:
        self._ids = interactions.ids.items
        titles = list(text_columns(interactions.item_features, TITLE_FIELDS).values())
        self._titles = titles[0] if titles else as_strings([""] * len(self._ids))

    def all(self, items: Sequence[int] | np.ndarray) -> list[ItemLabel]:
        return [ItemLabel(str(self._ids[item]), str(self._titles[item])) for item in items]


def _history(splits: Splits, users: np.ndarray) -> np.ndarray:
    rows = [np.concatenate([splits.train.row(u), splits.valid.row(u)]) for u in users]
    out = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out
