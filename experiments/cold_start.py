r"""Users without history, matched to seed users, against popularity.

    python -m experiments.cold_start --dataset=ml-1m --backbones=lightgcn,sasrec --workdir=DIR \
        --out=DIR/cold_start.json [--set=train.max_epochs=5 ...]

A share of the users is held out of training and validation entirely; what is kept of them is their test
part under the ratio split, as targets. Every recommender is trained on the others. A cold user's vector is
the weighted mean of those of the k seed users matched to it, by profile where the data have any. Half of
the cold users choose k by NDCG@10, for matched and for random seed users apart; the other half is reported.

The rows of the table:

    popularity           the items with the most training interactions
    profile popularity   the same among the users of the same profile, where the data have profiles; items
                         that none of them has follow by popularity
    BACKBONE VARIANT     matched seed users
    ... random           as many seed users drawn at random, the mean over a few draws
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from absl import logging as absl_logging

from experiments.configs.reland import get_config
from experiments.settings import parse_setting, with_settings
from reland_jax.artefacts import write_json
from reland_jax.config import Config
from reland_jax.eval import (
    RankingPlan,
    Vectors,
    borrow,
    lend,
    per_user_metrics,
    plan_ranking,
    rank_targets,
)
from reland_jax.eval.significance import holm, paired_comparison, stars
from reland_jax.pipeline import Pipeline
from reland_jax.results import environment
from reland_jax.retrieval import profiles, represented_users
from reland_jax.storage import Inputs
from reland_jax.types import Interactions, Ragged, RelandError, Splits

METRICS = ("hr@10", "ndcg@10")

PerUser = Mapping[str, np.ndarray]
"""Metric -> its value for every cold user, in the order of their numbers."""


class Setup(NamedTuple):
    """What all trainings share.

    Attributes:
        neighbours: values of k to choose from.
        share: of the users that are held out.
        draws: of random seed users.
        seed: of the hold-out, the halves and the random seed users, and of the trainings.
    """

    neighbours: tuple[int, ...]
    share: float
    draws: int
    seed: int


class ColdStart(Pipeline):
    """A pipeline whose split leaves a share of the users without training and validation items."""

    def __init__(self, config: Config, workdir: Path, setup: Setup) -> None:
        """The folder's name says who is held out, and backbones share it."""
        name = f"{Path(config.data.name).name}-cold{setup.share:g}-seed{setup.seed}"
        super().__init__(config, workdir / name, trainings=f"train/{config.model.backbone}")
        self._setup = setup

    def split(self, interactions: Interactions) -> Splits:
        """The split of the config, without what is known of the users that are held out."""
        return hold_out(super().split(interactions), self._setup.share, self._setup.seed)


def hold_out(splits: Splits, share: float, seed: int) -> Splits:
    """The split without training and validation items of a share of the users, drawn at random.

    Args:
        splits: of all users.
        share: of all users, drawn among those with a test item.
        seed: of the draw.

    Raises:
        RelandError: too few users for two halves.
    """
    tested = np.flatnonzero(splits.test.lengths())
    count = min(round(share * splits.num_users), len(tested) - 1)
    if count < 4:
        raise RelandError(f"--share={share} of {splits.num_users} users holds out {count}; 4 are needed")
    kept = np.ones(splits.num_users, bool)
    kept[np.random.default_rng(seed).choice(tested, count, replace=False)] = False
    return splits._replace(train=_rows(splits.train, kept), valid=_rows(splits.valid, kept))


def _rows(lists: Ragged, kept: np.ndarray) -> Ragged:
    """The lists with empty rows where `kept` ``<bool>[U]`` is false."""
    lengths = lists.lengths()
    indptr = np.concatenate([[0], np.cumsum(np.where(kept, lengths, 0))]).astype(np.int64)
    return Ragged(indptr, lists.items[np.repeat(kept, lengths)])


class ColdUsers:
    """The cold users with their targets, and what ranks for them.

    Attributes:
        user: ``<int32>[C]``, in order.
        chooses: ``<bool>[C]``, who chooses k; the others are reported.
        profile: ``<int32>[U, F]``, of all users.
    """

    def __init__(self, inputs: Inputs, config: Config, setup: Setup) -> None:
        """Halves the cold users at random."""
        self._inputs, self._setup, splits = inputs, setup, inputs.splits
        cold = splits.train.lengths() == 0
        targets = _rows(splits.test, cold)
        self.user = np.flatnonzero(targets.lengths())
        drawn = np.random.default_rng([setup.seed, 1]).permutation(len(self.user))
        self.chooses = drawn < len(self.user) // 2
        self.profile = profiles(inputs.interactions.user_features, splits.num_users)
        num_seeds = len(inputs.built.pool.rationales)
        self._represented = represented_users(inputs.assignment.seed, splits.train.lengths(), num_seeds)
        self._plan: RankingPlan = plan_ranking(targets, None, splits.num_items, config.eval.tile_bytes)

    @property
    def has_profiles(self) -> bool:
        """Whether anything tells one user from another."""
        return bool((self.profile != self.profile[0]).any())

    def score(self, vectors: Vectors) -> PerUser:
        """Metrics of every cold user."""
        found = per_user_metrics(rank_targets(self._plan, vectors), (10,))
        return {name: found[name] for name in METRICS}

    def popularity(self) -> PerUser:
        """Of the items with the most training interactions."""
        counts = np.bincount(self._inputs.splits.train.items, minlength=self._inputs.splits.num_items + 1)
        return self.score(_scored(np.ones((self._inputs.splits.num_users, 1)), counts[:, None]))

    def profile_popularity(self) -> PerUser:
        """Of the same among the training users of the same profile, ties by popularity."""
        train, num_items = self._inputs.splits.train, self._inputs.splits.num_items
        _, group = np.unique(self.profile, axis=0, return_inverse=True)
        group = group.reshape(-1)
        counts = np.zeros((num_items + 1, group.max() + 2))
        np.add.at(counts, (train.items, np.repeat(group, train.lengths())), 1.0)
        overall = counts.sum(1)
        counts[:, -1] = overall / (overall.sum() + 1.0)
        users = np.eye(group.max() + 2)[group]
        users[:, -1] = 1.0
        return self.score(_scored(users, counts))

    def matched(self, vectors: Vectors, k: int) -> PerUser:
        """Of the k seed users matched to each."""
        seed, cosine = (each[self.user, :k] for each in self._inputs.assignment)
        return self._lent(vectors, seed, cosine)

    def random(self, vectors: Vectors, k: int) -> PerUser:
        """Of k seed users drawn at random for each, the mean over some draws."""
        rng = np.random.default_rng([self._setup.seed, 2, k])
        rows = np.arange(len(self._inputs.built.pool.rationales))
        # Ordering random numbers draws without replacement in every row at once.
        draws = [
            rng.random((len(self.user), len(rows))).argsort(axis=1)[:, :k] for _ in range(self._setup.draws)
        ]
        found = [self._lent(vectors, rows[draw], np.ones(draw.shape)) for draw in draws]
        return {name: np.mean([each[name] for each in found], axis=0) for name in METRICS}

    def _lent(self, vectors: Vectors, seed: np.ndarray, cosine: np.ndarray) -> PerUser:
        source, represented = self._inputs.built.pool.seeds.user[seed], self._represented[seed]
        return self.score(lend(vectors, borrow(self.user, source, cosine, represented)))


def _scored(users: np.ndarray, items: np.ndarray) -> Vectors:
    """Vectors whose score is the dot product."""
    sides = (jnp.asarray(side, jnp.float32) for side in (users, items))
    return Vectors(*sides, jax.tree_util.Partial(_product))


def _product(users: jax.Array, items: jax.Array) -> jax.Array:
    # HIGHEST: counts must not be rounded, as the default does on some accelerators.
    return jnp.dot(users, items.T, precision=jax.lax.Precision.HIGHEST)


def run(
    configs: Mapping[str, Config], variants: Sequence[str], setup: Setup, workdir: Path
) -> dict[str, Any]:
    """Trains what is missing, chooses k and compares.

    Args:
        configs: by backbone.
        variants: to train of each.
        setup: what is held out and tried.
        workdir: folder of artefacts.

    Returns:
        The content of the file `--out`.

    Raises:
        RelandError: bad data or settings.
    """
    rows: dict[str, dict[int, PerUser]] = {}
    for backbone, config in configs.items():
        pipeline = ColdStart(config, workdir, setup)
        inputs = pipeline.prepare()
        cold = ColdUsers(inputs, config, setup)
        rows["popularity"] = {0: cold.popularity()}
        if cold.has_profiles:
            rows["profile popularity"] = {0: cold.profile_popularity()}
        for variant in variants:
            params = pipeline.train(inputs, variant, setup.seed).params
            vectors = pipeline.task(inputs, variant).vectors(params, "test")
            for kind, method in (("", cold.matched), (" random", cold.random)):
                scores = {k: method(vectors, k) for k in setup.neighbours}
                rows[f"{backbone} {variant}{kind}"] = scores
    return {
        "dataset": Path(config.data.name).name,
        "users": inputs.splits.num_users,
        "seed_users": len(inputs.built.pool.rationales),
        "profiles": len(np.unique(cold.profile, axis=0)),
        "choosing": int(cold.chooses.sum()),
        "reported": int((~cold.chooses).sum()),
        **setup._asdict(),
        **judge(rows, cold.chooses),
        "environment": environment() | {"configs": {name: each.to_keep() for name, each in configs.items()}},
    }


def judge(rows: Mapping[str, Mapping[int, PerUser]], chooses: np.ndarray) -> dict[str, Any]:
    """Chooses k on one half of the cold users and compares on the other.

    Args:
        rows: name -> k -> metrics of every cold user; rows without a k have one entry.
        chooses: ``<bool>[C]``, the half that chooses.

    Returns:
        "methods": the mean metrics of both halves by name, the first for every k; "comparisons": matched
        seed users with every baseline, of the second half, p-values corrected by Holm over all.
    """
    means = {name: {k: _means(found, chooses) for k, found in by_k.items()} for name, by_k in rows.items()}
    chosen = {name: max(by_k, key=lambda k: by_k[k]["ndcg@10"]) for name, by_k in means.items()}
    methods = {
        name: {
            "k": chosen[name],
            "choosing": means[name],
            "reported": _means(by_k[chosen[name]], ~chooses),
        }
        for name, by_k in rows.items()
    }
    test = partial(_compare, {name: by_k[chosen[name]] for name, by_k in rows.items()}, ~chooses)
    comparisons = [test(ours, other, metric) for ours, other in _pairs(rows) for metric in METRICS]
    for each, p_value in zip(comparisons, holm([each["p_value"] for each in comparisons]), strict=True):
        each["p_holm"] = float(p_value)
    return {"methods": methods, "comparisons": comparisons}


def _means(found: PerUser, half: np.ndarray) -> dict[str, float]:
    return {metric: float(values[half].mean()) for metric, values in found.items()}


def _pairs(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    matched = [name.removesuffix(" random") for name in rows if name.endswith(" random")]
    plain = [name for name in rows if name.endswith("popularity")]
    pairs = [(name, other) for name in matched for other in plain]
    pairs += [(name, f"{name} random") for name in matched]
    without = {name: name.replace(" reland", " f_item") for name in matched if name.endswith(" reland")}
    return pairs + [(name, other) for name, other in without.items() if other in matched]


def _compare(
    found: Mapping[str, PerUser], half: np.ndarray, ours: str, other: str, metric: str
) -> dict[str, Any]:
    compared = paired_comparison(found[ours][metric][half], found[other][metric][half])
    return {"ours": ours, "baseline": other, "metric": metric, **compared._asdict()}


def table(found: Mapping[str, Any]) -> str:
    """The results for people."""
    lines = [
        f"{found['dataset']}: {found['reported']} cold users reported, {found['choosing']} choose k; "
        f"{found['profiles']} profiles, {found['seed_users']} seed users",
        f"{'':<28}{'k':>4}{'HR@10':>9}{'NDCG@10':>9}   NDCG@10 of the choosing half by k",
    ]
    for name, method in found["methods"].items():
        tried = method["choosing"]
        by_k = "  ".join((f"{k}: " if k else "") + f"{each['ndcg@10']:.4f}" for k, each in tried.items())
        hr, ndcg = (method["reported"][metric] for metric in METRICS)
        lines.append(f"{name:<28}{method['k'] or '':>4}{hr:>9.4f}{ndcg:>9.4f}   {by_k}")
    lines.append(f"{'ours - baseline, * for p < 0.05 after Holm':<66}{'metric':>8}{'':>3}difference")
    for each in found["comparisons"]:
        interval = f"[{each['low']:+.4f}, {each['high']:+.4f}] p = {each['p_value']:.3g}"
        what = f"{each['ours']} - {each['baseline']}"
        mark = stars(each["p_holm"])
        lines.append(f"{what:<66}{each['metric']:>8}   {each['difference']:+.4f}{mark:<1} {interval}")
    return "\n".join(lines)


def plan(dataset: str, backbones: Sequence[str], changes: Sequence[str], setup: Setup) -> dict[str, Config]:
    """The settings of every backbone: those of its configuration under the ratio split, changed.

    Raises:
        RelandError: an unknown backbone or setting.
    """
    configs = {}
    for backbone in backbones:
        config = Config.from_dict(get_config(f"{dataset},{backbone}").to_dict())
        ours = {"data.protocol": "ratio", "retrieval.cold_neighbours": max(setup.neighbours)}
        ours |= dict(parse_setting(each, config) for each in changes)
        configs[backbone] = with_settings(config, ours)
    return configs


def define_flags() -> None:
    """Registers the flags; not at import, since other jobs have some of the same names."""
    flags.DEFINE_string("dataset", "ml-1m", "Data set: a known name or a path.")
    flags.DEFINE_list("backbones", ["lightgcn", "sasrec"], "Backbones.")
    flags.DEFINE_list("variants", ["f_item", "reland"], "Variants, and the controls permuted and noise.")
    flags.DEFINE_list("neighbours", ["1", "5", "20", "50"], "Values of k.")
    flags.DEFINE_float("share", 0.1, "Share of the users that is held out.", 0.0, 0.9)
    flags.DEFINE_integer("draws", 5, "Draws of random seed users.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of everything drawn, and the training seed.", lower_bound=0)
    flags.DEFINE_string("workdir", None, "Folder of artefacts.", required=True)
    flags.DEFINE_string("out", None, "JSON file of the results.", required=True)
    flags.DEFINE_multi_string("set", [], "section.key=value, for every backbone; may be given again.")


def main(arguments: Sequence[str]) -> None:
    """Runs the job, prints the table and writes the file."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    absl_logging.set_verbosity(absl_logging.WARNING)
    given = flags.FLAGS
    try:
        setup = Setup(tuple(map(int, given.neighbours)), given.share, given.draws, given.seed)
        configs = plan(given.dataset, given.backbones, given.set, setup)
        found = run(configs, given.variants, setup, Path(given.workdir))
    except RelandError as error:
        sys.exit(f"error: {error}")
    print(table(found))
    write_json(Path(given.out), found)


if __name__ == "__main__":
    define_flags()
    app.run(main)
