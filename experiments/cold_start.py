r"""Users without history, ranked by seed users of similar profile, compared with popularity.

    python -m experiments.cold_start --dataset=ml-1m --backbones=lightgcn,sasrec --workdir=DIR \
        --out=DIR/cold_start.json [--set=train.max_epochs=5 ...]

A share of the users is held out entirely, and every recommender is trained on the others. A cold user's
vector is the weighted mean of those of seed users, where a user of another profile counts less: for
each field that differs, by the factor `retrieval.cold_mismatch`.

The targets of a list of ten, for the same cold users:

    first    their first interactions, which come next for somebody who is new; as many as the test part has
    all      all their interactions
    last     their test part under the ratio split. They have had most popular items before, so these are no
             targets, but are at the top of every list. So it distinguishes methods badly

The rows of the table:

    popularity           the items with the most training interactions
    profile popularity   the same among the users of the same profile
    ... smoothed         the same with users of other profiles too, each counted as in our rows
    BACKBONE VARIANT     borrowed from seed users by profile
    ... everybody        the same without profiles: all users count as much

Where a row has the factor as its setting, each half of the cold users is ranked with the one that is best
for the other half, by NDCG@10 of their first interactions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.configs.reland import get_config
from experiments.harness import command_line
from experiments.harness.command_line import required_path
from experiments.harness.programs import keep_programs_of
from experiments.harness.settings import parse_setting, with_settings
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.data import split
from reland_jax.eval import (
    ColdUserWeights,
    Vectors,
    impute_cold_users,
    per_user_metrics,
    plan_ranking,
    rank_targets,
)
from reland_jax.eval.significance import holm, paired_comparison, stars
from reland_jax.files import write_json
from reland_jax.flow import Made
from reland_jax.records import to_plain
from reland_jax.results import environment
from reland_jax.retrieval import profile_weights, profiles
from reland_jax.stages import ASSIGN, BUILD_POOL, FLOW, LOAD, SPLIT, trained_recommender, training
from reland_jax.types import HR, NDCG, Ragged, RelandError, Splits
from reland_jax.variants import F_ITEM, RELAND

TARGETS = ("first", "all", "last")
METRICS = (HR, NDCG)
CHOICE = f"first {NDCG}"
"""By what the setting of a row is chosen."""

EVERYBODY = 1.0
"""The factor with which profiles do not matter."""

PerUser = Mapping[str, np.ndarray]
"""Targets and metric -> its value for every cold user, in the order of their numbers."""


class Setup(NamedTuple):
    """Settings that all trainings share.

    Attributes:
        mismatches: values of `retrieval.cold_mismatch` to choose from.
        share: of the users that are held out.
        seed: of the hold-out and the halves, and of the trainings.
    """

    mismatches: tuple[float, ...]
    share: float
    seed: int


def prepare(config: Config, workdir: Path, setup: Setup) -> Made:
    """Everything up to the assignment, without the training and validation items of a share of the users.

    The folder's name says who is held out, and backbones share it.
    """
    name = f"{Path(config.data.name).name}-cold{setup.share:g}-seed{setup.seed}"
    held_out = dataclasses.replace(
        SPLIT,
        settings=lambda config: [*SPLIT.settings(config), setup.share, setup.seed],
        run=lambda job: hold_out(SPLIT.run(job), setup.share, setup.seed),
    )
    return flow.run(FLOW, config, workdir / name, replace={SPLIT.name: held_out})


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


def cold_targets(whole: Splits, cold: np.ndarray) -> dict[str, Ragged]:
    """The targets of cold users' lists, by the name in `TARGETS`; empty for the other users.

    Args:
        whole: the split before the hold-out; parts follow each other in time.
        cold: ``<bool>[U]``.
    """
    last = _rows(whole.test, cold)
    every = _rows(whole.train.joined(whole.valid).joined(whole.test), cold)
    place = np.arange(len(every.items)) - np.repeat(every.indptr[:-1], every.lengths())
    begins = place < np.repeat(last.lengths(), every.lengths())
    return {"first": Ragged(last.indptr, every.items[begins]), "all": every, "last": last}


def _rows(lists: Ragged, kept: np.ndarray) -> Ragged:
    """The lists with empty rows where `kept` ``<bool>[U]`` is false."""
    lengths = lists.lengths()
    indptr = np.concatenate([[0], np.cumsum(np.where(kept, lengths, 0))]).astype(np.int64)
    return Ragged(indptr, lists.items[np.repeat(kept, lengths)])


class ColdUsers:
    """The cold users with their targets, and what ranks for them.

    Attributes:
        user: ``<int32>[C]``, in order.
        half: ``<bool>[C]``, drawn at random: each half chooses for the other.
        profile: ``<int32>[U, F]``, of all users.
    """

    def __init__(self, made: Made, whole: Splits, setup: Setup) -> None:
        """Halves the cold users at random.

        Args:
            made: what the trainings read.
            whole: the split before the hold-out.
            setup: the seed.
        """
        self._made, splits = made, made[SPLIT]
        self._activity = splits.train.lengths()
        targets = cold_targets(whole, self._activity == 0)
        self.user = np.flatnonzero(targets["last"].lengths())
        drawn = np.random.default_rng([setup.seed, 1]).permutation(len(self.user))
        self.half = drawn < len(self.user) // 2
        self.profile = profiles(made[LOAD].user_features, splits.num_users)
        self._plans = {
            name: plan_ranking(each, None, splits.num_items, made.config.eval.tile_bytes)
            for name, each in targets.items()
        }

    @property
    def has_profiles(self) -> bool:
        """Whether anything tells one user from another."""
        return bool((self.profile != self.profile[0]).any())

    def score(self, vectors: Vectors) -> PerUser:
        """Metrics of every cold user."""
        ranks = {name: rank_targets(plan, vectors) for name, plan in self._plans.items()}
        found = {name: per_user_metrics(rank, (10,)) for name, rank in ranks.items()}
        return {f"{name} {metric}": found[name][metric] for name in TARGETS for metric in METRICS}

    def popularity(self) -> PerUser:
        """Of the items with the most training interactions."""
        return self.profile_popularity(EVERYBODY)

    def profile_popularity(self, mismatch: float) -> PerUser:
        """Of the same, where users of other profiles count less; ties by popularity.

        Args:
            mismatch: the factor per field that differs; with 0 the nearest profiles alone count.
        """
        train, num_items = self._made[SPLIT].train, self._made[SPLIT].num_items
        weights = profile_weights(self.profile, self._activity, mismatch)
        kinds = weights.weight.shape[1]
        kind = np.zeros(len(self._activity), np.int64)
        kind[weights.warm] = weights.warm_profile
        counts = np.zeros((num_items + 1, kinds + 1))
        np.add.at(counts, (train.items, np.repeat(kind, self._activity)), 1.0)
        overall = counts.sum(1)
        counts[:, -1] = overall / (overall.sum() + 1.0)
        users = np.ones((len(self._activity), kinds + 1))
        # A user of the nearest profile counts 1, and what breaks ties altogether less than that.
        scaled = weights.weight / weights.weight.max(axis=1, keepdims=True)
        users[weights.cold, :-1] = scaled[weights.cold_profile]
        return self.score(_scored(users, counts))

    def borrowed(self, vectors: Vectors, mismatch: float) -> PerUser:
        """Of seed users, for whom users of other profiles vote with less weight."""
        found = profile_weights(self.profile, self._activity, mismatch)
        seeds = self._made[BUILD_POOL].pool.seeds.user
        source = seeds[self._made[ASSIGN].seed[found.warm, 0]]
        lent = ColdUserWeights(found.cold, found.cold_profile, found.weight, source, found.warm_profile)
        return self.score(impute_cold_users(vectors, lent))


def _scored(users: np.ndarray, items: np.ndarray) -> Vectors:
    """Vectors whose score is the dot product."""
    score = jax.tree_util.Partial(_product)
    return Vectors(jnp.asarray(users, jnp.float32), jnp.asarray(items, jnp.float32), score)


def _product(users: jax.Array, items: jax.Array) -> jax.Array:
    # HIGHEST: counts must not be rounded, as the default does on some accelerators.
    return jnp.dot(users, items.T, precision=jax.lax.Precision.HIGHEST)


def run(
    configs: Mapping[str, Config], variants: Sequence[str], setup: Setup, workdir: Path
) -> dict[str, Any]:
    """Trains what is missing, chooses and compares.

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
    rows: dict[str, dict[float, PerUser]] = {}
    last: tuple[str, Made, ColdUsers] | None = None  # the data are the same for all backbones
    for backbone, config in configs.items():
        made = prepare(config, workdir, setup)
        cold = ColdUsers(made, split(made[LOAD], config.data.protocol, config.data.validation_from), setup)
        last = Path(config.data.name).name, made, cold
        tried = setup.mismatches if cold.has_profiles else (EVERYBODY,)
        rows["popularity"] = {EVERYBODY: cold.popularity()}
        if cold.has_profiles:
            rows["profile popularity"] = {0.0: cold.profile_popularity(0.0)}
            rows["profile popularity smoothed"] = {each: cold.profile_popularity(each) for each in tried}
        for variant in variants:
            folder = f"train/{backbone}"
            made.make(training(made, variant, setup.seed, folder))
            task, params = trained_recommender(made, variant, setup.seed, folder)
            vectors = task.vectors(params, "test")
            name = f"{backbone} {variant}"
            rows[name] = {each: cold.borrowed(vectors, each) for each in tried}
            if cold.has_profiles:
                rows[f"{name} everybody"] = {EVERYBODY: cold.borrowed(vectors, EVERYBODY)}
    if last is None:
        raise RelandError("--backbones is empty; name some, such as lightgcn,sasrec")
    dataset, made, cold = last
    return {
        "dataset": dataset,
        "users": made[SPLIT].num_users,
        "cold_users": len(cold.user),
        "seed_users": len(made[BUILD_POOL].pool.rationales),
        "profiles": len(np.unique(cold.profile, axis=0)),
        **setup._asdict(),
        **judge(rows, cold.half),
        "environment": environment() | {"configs": {name: each.to_keep() for name, each in configs.items()}},
    }


def judge(rows: Mapping[str, Mapping[float, PerUser]], half: np.ndarray) -> dict[str, Any]:
    """Lets each half of the cold users choose for the other, and compares.

    Args:
        rows: name -> setting -> metrics of every cold user; the other rows have one entry.
        half: ``<bool>[C]``.

    Returns:
        "methods": by name the chosen settings ("mismatch", of either half), the mean metrics with them,
        and with every setting for everybody ("tried"); "comparisons": of our rows with the others by
        the first and by all interactions, p-values corrected by Holm over those of the same targets.
    """
    methods, ranked = {}, {}
    for name, tried in rows.items():
        ours, others = (_best(tried, chooses) for chooses in (~half, half))
        ranked[name] = {
            metric: np.where(half, tried[ours][metric], tried[others][metric]) for metric in tried[ours]
        }
        everybody = {setting: _means(found) for setting, found in tried.items()}
        methods[name] = {"mismatch": [ours, others], **_means(ranked[name]), "tried": everybody}
    comparisons = []
    for targets in ("first", "all"):
        test = partial(_compare, ranked)
        pairs = _pairs(rows)
        found = [test(ours, other, f"{targets} {metric}") for ours, other in pairs for metric in METRICS]
        for each, p_value in zip(found, holm([each["p_value"] for each in found]), strict=True):
            each["p_holm"] = float(p_value)
        comparisons += found
    return {"methods": methods, "comparisons": comparisons}


def _best(tried: Mapping[float, PerUser], chooses: np.ndarray) -> float:
    return max(tried, key=lambda setting: tried[setting][CHOICE][chooses].mean())


def _means(found: PerUser) -> dict[str, float]:
    return {metric: float(values.mean()) for metric, values in found.items()}


def _pairs(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    plain = [name for name in rows if "popularity" in name]
    ours = [name for name in rows if name not in plain and not name.endswith(" everybody")]
    pairs = [(name, other) for name in ours for other in [*plain, f"{name} everybody"] if other in rows]
    full, texts = f" {RELAND.name}", f" {F_ITEM.name}"
    without = {name: name.replace(full, texts) for name in ours if name.endswith(full)}
    return pairs + [(name, other) for name, other in without.items() if other in ours]


def _compare(found: Mapping[str, PerUser], ours: str, other: str, metric: str) -> dict[str, Any]:
    compared = paired_comparison(found[ours][metric], found[other][metric])
    return {"ours": ours, "baseline": other, "metric": metric, **to_plain(compared)}


def table(found: Mapping[str, Any]) -> str:
    """The results for people."""
    columns = [f"{targets} {metric}" for targets in TARGETS for metric in METRICS]
    lines = [
        f"{found['dataset']}: {found['cold_users']} cold users; "
        f"{found['profiles']} profiles, {found['seed_users']} seed users",
        f"{'':<30}{'factor':>10}" + "".join(f"{column:>15}" for column in columns),
    ]
    for name, method in found["methods"].items():
        chosen = "/".join(f"{each:g}" for each in dict.fromkeys(method["mismatch"]))
        lines.append(f"{name:<30}{chosen:>10}" + "".join(f"{method[column]:>15.4f}" for column in columns))
    lines.append(f"{'ours - baseline, * for p < 0.05 after Holm':<66}{'':>14}   difference")
    for each in found["comparisons"]:
        interval = f"[{each['low']:+.4f}, {each['high']:+.4f}] p = {each['p_value']:.3g}"
        what = f"{each['ours']} - {each['baseline']}"
        mark = stars(each["p_holm"])
        lines.append(f"{what:<66}{each['metric']:>14}   {each['difference']:+.4f}{mark:<1} {interval}")
    return "\n".join(lines)


def plan(dataset: str, backbones: Sequence[str], changes: Sequence[str]) -> dict[str, Config]:
    """The settings of every backbone: those of its configuration under the ratio split, changed.

    Raises:
        RelandError: an unknown backbone or setting.
    """
    configs = {}
    for backbone in backbones:
        config = Config.from_dict(get_config(f"{dataset},{backbone}").to_dict())
        changed = [parse_setting(each, config) for each in changes]
        configs[backbone] = with_settings(config, {"data.protocol": "ratio"} | dict(changed))
    return configs


def define_flags() -> None:
    """Registers the flags; not at import, since other jobs have some of the same names."""
    flags.DEFINE_string("dataset", "ml-1m", "Data set: a known name or a path.")
    flags.DEFINE_list("backbones", ["lightgcn", "sasrec"], "Backbones.")
    flags.DEFINE_list("variants", [F_ITEM.name, RELAND.name], "Variants, and ablations of reland.")
    flags.DEFINE_list("mismatches", ["0.02", "0.05", "0.1", "0.2"], "Factors per differing field to try.")
    flags.DEFINE_float("share", 0.1, "Share of the users that is held out.", 0.0, 0.9)
    flags.DEFINE_integer("seed", 0, "Of everything drawn, and the training seed.", lower_bound=0)
    required_path("workdir", "Folder of artefacts.")
    required_path("out", "JSON file of the results.")
    flags.DEFINE_multi_string("set", [], "section.key=value, for every backbone; can be repeated.")


def _factor(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RelandError(f"--mismatches: {text!r} is not a number; use factors such as 0.02,0.1") from None


def main() -> None:
    """Runs the job, prints the table and writes the file."""
    given = flags.FLAGS
    setup = Setup(tuple(map(_factor, given.mismatches)), given.share, given.seed)
    configs = plan(given.dataset, given.backbones, given.set)
    keep_programs_of(configs.values(), Path(given.workdir))
    variants = tuple(given.variants)
    configs = {name: dataclasses.replace(one, variants=variants) for name, one in configs.items()}
    found = run(configs, given.variants, setup, Path(given.workdir))
    print(table(found))
    write_json(Path(given.out), found)


if __name__ == "__main__":
    command_line.run(main, define_flags)
