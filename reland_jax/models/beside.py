"""What is added to the score of a backbone: a text kernel at full width, and the scores of a linear model.

The kernel is to a deep model what ``beta F F'`` is to EASE: the likeness of an item's text and the mean text
of what the user had, in all directions of the texts and not through the few numbers of an embedding. It is a
product of a vector of the user and one of the item, which stand beside those of the backbone.

A linear model (EASE in its sparse form) is solved first and frozen. A user has a short list of items with a
score by it, whose entries stand before the user's vector; the backbone learns what these scores lack. In
training, a user's list is that of its other items, and what it had beside the target is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.models.representation import identity
from reland_jax.types import Array


class TextKernel(nn.Module):
    """A learned metric between the mean text of a user's items and the text of an item.

    Attributes:
        scale: the metric starts as this multiple of the identity.
    """

    scale: float

    @nn.compact
    def __call__(self, mean: jax.Array) -> jax.Array:
        """Mean unit texts of users ``<float32>[B, T]`` -> what multiplies the unit text of an item."""
        metric = self.param("text_metric", identity(self.scale), (mean.shape[-1],) * 2)
        return jnp.matmul(mean, metric, precision=jax.lax.Precision.HIGHEST)


def unit_texts(texts: jax.Array) -> jax.Array:
    """Rows ``<float32>[n, T]`` of length 1; those of zeros stay."""
    return texts / jnp.maximum(jnp.linalg.norm(texts, axis=-1, keepdims=True), 1e-9)


def recent_items(
    items: jax.Array, position: jax.Array, place: jax.Array, half_life: float, count: int
) -> tuple[jax.Array, jax.Array]:
    """The newest items of packed sequences at some of their places, and what they weigh.

    Args:
        items: ``<int32>[R, W]``.
        position: ``<int32>[R, W]``, place of each token within its sequence.
        place: ``<int32>[B]``, tokens (of R * W).
        half_life: number of newer items after which an item weighs half as much.
        count: N, items that are read.

    Returns:
        Items ``<int32>[B, N]``, newest first, 0 where a sequence has no more; and weights
        ``<float32>[B, N]``, 1 for the newest item and 0 where there is none.
    """
    age = jnp.arange(count)
    there = age <= position.reshape(-1)[place][:, None]
    found = jnp.where(there, items.reshape(-1)[jnp.maximum(place[:, None] - age, 0)], 0)
    return found, jnp.where(there, 0.5 ** (age / half_life), 0.0)


MASKED = -30.0
"""What is added, in training, to the score of what a user had beside the target: a ranking leaves it out."""


class LinearScores(NamedTuple, Generic[Array]):
    """A linear model of items by items, frozen.

    Attributes:
        item: ``<int32>[I + 1, k]``, the items that a row speaks for, 0 where unused. With `begin` there are
            more such blocks below it: of the models that were solved without the users of a fold.
        value: ``<float32>`` of the same shape, what it adds to their scores.
        listed: ``<int32>[U, M]``, of sets: the items of a user with the highest scores by all of its
            items; None for sequences. With `begin` as many rows more: those lists in training.
        score: ``<float32>`` of the same shape, these scores.
        had: ``<int32>[U, L]``, the items of a user, each once, 0 where unused.
        begin: ``<int32>[U]``, where the block begins by which a user is scored in training; None where one
            model scores all.
    """

    item: Array
    value: Array
    listed: Array | None = None
    score: Array | None = None
    had: Array | None = None
    begin: Array | None = None


def rows_that_speak(
    linear: LinearScores[jax.Array], user: jax.Array, items: jax.Array, train: bool
) -> jax.Array:
    """The rows of `LinearScores.item` by which users are scored.

    Args:
        linear: see `LinearScores`.
        user: ``<int32>[B]``.
        items: ``<int32>[B]`` or ``[B, n]``, of theirs.
        train: whether the model must not have seen the user.

    Returns:
        ``<int32>``, of the shape of `items`.
    """
    if linear.begin is None or not train:
        return items
    return items + linear.begin[user].reshape(-1, *[1] * (items.ndim - 1))


def entries_of_pairs(
    linear: LinearScores[jax.Array], user: jax.Array, target: jax.Array | None, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The items with an additional score ``<int32>[B, n]``, and these scores ``<float32>[B, n]``.

    Args:
        linear: see `LinearScores`.
        user: ``<int32>[B]``.
        target: ``<int32>[B]``: what it says of others is taken away, and the other items that the user had
            are masked; None in a ranking, which masks by itself.
        scale: multiplies the scores of the linear model.
    """
    assert linear.listed is not None and linear.score is not None and linear.had is not None
    row = user if target is None or linear.begin is None else user + len(linear.begin)
    items, values = linear.listed[row], scale * linear.score[row]
    if target is None:
        return items, values
    had, speaks = linear.had[user], rows_that_speak(linear, user, target, train=True)
    masked = jnp.where((had > 0) & (had != target[:, None]), MASKED, 0.0)
    items = jnp.concatenate([items, linear.item[speaks], had], 1)
    values = jnp.concatenate([values, -scale * linear.value[speaks], masked], 1)
    return items, values


def lists_of_histories(
    linear: LinearScores[jax.Array], history: jax.Array, count: int
) -> LinearScores[jax.Array]:
    """With the lists of n users of sets, by what each had.

    Args:
        linear: of a ranking.
        history: ``<int32>[n, W]``, items of each, each once, 0 where unused.
        count: M, entries of a list.
    """
    rows, length = history.shape[0], linear.item.shape[0]
    row = jnp.arange(rows)[:, None, None]
    scores = jnp.zeros((rows, length)).at[row, linear.item[history]].add(linear.value[history])
    score, listed = jax.lax.top_k(jnp.where(scores == 0, -jnp.inf, scores), min(count, length))
    there = jnp.isfinite(score)
    listed, score = jnp.where(there, listed, 0), jnp.where(there, score, 0.0)
    return linear._replace(listed=listed, score=score, had=history)


class LateScores(NamedTuple, Generic[Array]):
    """What the phrases of each rationale say of single items.

    Attributes:
        item: ``<int32>[S, N]``, the items that are most like one of its phrases.
        value: ``<float32>[S, N]``, how much more than to other rationales, and than an item that is left out.
    """

    item: Array
    value: Array


def with_entries(entries: list[tuple[jax.Array, jax.Array]], users: jax.Array) -> jax.Array:
    """Vectors of users ``<float32>[B, E]`` after their entries, as `scored_entries` reads them.

    Args:
        entries: numbers of items ``<int32>[B, n]``, and what is added to their scores ``<float32>[B, n]``.
        users: ``<float32>[B, E]``.
    """
    items, values = [item.astype(jnp.float32) for item, _ in entries], [value for _, value in entries]
    return jnp.concatenate([*items, *values, users], -1) if entries else users


def beside_numbers(items: jax.Array, index: jax.Array | None) -> jax.Array:
    """Vectors of items ``<float32>[..., E]`` after their numbers, by which `scored_entries` finds them.

    Numbers travel as float32, as all vectors do in a ranking: exact up to 16,777,216.
    """
    number = jnp.arange(len(items)) if index is None else index
    return jnp.concatenate([number[..., None].astype(jnp.float32), items], -1)


def scored_entries(
    score: Callable[[jax.Array, jax.Array], jax.Array], users: jax.Array, items: jax.Array, num_items: int
) -> jax.Array:
    """Scores of vectors, and of the entries that stand before them.

    Args:
        score: of vectors, ``[B, E]`` with ``[n, E]`` or ``[B, n, E]``.
        users: ``<float32>[B, 2 m + E]``: m numbers of items, what is added to their scores, and a vector.
        items: ``<float32>[n, 1 + E]`` or ``[B, n, 1 + E]``: the number of an item, and its vector.
        num_items: I.

    Returns:
        ``<float32>[B, n]``.
    """
    width = items.shape[-1] - 1
    count = (users.shape[-1] - width) // 2
    entry, number = users[:, :count].astype(jnp.int32), items[..., 0].astype(jnp.int32)
    own = score(users[:, 2 * count :], items[..., 1:])
    if items.ndim == 3:
        same = entry[:, None, :] == number[:, :, None]
        return own + jnp.einsum("bm,bnm->bn", users[:, count : 2 * count], same.astype(jnp.float32))
    added = jnp.zeros((users.shape[0], num_items + 1), jnp.float32)
    added = added.at[jnp.arange(users.shape[0])[:, None], entry].add(users[:, count : 2 * count])
    return own + added.at[:, number].get(mode="fill", fill_value=0.0)
