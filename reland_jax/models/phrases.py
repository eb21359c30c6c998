"""Rationales as sets of phrases, read by a linear model: an item is liked that is like one of the phrases."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from reland_jax.mesh import constrain

USERS = 32
"""Users whose likeness to all items exists at a time."""

_EXACT = jax.lax.Precision.HIGHEST
_LEAST, _NONE = 1e-9, -2.0


@jax.jit
def phrase_table(
    phrases: jax.Array, items: jax.Array, seed: jax.Array, weight: jax.Array | float
) -> jax.Array:
    """The likeness of each item to the phrase of a rationale that is most alike.

    Args:
        phrases: ``<float32>[S, P, T]``, of every rationale; rows of zeros where there are fewer.
        items: ``<float32>[I + 1, T]``, texts.
        seed: ``<int32>[U, k]``, the rationales that users are given. The mean over users, of the largest
            cosine with any of theirs, is taken away from each item: what all rationales name is liked anyway.
        weight: of the cosine.

    Returns:
        ``<float32>[S + 1, I + 1]``; row 0, of no rationale, and those without phrases are below all others.
    """
    items = items / jnp.maximum(jnp.linalg.norm(items, axis=1, keepdims=True), _LEAST)
    phrases = phrases / jnp.maximum(jnp.linalg.norm(phrases, axis=2, keepdims=True), _LEAST)

    def nearest(each: jax.Array) -> jax.Array:
        cosine = jnp.matmul(each, items.T, precision=_EXACT)
        return jnp.where(each.any(1)[:, None], cosine, _NONE).max(0)

    found = jax.lax.map(nearest, phrases)
    none = jnp.full((1, len(items)), _NONE)
    found = jnp.concatenate([none, found])
    mean = jax.lax.map(lambda rows: _largest(found, rows), seed + 1, batch_size=USERS).mean(0)
    return constrain(jnp.where(found > _NONE, weight * (found - mean), -jnp.inf))


def _largest(table: jax.Array, rows: jax.Array) -> jax.Array:
    largest = table[rows].max(0)
    return jnp.where(largest > _NONE, largest, 0.0)


def score_with_phrases(
    weight: jax.Array,
    base: jax.tree_util.Partial,
    table: jax.Array,
    users: jax.Array,
    items: jax.Array,
) -> jax.Array:
    """The score of a linear model, and the largest of what the rationales of a user add.

    Args:
        weight: ``<float32>[E]``, of each entry of a list.
        base: the score without rationales, whose first argument is `weight`.
        table: ``<float32>[S + 1, I + 1]``, see `phrase_table`.
        users: ``<float32>[B, E]``, from 1 to I, or from I + 1 on for rationales, which stand first; 0 where
            unused.
        items: ``<float32>[n, D]``, the same for all users, or ``[B, n, D]``; the last column is the number of
            the item.

    Returns:
        ``<float32>[B, n]``.
    """
    first, entries = table.shape[1], users.astype(jnp.int32)
    rows, columns = jnp.maximum(entries - first + 1, 0), items[..., -1].astype(jnp.int32)
    own = columns if columns.ndim == 2 else jnp.broadcast_to(columns, (rows.shape[0], len(columns)))
    # Some rows of a table that is spread over devices fill it up, and are no item.
    own = jnp.minimum(own, first - 1)
    used = jnp.max(jnp.where(rows > 0, jnp.arange(1, rows.shape[1] + 1), 0), initial=0)

    def larger(place: jax.Array, found: jax.Array) -> jax.Array:
        theirs = table[rows[:, place]]
        whole = columns.ndim == 1 and len(columns) == first
        return jnp.maximum(found, theirs if whole else jnp.take_along_axis(theirs, own, axis=1))

    found = jax.lax.fori_loop(0, used, larger, jnp.full(own.shape, -jnp.inf))
    history = jnp.where(entries < first, users, 0)
    scores = base.func(weight, *base.args[1:], history, items)
    return scores + jnp.where(jnp.isfinite(found), found, 0.0)
