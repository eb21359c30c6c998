"""The scores of a linear model for a backbone that is trained upon them: solved, and cut to short lists."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from scipy import sparse

from reland_jax.config import EaseConfig, ScoreConfig
from reland_jax.models import Ease, LinearScores, Recommender, SequentialRecommender, Tables
from reland_jax.train.closed_form import ClosedForm, check_users, newest_first, who_had_what
from reland_jax.train.linear import linear_task
from reland_jax.types import Ragged, Splits


def with_linear_scores(
    model: Recommender, tables: Tables[np.ndarray], splits: Splits, config: EaseConfig
) -> Tables[np.ndarray]:
    """The tables with `linear`, where the recommender adds the scores of a linear model.

    Args:
        model: the recommender; item texts are read where it reads them.
        tables: of the host.
        splits: training part.
        config: of EASE; its form is the sparse one, whatever it says.

    Raises:
        RelandError: as of `linear_task`.
    """
    if model.beside.linear is None:
        return tables
    check_users(splits.train)
    sequential = isinstance(model, SequentialRecommender)
    ease = Ease(dataclasses.replace(config, form="sparse"), splits.num_items, model.texts, 0, sequential)
    weights = weights_of(linear_task(ease, tables, splits, 1))
    item, value = strongest(weights, model.beside.votes)
    linear = LinearScores[np.ndarray](item, value)
    if not sequential:
        linear = lists_of_sets(linear, weights, splits.train, model.beside)
    return tables._replace(linear=linear)


def weights_of(task: ClosedForm) -> sparse.csr_array:
    """The weights of a linear model, ``<float32>[I + 1, I + 1]``: of each predictor (row) for each item."""
    equations = task.equations()
    task.compile(equations)
    found = jax.tree.map(np.asarray, task.solve(equations, 0))
    nearest, weight = found["nearest"], found["weight"]
    rows = task.model.num_items + 1
    item = np.repeat(np.arange(len(nearest)), nearest.shape[1])
    used = (weight.ravel() != 0) & (item < rows) & (nearest.ravel() < rows)
    entries = weight.ravel()[used], (nearest.ravel()[used], item[used])
    return sparse.csr_array(entries, shape=(rows, rows))


def strongest(rows: sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns with the largest entries of every row, ``<int32>[n, count]``, and these; 0 where unused."""
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((-rows.data, owner))
    place = np.arange(len(owner)) - rows.indptr[owner]
    kept = place < count
    item, value = np.zeros((rows.shape[0], count), np.int32), np.zeros((rows.shape[0], count), np.float32)
    item[owner[kept], place[kept]] = rows.indices[order][kept]
    value[owner[kept], place[kept]] = rows.data[order][kept]
    return item, value


def lists_of_sets(
    linear: LinearScores[np.ndarray], weights: sparse.csr_array, train: Ragged, config: ScoreConfig
) -> LinearScores[np.ndarray]:
    """With the lists of users, by all their training items."""
    had = who_had_what(train, weights.shape[0] - 1, np.float32)
    scores = sparse.csr_array(had @ weights[1:])
    listed, score = strongest(scores, config.listed)
    return linear._replace(listed=listed, score=score, had=newest_first(train, None))
