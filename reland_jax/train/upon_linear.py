"""The scores of a linear model for a backbone that is trained upon them: solved, and cut to short lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from scipy import sparse

from reland_jax.config import EaseConfig, ScoreConfig
from reland_jax.models import Ease, LinearScores, Recommender, SequentialRecommender, Tables
from reland_jax.train.closed_form import ClosedForm, check_users, newest_first, who_had_what
from reland_jax.train.linear import linear_task
from reland_jax.types import Ragged, Splits


def with_linear_scores(
    model: Recommender,
    tables: Tables[np.ndarray],
    splits: Splits,
    config: EaseConfig,
    solved: sparse.csr_array | None = None,
) -> Tables[np.ndarray]:
    """The tables with `linear`, where the recommender adds the scores of a linear model.

    Args:
        model: the recommender; item texts are read where it reads them.
        tables: of the host.
        splits: training part.
        config: of EASE; its form is the sparse one, whatever it says.
        solved: what `solve` has found of all users, where nothing is trained any more.

    Raises:
        RelandError: as of `linear_task`.
    """
    if model.beside.linear is None:
        return tables
    sequential = isinstance(model, SequentialRecommender)
    folds = model.beside.folds if model.beside.added == "training" and solved is None else 1
    fold = np.arange(splits.num_users) % folds
    weights = [solve(model, tables, splits, config) if solved is None else solved]
    parts = [fold != each for each in range(folds) if folds > 1]
    weights += [solve(model, tables, _of_users(splits, each), config) for each in parts]
    lists = [strongest(each, model.beside.votes) for each in weights]
    linear = LinearScores(*map(np.concatenate, zip(*lists, strict=True)))
    if folds > 1:
        linear = linear._replace(begin=((1 + fold) * (splits.num_items + 1)).astype(np.int32))
    if not sequential:
        linear = lists_of_sets(linear, weights, fold, splits.train, model.beside)
    return tables._replace(linear=linear)


def solve(
    model: Recommender, tables: Tables[np.ndarray], splits: Splits, config: EaseConfig
) -> sparse.csr_array:
    """The weights of the linear model of a recommender, see `weights_of`; arguments of `with_linear_scores`.

    Raises:
        RelandError: users without training items, or as of `linear_task`.
    """
    check_users(splits.train)
    sequential = isinstance(model, SequentialRecommender)
    ease = Ease(dataclasses.replace(config, form="sparse"), splits.num_items, model.texts, 0, sequential)
    return weights_of(linear_task(ease, tables, splits, 1))


def with_lists_of(
    linear: LinearScores[np.ndarray], histories: Ragged, config: ScoreConfig
) -> LinearScores[np.ndarray]:
    """With the lists of users of sets by what they had, from the items that each row speaks for.

    Args:
        linear: of a ranking.
        histories: of all users.
        config: for the length of a list.
    """
    rows, count = linear.item.shape
    spoken = np.repeat(np.arange(rows), count), linear.item.ravel()
    weights = sparse.csr_array((linear.value.ravel(), spoken), shape=(rows, rows))
    weights.eliminate_zeros()
    nobody = np.zeros(histories.num_rows, np.int64)
    return lists_of_sets(linear._replace(begin=None), [weights], nobody, histories, config)


def _of_users(splits: Splits, chosen: np.ndarray) -> Splits:
    """The split of some users, ``<bool>[U]``."""
    train, valid, test = (each.take(np.flatnonzero(chosen)) for each in splits[:3])
    return splits._replace(train=train, valid=valid, test=test)


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
    linear: LinearScores[np.ndarray],
    weights: Sequence[sparse.csr_array],
    fold: np.ndarray,
    train: Ragged,
    config: ScoreConfig,
) -> LinearScores[np.ndarray]:
    """With the lists of users, by all their training items.

    Args:
        linear: without them.
        weights: of all users, and then without each fold.
        fold: ``<int64>[U]``, of each user.
        train: what users had.
        config: for the length of a list.
    """
    had = who_had_what(train, weights[0].shape[0] - 1, np.float32)
    listed, score = strongest(sparse.csr_array(had @ weights[0][1:]), config.listed)
    if linear.begin is not None:
        listed, score = (np.concatenate([each, each]) for each in (listed, score))
        for number, solved in enumerate(weights[1:]):
            users = np.flatnonzero(fold == number)
            found = strongest(sparse.csr_array(had[users] @ solved[1:]), config.listed)
            listed[len(fold) + users], score[len(fold) + users] = found
    return linear._replace(listed=listed, score=score, had=newest_first(train, None))
