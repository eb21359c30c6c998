"""Artefacts of stages beyond the contracts of `types`, and how all are written and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from reland_jax.artefacts import fingerprint, load_arrays, save_arrays
from reland_jax.config import Config
from reland_jax.data import statistics
from reland_jax.files import write_json
from reland_jax.pool import Problem, Unanswered, load_pool, pool_provenance, save_pool
from reland_jax.records import to_plain
from reland_jax.train import load_params, save_params
from reland_jax.types import (
    PARTS,
    Assignment,
    IdMap,
    Interactions,
    LoadReport,
    Ragged,
    ReasoningPool,
    SeedSet,
    Splits,
    TargetRanks,
)


class BuiltPool(NamedTuple):
    """A reasoning pool and what a person should know about it.

    Attributes:
        pool: the pool.
        problems: of every seed user left out or read with a remark.
        ledger: requests, tokens and money that were paid for it; {} where no LLM was asked.
    """

    pool: ReasoningPool
    problems: Sequence[Problem]
    ledger: dict[str, Any]

    def unanswered(self) -> list[str]:
        """External ids of the seed users about whom the same command asks, or reads, something again."""
        return list(dict.fromkeys(each.user_id for each in self.problems if each.again))


class Texts(NamedTuple):
    """Encoded texts.

    Attributes:
        items: ``<float32>[I + 1, T]``, item attributes; row 0 is zero.
        rationales: ``<float32>[S, T]``, step 2 of every rationale of the pool.
    """

    items: np.ndarray
    rationales: np.ndarray


class Seeding(NamedTuple):
    """What the pool is built from, all stages before it done.

    Attributes:
        interactions: all of them, with external ids and item features.
        splits: training, validation and test.
        behaviour: ``<float32>[U, D]``, M of Eq. 1.
        seeds: the chosen seed users.
        clusters: ``<int32>[U]``, K-means cluster of every user; -1 for one without training items.
        fingerprint: of the seed users and everything that they depend on.
    """

    interactions: Interactions
    splits: Splits
    behaviour: np.ndarray
    seeds: SeedSet
    clusters: np.ndarray
    fingerprint: str


class Inputs(NamedTuple):
    """What training and report read, all stages before them done.

    Attributes:
        interactions: all of them, with external ids and item features.
        splits: training, validation and test.
        clusters: ``<int32>[U]``, K-means cluster of every user; -1 for one without training items.
        built: the reasoning pool and its problems.
        texts: encoded item attributes and rationales.
        assignment: every user's seed users whose rationales it is given.
        fingerprint: of texts and assignment.
    """

    interactions: Interactions
    splits: Splits
    clusters: np.ndarray
    built: BuiltPool
    texts: Texts
    assignment: Assignment
    fingerprint: str

    def rationales_each(self, config: Config) -> int:
        """How many rationales a user is given: as many as asked for, or as there are seed users."""
        return min(config.retrieval.neighbours, self.assignment.seed.shape[1])


Metrics = Mapping[str, float]
"""Metric, such as "ndcg@10" -> its mean over users, in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """The figures of one training.

    Attributes:
        valid: of the validation items, with the parameters of the best epoch.
        test: the same of the test items.
        epochs: how many were trained.
        best_epoch: from 1.
        objective: see `TrainConfig`.
        seconds_per_epoch: median, without compilation and validation.
        compile_seconds: of the training step.
        examples_per_second: targets of an epoch by its seconds.
        evaluation_seconds: median of a validation.
        history: entry of every epoch: "epoch", "loss", "seconds", and after a validation its metrics.
    """

    valid: Metrics
    test: Metrics
    epochs: int
    best_epoch: int
    objective: str
    seconds_per_epoch: float
    compile_seconds: float
    examples_per_second: float
    evaluation_seconds: float
    history: Sequence[Mapping[str, float]]

    def of(self, part: str) -> Metrics:
        """The metrics of a part of the split."""
        return {"valid": self.valid, "test": self.test}[part]


class Lists(NamedTuple):
    """The best items of some users after their validation items.

    Attributes:
        user: ``<int64>[n]``.
        item: ``<int32>[n, K]``, best first; a list with fewer ends with `PADDING_ITEM`.
    """

    user: np.ndarray = np.zeros(0, np.int64)
    item: np.ndarray = np.zeros((0, 0), np.int32)

    def of(self, users: np.ndarray) -> np.ndarray | None:
        """The lists of these users; None if one of them has none."""
        row = {user: row for row, user in enumerate(self.user.tolist())}
        rows = [row.get(user, -1) for user in users.tolist()]
        return None if -1 in rows else self.item[rows]


class Trained(NamedTuple):
    """One trained recommender.

    Attributes:
        params: its parameters; None if it was read back (`load_trained_params`).
        summary: its figures.
        ranks: by part of the split, ranks of every target.
        lists: of the users that the report was to show, and of others drawn at random.
    """

    params: Any
    summary: TrainingSummary
    ranks: dict[str, TargetRanks]
    lists: Lists = Lists()


def save_array(array: np.ndarray, folder: Path) -> None:
    """Writes one array."""
    save_arrays({"array": array}, folder)


def load_array(folder: Path) -> np.ndarray:
    """Reads one array."""
    return load_arrays(folder)["array"]


def save_sparse(rows: sparse.csr_array, folder: Path) -> None:
    """Writes a square sparse matrix by its rows."""
    save_arrays({"indptr": rows.indptr, "indices": rows.indices, "data": rows.data}, folder)


def load_sparse(length: int, folder: Path) -> sparse.csr_array:
    """Reads a square sparse matrix of `length` rows.

    Raises:
        ValueError: it has another number of rows, or columns that there are not.
    """
    found = load_arrays(folder)
    rows = sparse.csr_array((found["data"], found["indices"], found["indptr"]), shape=(length, length))
    rows.check_format()
    return rows


def save_interactions(interactions: Interactions, folder: Path) -> None:
    """Writes interactions, and their statistics for people."""
    arrays = {"user": interactions.user, "item": interactions.item, "time": interactions.time}
    arrays |= {f"ids.{k}": v for k, v in interactions.ids._asdict().items()}
    arrays |= {f"item.{k}": v for k, v in interactions.item_features.items()}
    arrays |= {f"user.{k}": v for k, v in interactions.user_features.items()}
    if interactions.fixed_split is not None:
        arrays["fixed_split"] = interactions.fixed_split
    save_arrays(arrays, folder)
    told = {} if interactions.report is None else {"loading": interactions.report._asdict()}
    write_json(folder / "statistics.json", statistics(interactions) | told)


def check_range(what: str, values: np.ndarray, low: int, high: int) -> None:
    """Checks numbers that are read back and used as indices: out of range they would be clipped silently.

    Args:
        what: what they number, for the error.
        values: whole numbers of any shape.
        low: the least allowed value.
        high: the largest allowed value.

    Raises:
        ValueError: one of them is out of range.
    """
    if values.size and (values.min() < low or values.max() > high):
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"the numbers of {what} must be {low} to {high}, and are {found}")


def load_interactions(folder: Path) -> Interactions:
    """Reads interactions.

    Raises:
        ValueError: a user or an item is out of range.
    """
    arrays = load_arrays(folder)

    def features(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    check_range("users", arrays["user"], 0, len(arrays["ids.users"]) - 1)
    check_range("items", arrays["item"], 1, len(arrays["ids.items"]) - 1)
    return Interactions(
        arrays["user"],
        arrays["item"],
        arrays["time"],
        IdMap(**features("ids.")),
        features("item."),
        features("user."),
        arrays.get("fixed_split"),
        _load_report(json.loads((folder / "statistics.json").read_text()).get("loading")),
    )


def _load_report(values: dict[str, Any] | None) -> LoadReport | None:
    """The accounting of the loading from plain values."""
    if values is None:
        return None
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    dropped = tuple((str(why), int(count)) for why, count in values["dropped"])
    return LoadReport(**(values | lists | {"dropped": dropped}))


def save_splits(splits: Splits, folder: Path) -> None:
    """Writes splits."""
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    arrays = {f"{part}.{k}": v for part, ragged in parts.items() for k, v in ragged._asdict().items()}
    arrays |= {"num_items": np.array(splits.num_items), "protocol": np.array(splits.protocol)}
    save_arrays(arrays, folder)


def load_splits(folder: Path) -> Splits:
    """Reads splits.

    Raises:
        ValueError: an item is out of range, or the rows do not fit.
    """
    a = load_arrays(folder)
    parts = {part: Ragged(a[f"{part}.indptr"], a[f"{part}.items"]) for part in ("train", *PARTS)}
    for part in parts.values():
        check_range("items", part.items, 1, int(a["num_items"]))
        if part.indptr[0] != 0 or part.indptr[-1] != len(part.items) or (part.lengths() < 0).any():
            raise ValueError("the rows of a part do not fit its items")
    return Splits(**parts, num_items=int(a["num_items"]), protocol=str(a["protocol"]))


def save_built_pool(config: Config, ids: IdMap, built: BuiltPool, folder: Path) -> None:
    """Writes the pool as Parquet with a manifest, the problems and the ledger as JSON."""
    provenance = pool_provenance(config.pool, config.data)
    save_pool(built.pool, ids.users, folder / "pool", provenance=provenance)
    problems = [{**to_plain(each), "again": each.again} for each in built.problems]
    write_json(folder / "problems.json", problems)
    write_json(folder / "ledger.json", built.ledger)


def pool_identity(built: BuiltPool) -> str:
    """A hash of the rationales of a pool by user, independent of when and how they were obtained."""
    pool = built.pool
    said = [[rationale.step1, rationale.step2] for rationale in pool.rationales]
    return fingerprint(*pool.seeds, pool.behaviour, said)


def load_built_pool(ids: IdMap, folder: Path) -> BuiltPool:
    """Reads a pool, its problems and its ledger."""
    problems, paid = (json.loads((folder / f"{name}.json").read_text()) for name in ("problems", "ledger"))
    kinds = [Unanswered if each.get("again") else Problem for each in problems]
    told = [kind(each["user_id"], each["why"]) for kind, each in zip(kinds, problems, strict=True)]
    return BuiltPool(load_pool(folder / "pool", ids), told, paid)


def save_assignment(assignment: Assignment, folder: Path) -> None:
    """Writes an assignment."""
    save_arrays(assignment._asdict(), folder)


def load_assignment(users: int, seeds: int, folder: Path) -> Assignment:
    """Reads the assignment of a number of users to the rows of a pool.

    Raises:
        ValueError: there is no row for each user, or a seed user is not one of the pool.
    """
    assignment = Assignment(**load_arrays(folder))
    if len(assignment.seed) != users:
        raise ValueError(f"it is of {len(assignment.seed)} users, and there are {users}")
    check_range("seed users", assignment.seed, 0, seeds - 1)
    return assignment


def load_seeding(users: int, folder: Path) -> dict[str, np.ndarray]:
    """Reads the seed users chosen among a number of users, and the cluster of every user.

    Raises:
        ValueError: there is no cluster for each user, or a seed user is none of them.
    """
    arrays = load_arrays(folder)
    if len(arrays["cluster_of_user"]) != users:
        raise ValueError(f"it is of {len(arrays['cluster_of_user'])} users, and there are {users}")
    check_range("seed users", arrays["user"], 0, users - 1)
    return arrays


def seed_set(arrays: Mapping[str, np.ndarray]) -> SeedSet:
    """The seed users among the arrays of `load_seeding`."""
    return SeedSet(*(arrays[name] for name in SeedSet._fields))


def save_trained(trained: Trained, folder: Path) -> None:
    """Writes parameters (Orbax), summary (JSON), ranks and lists."""
    save_params(trained.params, folder / "params")
    write_json(folder / "summary.json", to_plain(trained.summary))
    tables: dict[str, TargetRanks | Lists] = {**trained.ranks, "lists": trained.lists}
    save_arrays(
        {f"{p}.{k}": v for p, r in tables.items() for k, v in r._asdict().items() if v is not None}, folder
    )


def load_trained(folder: Path) -> Trained:
    """Reads a trained recommender, but for its parameters, whose shapes are those of the mesh."""
    a = load_arrays(folder)
    ranks = {
        p: TargetRanks(a[f"{p}.user"], a[f"{p}.item"], a[f"{p}.rank"], a.get(f"{p}.had_before"))
        for p in PARTS
        if f"{p}.rank" in a
    }
    summary = TrainingSummary(**json.loads((folder / "summary.json").read_text()))
    return Trained(None, summary, ranks, Lists(a["lists.user"], a["lists.item"]))


def load_trained_params(like: Any, folder: Path) -> Any:
    """Reads the parameters of a trained recommender; `like` is a tree of shapes with their structure."""
    return load_params(folder / "params", like)
