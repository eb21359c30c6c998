"""What each history item adds to a score of a linear model: exact, so that all of it is the score."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from reland_jax.models import Ease, Ials
from reland_jax.models.ials import weights_of
from reland_jax.serve.listing import Batch, in_rows, power_of_two
from reland_jax.serve.programs import Form, Known, Matched, score_of, scored, users_of
from reland_jax.types import Assignment, Ragged


class Contributions(NamedTuple):
    """The terms of the scores of one user.

    Attributes:
        history: ``<int32>[n]``, distinct items that the user had.
        items: ``<float>[n, I + 1]``, what each adds to the score of every item.
        rationales: ``<float>[I + 1]``, what the rationales add.
    """

    history: np.ndarray
    items: np.ndarray
    rationales: np.ndarray


def contributions(
    form: Form, known: Known, history: Ragged, matched: Assignment | None
) -> Contributions | None:
    """The terms of the scores of the user of a history; None for a model whose scores are no such sum.

    Args:
        form: of the recommender.
        known: its arrays.
        history: one row of items, oldest first.
        matched: the user's seed users, for a variant that reads rationales.
    """
    model = form.model
    if isinstance(model, Ease):
        return _of_lists(model, form, known, history, matched)
    if isinstance(model, Ials):
        return _of_factors(model, known, np.unique(history.items), matched)
    return None


def _of_lists(
    model: Ease, form: Form, known: Known, history: Ragged, matched: Assignment | None
) -> Contributions:
    """By the score of every entry of the user's list alone, which works for every form of the weights."""
    width = power_of_two(len(history.items))
    row = jnp.asarray(in_rows(history, Batch(0, 1, 1), width))
    given = None if matched is None else Matched(*map(jnp.asarray, matched))
    entries = np.asarray(users_of(form, known, row, given))[0]
    alone = jnp.asarray(np.diag(entries))
    scores = np.asarray(scored(score_of(form, known, width), alone, known.items))[:, : model.num_items + 1]
    own = scores[model.rationales :]
    had = entries[model.rationales :].astype(np.int32)
    return Contributions(had[had > 0], own[had > 0], scores[: model.rationales].sum(axis=0))


def _of_factors(model: Ials, known: Known, history: np.ndarray, matched: Assignment | None) -> Contributions:
    """The user's factors are the solution of equations whose right side is a sum over what is known of it."""
    weights, items = weights_of(model.config), np.asarray(known.items, np.float64)[: model.num_items + 1]
    had, right = items[history], items[history].sum(axis=0) * 0
    matrix = weights.unobserved * items.T @ items + had.T @ had
    loadings = known.params["rationale_loadings"]
    if matched is not None and loadings is not None:
        loadings = np.asarray(loadings, np.float64)
        mean = np.asarray(known.rationales, np.float64)[matched.seed[0]].mean(axis=0)
        right = mean * model.config.rationale_weight**0.5 @ loadings
        matrix += loadings.T @ loadings
    observed = len(history) + weights.unobserved * model.num_items
    matrix += float(weights.regularisation * observed**weights.frequency) * np.eye(len(matrix))
    terms = np.linalg.solve(matrix, np.vstack([had, right]).T)
    scores = (items @ terms).T
    return Contributions(history, scores[:-1], scores[-1])
