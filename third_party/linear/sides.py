"""One linear model on one split, timed: prints one JSON line. Started by `bench.py`, in either environment.

    python third_party/linear/sides.py SIDE SPLIT.npz SETTINGS.json LISTS.npy

Beside NumPy and SciPy a side imports its own library alone, so that nothing else counts into its memory.
The lists are the first ten items of every user with a held-out item, the user's training items left out;
all sides make them by the same code, outside of the timed part.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

LENGTH, USERS = 10, 512

Scores = Callable[[np.ndarray], np.ndarray]
"""Users ``<int64>[n]`` -> scores ``[n, I]``."""


class Fitted(NamedTuple):
    """What a side has made of the split, in how many seconds, compilation apart."""

    scores: Scores
    seconds: float
    compile_seconds: float = 0.0


def of_weights(had: sparse.csr_matrix, weights: Any) -> Scores:
    """Scores by weights of items by items ``[I, I]``, dense or sparse."""

    def scores(users: np.ndarray) -> np.ndarray:
        found = had[users] @ weights
        return np.asarray(found.todense() if sparse.issparse(found) else found)

    return scores


def lapack(had: sparse.csr_matrix, settings: dict[str, Any]) -> Fitted:
    """EASE by LAPACK's Cholesky factorisation and inverse, in float64."""
    from scipy.linalg import lapack as library

    start = time.perf_counter()
    gram = np.asarray((had.T @ had).todense(), np.float64, order="F")
    gram[np.diag_indices_from(gram)] += settings["regularisation"]
    factor, failed = library.dpotrf(gram, lower=1, overwrite_a=1)
    assert not failed
    inverse, failed = library.dpotri(factor, lower=1, overwrite_c=1)
    assert not failed
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return Fitted(of_weights(had, weights), time.perf_counter() - start)


def rectools(had: sparse.csr_matrix, settings: dict[str, Any]) -> Fitted:
    """EASE of RecTools."""
    import pandas
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    coo = had.tocoo()
    columns = {Columns.User: coo.row, Columns.Item: coo.col, Columns.Weight: 1.0}
    table = pandas.DataFrame(columns | {Columns.Datetime: pandas.Timestamp("2020-01-01")})
    dataset = Dataset.construct(table)
    model = EASEModel(regularization=settings["regularisation"])
    start = time.perf_counter()
    model.fit(dataset)
    seconds = time.perf_counter() - start
    order = dataset.item_id_map.external_ids.astype(int)
    weights = np.zeros((had.shape[1],) * 2, np.float32)
    weights[np.ix_(order, order)] = model.weight
    return Fitted(of_weights(had, weights), seconds)


def implicit(had: sparse.csr_matrix, settings: dict[str, Any]) -> Fitted:
    """ALS of `implicit`."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=settings["dim"], iterations=settings["sweeps"], alpha=40.0, regularization=0.01,
        random_state=0,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(had, show_progress=False)
    return Fitted(lambda users: model.user_factors[users] @ model.item_factors.T, time.perf_counter() - start)


def here(backbone: str, changes: dict[str, Any], settings: dict[str, Any], split: Any) -> Fitted:
    """A linear model of this project, variant `id`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from reland_jax.presets import preset
    from reland_jax.stages import id_task
    from reland_jax.types import Ragged, Splits

    train, valid = (Ragged(split[f"{part}_indptr"], split[f"{part}_items"]) for part in ("train", "valid"))
    splits = Splits(train, valid, valid, int(split["num_items"]), "ratio")
    task: Any = id_task(preset("demo", backbone, changes), splits)
    begin = time.perf_counter()
    equations = task.equations()
    counted = time.perf_counter()
    task.compile(equations)
    compiled = time.perf_counter()
    params = task.solve(equations, 0)
    for leaf in params.values():
        if leaf is not None:
            leaf.block_until_ready()
    solved = time.perf_counter()
    vectors = task.vectors(params, "valid")

    def scores(users: np.ndarray) -> np.ndarray:
        return np.asarray(vectors.score(vectors.users[users], vectors.items))[:, 1 : splits.num_items + 1]

    return Fitted(scores, solved - begin - (compiled - counted), compiled - counted)


def fitted(side: str, had: sparse.csr_matrix, settings: dict[str, Any], split: Any) -> Fitted:
    """Runs a side, by its name."""
    regularised = {"ease.regularisation": settings["regularisation"]}
    if side in ("ease here, float64", "ease here, float32"):
        changes = {"ease.form": "exact", "ease.precision": side[-7:]}
        return here("ease", regularised | changes, settings, split)
    if side == "ease here, sparse":
        changes = {"ease.form": "sparse", "ease.neighbours": 64, "ease.precision": "float32"}
        return here("ease", regularised | changes, settings, split)
    if side == "ials here":
        changes = {"model.dim": settings["dim"], "ials.sweeps": settings["sweeps"]}
        return here("ials", changes, settings, split)
    return {"LAPACK": lapack, "RecTools": rectools, "implicit": implicit}[side](had, settings)


def first_items(scores: Scores, had: sparse.csr_matrix, users: np.ndarray) -> np.ndarray:
    """The best items that a user has not had, from 1, ``<int32>[n, 10]``."""
    out = np.zeros((len(users), LENGTH), np.int32)
    for begin in range(0, len(users), USERS):
        some = users[begin : begin + USERS]
        found = np.array(scores(some), np.float32)
        found[had[some].nonzero()] = -np.inf
        best = np.argpartition(-found, LENGTH, axis=1)[:, :LENGTH]
        order = np.argsort(-np.take_along_axis(found, best, 1), axis=1, kind="stable")
        out[begin : begin + USERS] = np.take_along_axis(best, order, 1) + 1
    return out


def main() -> None:
    """Runs the side that the arguments name."""
    side, split_path, settings, lists = sys.argv[1:]
    with np.load(split_path) as arrays:
        split = dict(arrays)
    shape = len(split["train_indptr"]) - 1, int(split["num_items"])
    ones = np.ones(len(split["train_items"]), np.float32)
    had = sparse.csr_matrix((ones, split["train_items"] - 1, split["train_indptr"]), shape)
    had.sum_duplicates()
    had.data[:] = 1
    found = fitted(side, had, json.loads(settings), split)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(lists, first_items(found.scores, had, np.flatnonzero(np.diff(split["valid_indptr"]))))
    line = {"seconds": found.seconds, "compile_seconds": found.compile_seconds, "peak_bytes": peak}
    print(json.dumps({"side": side} | line))


if __name__ == "__main__":
    main()
