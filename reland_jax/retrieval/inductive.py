"""Vectors of users who were not trained, from the items that they had (fold-in by the item side).

A user's trained vector is predicted from its items by ridge regression, learned from the users who were
trained. The predictors are the mean of the items' vectors, their sum weighed as a graph convolution weighs it
(``1 / sqrt(n_u n_i)``), and a constant. It is solved at once, and a new user costs one product.

Nothing depends on the backbone but the vectors themselves, so the same regression serves two purposes: the
vector by which a user is matched to seed users (Eq. 3), and the embedding of a collaborative backbone, whose
layers are then computed from it and from the weighed sum exactly. It is an approximation: what a trained
vector says beyond the user's items, such as where it started and in which order it was trained, is lost.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reland_jax.types import PADDING_ITEM, Ragged, RelandError

RIDGE = 1e-3
"""Regularisation of each predictor, relative to its own mean square, so that none is judged by its scale."""
_EXACT = jax.lax.Precision.HIGHEST
_LEAST = 1e-6
"""The same relative to the mean of all predictors, for those that are always zero."""


class FoldIn(NamedTuple):
    """What is needed of a user's items, and the regression.

    Attributes:
        items: ``<float32>[I + 1, E]``, a vector for every item; row 0 is zero.
        scale: ``<float32>[I + 1]``, one by the square root of the number of users of each item; 0 for an item
            of which nothing is known, which counts as if the user had not had it.
        weights: ``<float32>[2 E + 1, D]``, of the two sums and the constant.
    """

    items: np.ndarray
    scale: np.ndarray
    weights: np.ndarray


class Matching(NamedTuple):
    """How a history becomes a behaviour vector (M of Eq. 1): the encoder's half is predicted.

    The half of the item texts is computed as that of a trained user.

    Attributes:
        items: of the `FoldIn` that predicts the encoder's half, as the two below.
        scale: see `FoldIn`.
        weights: see `FoldIn`.
        texts: ``<float32>[I + 1, T]`` of length 1 or zero, whose sum over a user's items is the text half;
            None where the vectors have none, or all of them is predicted.
        text_weight: ``<float32>[]``, length of the text half relative to the encoder's; None likewise.
    """

    items: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    texts: np.ndarray | None = None
    text_weight: np.ndarray | None = None


def learn_fold_in(users: np.ndarray, train: Ragged, items: np.ndarray) -> FoldIn:
    """The regression of users' vectors on their items' vectors.

    Args:
        users: ``<float32>[U, D]``; users without training items are not looked at.
        train: training items of every user; one that stands twice counts twice, as in a graph.
        items: ``<float32>[I + 1, E]``, of the same model.

    Raises:
        RelandError: no user has training items.
    """
    had, items = _had(train, len(items)), np.array(items, np.float32)
    items[PADDING_ITEM] = 0.0
    # An item that nobody had has a vector all the same, by its text, and counts as one that few had.
    scale = np.where(np.arange(len(items)) == PADDING_ITEM, 0.0, 1 / np.sqrt(np.maximum(_count(had), 1)))
    scale = scale.astype(np.float32)
    return FoldIn(items, scale, _solved(_summed(had, items, scale), users, had))


def fold_in_all(known: FoldIn, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """The same as `fold_in` for many users at once, on the host.

    Args:
        known: of `learn_fold_in`, for which every item counts.
        histories: items of n users.

    Returns:
        ``<float32>[n, D]`` and ``<float32>[n, E]``.
    """
    had = _had(histories, len(known.items))
    mean, weighed = _summed(had, known.items, known.scale)
    constant = np.ones((len(mean), 1), np.float32)
    return np.concatenate([mean, weighed, constant], axis=1) @ known.weights, weighed


def learn_matching(
    behaviour: np.ndarray,
    train: Ragged,
    num_items: int,
    texts: np.ndarray | None = None,
    text_weight: float = 0.0,
) -> Matching:
    """The same for behaviour vectors, whose encoder leaves no vectors of items behind.

    An item's vector is the mean of the vectors of its users. A user is left out of the means that its own
    vector is predicted from: for a new user nothing of the kind is known.

    Args:
        behaviour: ``<float32>[U, D]``, M of Eq. 1.
        train: training items of every user.
        num_items: I.
        texts: ``<float32>[I + 1, T]``, of which the last T columns are made (`seeds.add_texts`); None where
            they are not.
        text_weight: of these columns.

    Raises:
        RelandError: no user has training items.
    """
    width = behaviour.shape[1] - (0 if texts is None else texts.shape[1])
    had, behaviour = _had(train, num_items + 1), np.asarray(behaviour[:, :width], np.float32)
    had.data[:] = 1
    count, sums, scale = _count(had), had.T @ behaviour, _scale(had)
    items = sums / np.maximum(count, 1)[:, None]
    of_others = np.divide(1.0, count - 1, out=np.zeros(len(count)), where=count > 1).astype(np.float32)
    features = []
    for weight, norm in _sums(had, scale):
        each = weight * of_others
        others = had @ (each[:, None] * sums) - (had @ each)[:, None] * behaviour
        features.append(others * norm[:, None])
    found = Matching(items, scale, _solved(features, behaviour, had))
    if texts is None:
        return found
    rows = np.asarray(texts, np.float32)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
    return found._replace(texts=unit, text_weight=np.asarray(text_weight, np.float32))


def behaviour_of(known: Matching, history: jax.Array) -> jax.Array:
    """Behaviour vectors of users by what they had, ``<float32>[n, D]`` or ``[n, D + T]`` with texts.

    Args:
        known: see `Matching`.
        history: ``<int32>[n, W]``, items of n users, 0 where unused.
    """
    predicted, _ = fold_in(FoldIn(*known[:3]), distinct(history))
    if known.texts is None or known.text_weight is None:
        return predicted
    told = jnp.asarray(known.texts)[history].sum(1)  # an item that stands twice counts twice, as in training
    return jnp.concatenate([_unit(predicted), known.text_weight * _unit(told)], axis=1)


def fold_in(known: FoldIn, history: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors of users by what they had, as a pure function of arrays.

    Args:
        known: the regression.
        history: ``<int32>[n, W]``, items of n users, 0 where unused; a user without any gets what the
            constant says.

    Returns:
        ``<float32>[n, D]``, and the weighed sums of the items' vectors that a graph convolution adds to them,
        ``<float32>[n, E]``.
    """
    scale, rows = jnp.asarray(known.scale)[history], jnp.asarray(known.items)[history]
    length = jnp.maximum((scale > 0).sum(1, keepdims=True), 1).astype(jnp.float32)
    mean = jnp.where((scale > 0)[..., None], rows, 0.0).sum(1) / length
    weighed = jnp.einsum("nw,nwe->ne", scale, rows, precision=_EXACT) / jnp.sqrt(length)
    features = jnp.concatenate([mean, weighed, jnp.ones_like(length)], axis=1)
    return jnp.matmul(features, jnp.asarray(known.weights), precision=_EXACT), weighed


def distinct(history: jax.Array) -> jax.Array:
    """Histories ``<int32>[n, W]`` in which an item that stands more than once stays at its first place alone.

    The other places become 0, which is no item.
    """
    order = jnp.argsort(history, axis=1, stable=True)
    found = jnp.take_along_axis(history, order, axis=1)
    again = jnp.pad(found[:, 1:] == found[:, :-1], ((0, 0), (1, 0)))
    return jnp.take_along_axis(jnp.where(again, 0, found), jnp.argsort(order, axis=1), axis=1)


def _unit(rows: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.where(norm > 0, rows / jnp.where(norm > 0, norm, 1.0), 0.0)


def _had(history: Ragged, columns: int) -> sparse.csr_array:
    """``<float32>[n, I + 1]``, how often a user had an item."""
    # Copies, since repeats are summed in place.
    had = sparse.csr_array(
        (np.ones(len(history.items), np.float32), history.items.copy(), history.indptr.copy()),
        (history.num_rows, columns),
    )
    had.sum_duplicates()
    return had


def _count(had: sparse.csr_array) -> np.ndarray:
    """``<float32>[I + 1]``, users of every item."""
    return np.bincount(had.indices, had.data, minlength=had.shape[1]).astype(np.float32)


def _scale(had: sparse.csr_array) -> np.ndarray:
    count = _count(had)
    return np.divide(1.0, np.sqrt(count), out=np.zeros_like(count), where=count > 0)


def _sums(had: sparse.csr_array, scale: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of either sum over a user's items the weight of each item, ``[I + 1]``, and of the user, ``[n]``."""
    length = np.maximum(had.sum(axis=1), 1).astype(np.float32)
    return [(np.ones_like(scale), 1 / length), (scale, 1 / np.sqrt(length))]


def _summed(had: sparse.csr_array, items: np.ndarray, scale: np.ndarray) -> list[np.ndarray]:
    """Both sums over the vectors of a user's items, ``<float32>[n, E]`` each."""
    return [(had @ (weight[:, None] * items)) * norm[:, None] for weight, norm in _sums(had, scale)]


def _solved(sums: list[np.ndarray], users: np.ndarray, had: sparse.csr_array) -> np.ndarray:
    """Ridge regression on sums and a constant in float64, by users who had anything, ``<float32>[F, D]``."""
    known = np.diff(had.indptr) > 0
    if not known.any():
        raise RelandError("no user has training items, so nothing says how items make a user")
    features = np.concatenate([*sums, np.ones((had.shape[0], 1), np.float32)], axis=1)
    x, y = features[known].astype(np.float64), np.asarray(users)[known].astype(np.float64)
    gram = x.T @ x
    own = np.diag(gram)
    gram = gram + RIDGE * np.diag(own + _LEAST * own.mean())
    return np.linalg.solve(gram, x.T @ y).astype(np.float32)
