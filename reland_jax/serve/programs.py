"""New users as a trained recommender reads them: pure functions of arrays, of fixed shapes.

What is compiled depends on a `Form` and on shapes alone. A history has one item in each of W places, oldest
first, and 0 in those that are left over.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.bundle import Bundle
from reland_jax.eval import Vectors
from reland_jax.eval.lists import best
from reland_jax.models import (
    Ease,
    Ials,
    Linear,
    LinearScores,
    Recommender,
    SequenceBatch,
    SequentialRecommender,
    Tables,
    applied,
)
from reland_jax.models.beside import lists_of_histories, unit_texts
from reland_jax.models.ease import age_weights
from reland_jax.retrieval import FoldIn, Matching, behaviour_of, distinct, fold_in, nearest
from reland_jax.train.closed_form import unit_rows
from reland_jax.train.ials import users_after


@dataclasses.dataclass(frozen=True)
class Form:
    """What a compiled program is made for.

    Attributes:
        model: which model.
        num_items: I.
        neighbours: k, seed users that a new user is given; 0 where the variant reads no rationales.
    """

    model: Recommender | Linear
    num_items: int
    neighbours: int


class Known(NamedTuple):
    """The arrays that new users are read with; None where a recommender needs no such thing.

    Attributes:
        params: of the model.
        rationales: ``<float32>[S, T]``, as the model reads them.
        texts: ``<float32>[I + 1, T]``, where a backbone reads them beside its items.
        items: ``<float32>[I + 1, E]``, as they are scored.
        score: of `Vectors`.
        matching: how a history becomes a behaviour vector.
        seeds: ``<float32>[S', D]``, behaviour vectors of seed users, of length 1.
        seed_row: ``<int32>[S']``, their rows of the pool.
        folding: how a history becomes a user's embedding, with the items' layers.
        linear: the rows of a linear model, where a backbone stands upon one.
    """

    params: Any = None
    rationales: Any = None
    texts: Any = None
    items: Any = None
    score: Any = None
    matching: Matching | None = None
    seeds: Any = None
    seed_row: Any = None
    folding: FoldIn | None = None
    linear: LinearScores[Any] | None = None


class Matched(NamedTuple):
    """The seed users of n new users, nearest first.

    Attributes:
        seed: ``<int32>[n, k]``, rows of the pool.
        cosine: ``<float32>[n, k]``.
    """

    seed: jax.Array
    cosine: jax.Array


class Answer(NamedTuple):
    """Lists of n users.

    Attributes:
        item: ``<int32>[n, K]``, best first; where fewer are left a list ends with `PADDING_ITEM`.
        score: ``<float32>[n, K]``; minus infinity at such an end.
        matched: their seed users ``[n, k]``; None where the variant reads no rationales.
    """

    item: jax.Array
    score: jax.Array
    matched: Matched | None


@partial(jax.jit, static_argnames=("form", "count"))
def answer(
    form: Form, known: Known, history: jax.Array, masked: jax.Array, allowed: jax.Array, count: int
) -> Answer:
    """The best items of new users.

    Args:
        form: what is fixed.
        known: the recommender.
        history: ``<int32>[n, W]``.
        masked: ``<int32>[n, M]``, items to leave out of each list, 0 where unused.
        allowed: ``<bool>[I + 1]``, items that lists are made of.
        count: K, at most I.
    """
    matched = match(known, history, form.neighbours)
    users = users_of(form, known, history, matched)
    vectors = Vectors(users, known.items, score_of(form, known, history.shape[1]))
    item, score = best(vectors, jnp.arange(users.shape[0]), masked, allowed, count, form.num_items)
    return Answer(item, score, matched)


def match(known: Known, history: jax.Array, count: int) -> Matched | None:
    """The `count` seed users of new users, by their items alone; None where no rationales are read."""
    if known.matching is None or known.seeds is None or known.seed_row is None:
        return None
    place, cosine = nearest(behaviour_of(known.matching, history), known.seeds, count)
    return Matched(known.seed_row[place], cosine)


def seed_keys(bundle: Bundle) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The fields `seeds` and `seed_row` of `Known`.

    As in the assignment, seed users without training items are nobody's.
    """
    if bundle.pool is None or bundle.matching is None:
        return None, None
    rows = np.flatnonzero(bundle.splits.train.lengths()[bundle.pool.seeds.user]).astype(np.int32)
    return unit_rows(bundle.pool.behaviour[rows]), rows


def users_of(form: Form, known: Known, history: jax.Array, matched: Matched | None) -> jax.Array:
    """New users as they are scored, ``<float32>[n, E]``."""
    model = form.model
    if isinstance(model, SequentialRecommender):
        return _encoded(model, known, history, matched)
    if isinstance(model, Ease):
        return _listed(model, history, matched)
    if isinstance(model, Ials):
        return users_after(model, known.params, distinct(history), _mean_rationale(known, matched))
    return _folded_in(model, known, history, matched)


def _folded_in(model: Recommender, known: Known, history: jax.Array, matched: Matched | None) -> jax.Array:
    """The layers of the model upon an embedding that is predicted."""
    assert known.folding is not None
    tables = _tables(model, known, matched)
    if model.reads_kernel:
        profile = unit_texts(known.texts[history]).sum(1)
        tables = tables._replace(profile=profile, activity=(history > 0).sum(1))
    if known.linear is not None:
        linear = lists_of_histories(known.linear, distinct(history), model.beside.listed)
        tables = tables._replace(linear=linear)
    return applied(model, known.params, tables, *fold_in(known.folding, history), method="users_after")


def _tables(model: Recommender, known: Known, matched: Matched | None) -> Tables[jax.Array]:
    """What is known of each history, as of a user in a row of its own."""
    tables = Tables[jax.Array](item_text=known.texts, rationale=known.rationales, linear=known.linear)
    if matched is None:
        return tables
    return tables._replace(seed=matched.seed, cosine=matched.cosine if model.rationales > 1 else None)


def _mean_rationale(known: Known, matched: Matched | None) -> jax.Array | None:
    """``<float32>[n, T]``."""
    if known.rationales is None or matched is None:
        return None
    return known.rationales[matched.seed].mean(1)


def _encoded(
    model: SequentialRecommender, known: Known, history: jax.Array, matched: Matched | None
) -> jax.Array:
    """Each history in a row of its own."""
    rows, width = history.shape
    used, user = history > 0, jnp.arange(rows)
    position = jnp.where(used, jnp.arange(width), 0)
    newest = user * width + jnp.maximum(used.sum(1) - 1, 0)
    nothing = jnp.zeros(rows, jnp.int32)
    batch = SequenceBatch(
        history, position, used.astype(jnp.int32), newest, user, nothing, jnp.ones(rows, jnp.float32)
    )
    tables = _tables(model, known, matched)
    return applied(model, known.params, known.items, tables, batch, method="users_after")


def _listed(model: Ease, history: jax.Array, matched: Matched | None) -> jax.Array:
    """Rows of the table of weights: rationales first, then the history, newest first."""
    place = (history > 0).sum(1, keepdims=True) - 1 - jnp.arange(history.shape[1])
    newest = jnp.where(place >= 0, jnp.take_along_axis(history, jnp.maximum(place, 0), axis=1), 0)
    rows = distinct(newest)
    if matched is not None:
        rows = jnp.concatenate([matched.seed + model.num_items + 1, rows], axis=1)
    return rows.astype(jnp.float32)


def score_of(form: Form, known: Known, width: int) -> Any:
    """The score of `Vectors`, for histories of this width."""
    model = form.model
    if not isinstance(model, Ease):
        return known.score
    weight = age_weights(model.config, model.recency, model.rationales, width)
    return jax.tree_util.Partial(known.score.func, jnp.asarray(weight), *known.score.args[1:])


@jax.jit
def scored(score: Any, users: jax.Array, items: jax.Array) -> jax.Array:
    """The scores of all items for some users, ``<float>[n, rows]``, by the score of `Vectors`."""
    return jnp.asarray(score(users, items))
