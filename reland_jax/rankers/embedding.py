"""Embeddings of declared features: one table for all of them, and the fields made from its rows.

All features have the same width, so that one table holds the embeddings of all their values, one feature
after the other: a step looks up all that it needs at once, and the optimiser writes it back at once. It is no
parameter of a Flax module, which is given the rows that a batch reads, and the gradient is that of these
rows; nothing in a step has the size of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.mesh import pad_to_axis
from reland_jax.rankers.arms import Arm
from reland_jax.rankers.din import CandidateAttention
from reland_jax.rankers.schema import (
    ITEM_ROW,
    NUMERIC,
    PADDING,
    SEQUENCE,
    USER_ROW,
    Batch,
    Field,
    FieldSchema,
)
from reland_jax.rankers.text_fields import (
    NumbersField,
    TextField,
    Texts,
    entries,
    seed_of,
    similarity,
)

OUTSIDE = 2**31 - 1
"""A row number above every table: reads as zero, and is never written."""

SEED_USERS = ""
"""The slot of the seed users' own embeddings; no feature is called so."""


class Slot(NamedTuple):
    """Where the embeddings of a feature are.

    Attributes:
        first: the row of the table of its code 0; one below the first of seed users, whose codes start at 1.
        at: the first of its places among the lookups of a row of the batch.
        length: its number of places.
    """

    first: int
    at: int
    length: int


def slots(schema: FieldSchema, seed_users: int = 0) -> dict[str, Slot]:
    """Where the embeddings of every feature are, by name.

    Args:
        schema: the features.
        seed_users: S, if seed users have embeddings; their slot is `SEED_USERS`, their rows the last.
    """
    found: dict[str, Slot] = {}
    first = at = 0
    for feature in (each for each in schema.features if each.kind != NUMERIC):
        length = feature.length or 1
        found[feature.name] = Slot(first, at, length)
        first, at = first + feature.size, at + length
    found |= {
        each.name: found[each.name]._replace(first=found[each.shares].first)
        for each in schema.features
        if each.shares
    }
    return found | ({SEED_USERS: Slot(first - 1, at, 1)} if seed_users else {})


def table_rows(schema: FieldSchema, seed_users: int = 0) -> int:
    """Number of rows of the table."""
    return sum(each.size for each in schema.features) + seed_users


def init_table(
    key: jax.Array, schema: FieldSchema, width: int, scale: float, seed_users: int = 0
) -> jax.Array:
    """Fresh embeddings, ``<float32>[R, k]``; those of seed users start at zero, as texts do.

    On a mesh there are further rows, which are never read, so that all shards are equal.

    Args:
        key: of what is drawn.
        schema: the features.
        width: k.
        scale: standard deviation.
        seed_users: S, if seed users have embeddings.
    """
    drawn = table_rows(schema)
    rows = scale * jax.random.normal(key, (drawn, width))
    return jnp.pad(rows, ((0, pad_to_axis(drawn + seed_users) - drawn), (0, 0)))


def table_index(schema: FieldSchema, batch: Batch, texts: Texts, seed_users: int = 0) -> jax.Array:
    """The rows of the table that a batch reads.

    Args:
        schema: the features.
        batch: see `reland_jax.rankers`.
        texts: read for the seed users.
        seed_users: S, if seed users have embeddings.

    Returns:
        ``<int32>[B, n]``, `OUTSIDE` for what is not there.
    """
    values = {each.name: batch[each.name] for each in schema.features if each.kind != NUMERIC}
    if seed_users:
        values[SEED_USERS] = seed_of(texts, jnp.asarray(batch[USER_ROW])) + 1
    where = slots(schema, seed_users)
    columns = [_rows(jnp.asarray(column), where[name]) for name, column in values.items()]
    if not columns:
        return jnp.zeros((len(batch[USER_ROW]), 0), jnp.int32)
    return jnp.concatenate(columns, 1)


def _rows(values: jax.Array, slot: Slot) -> jax.Array:
    values = values.reshape(len(values), slot.length)
    return jnp.where(values > PADDING, slot.first + values, OUTSIDE)


def look_up(table: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a table ``<float32>[R, k]`` by ``<int32>[B, n]``, zero for `OUTSIDE`: ``<float32>[B, n, k]``"""
    return table.at[index].get(mode="fill", fill_value=0.0)


class FieldEmbedding(nn.Module):
    """The fields V of a batch: declared features in the order of the schema, then those of texts.

    A categorical feature is its row of the table, a numeric one its number times a vector, a multi-valued one
    the mean of its rows, a sequence their mean or what the candidate's attention makes of them.

    Attributes:
        schema: the features.
        arm: which texts are fields.
        width: k.
        scale: standard deviation of the vectors of numeric features at the start.
        attention: hidden layers of the attention to sequences; none for the mean.
        seed_users: S, if seed users have embeddings.
    """

    schema: FieldSchema
    arm: Arm
    width: int
    scale: float
    attention: tuple[int, ...] = ()
    seed_users: int = 0

    @nn.compact
    def __call__(self, looked_up: jax.Array, batch: Batch, texts: Texts) -> jax.Array:
        """The fields.

        Args:
            looked_up: ``<float32>[B, n, k]``, the rows of `table_index`.
            batch: see `reland_jax.rankers`.
            texts: what the arm reads.

        Returns:
            ``<float32>[B, f, k]``.
        """
        rows = self._by_name(looked_up)
        declared = [self._declared(each, rows, batch) for each in self.schema.features]
        return jnp.stack([*declared, *self._texts(rows, batch, texts)], 1)

    def _by_name(self, looked_up: jax.Array) -> dict[str, jax.Array]:
        """The rows ``<float32>[B, length, k]`` of every feature."""
        where = slots(self.schema, self.seed_users)
        names = sorted(where, key=lambda name: where[name].at)
        # The gradient of one split is one concatenation; that of a slice for each would be a sum of them.
        parts = jax.lax.split(looked_up, [where[name].length for name in names], axis=1) if names else ()
        return dict(zip(names, parts, strict=True))

    def _declared(self, feature: Field, looked_up: Mapping[str, jax.Array], batch: Batch) -> jax.Array:
        if feature.kind == NUMERIC:
            init = nn.initializers.normal(self.scale)
            vector = self.param(f"numeric_{feature.name}", init, (self.width,))
            return jnp.asarray(batch[feature.name])[:, None] * vector
        rows = looked_up[feature.name]
        if not feature.is_list:
            return rows[:, 0]
        is_there = jnp.asarray(batch[feature.name]) > PADDING
        if feature.kind == SEQUENCE and self.attention:
            attention = CandidateAttention(self.attention, name=f"attention_{feature.name}")
            return attention(rows, is_there, looked_up[feature.shares][:, 0])
        return jnp.sum(rows, 1) / jnp.maximum(jnp.sum(is_there, 1, keepdims=True), 1)

    def _texts(self, looked_up: Mapping[str, jax.Array], batch: Batch, texts: Texts) -> list[jax.Array]:
        found = []
        user, item = jnp.asarray(batch[USER_ROW]), jnp.asarray(batch[ITEM_ROW])
        if self.arm.reads_items:
            assert texts.items is not None
            found.append(TextField(self.width, name="item_text")(texts.items, item))
        if self.arm.reads_rationales:
            assert texts.rationales is not None
            found.append(TextField(self.width, name="rationale")(texts.rationales, seed_of(texts, user)))
        if self.arm.reads_seed_ids:
            found.append(looked_up[SEED_USERS][:, 0])
        if self.arm.reads_rationales or self.arm.reads_seed_ids:
            assert texts.cosine is not None
            numbers = [entries(texts.cosine, user, 0.0)]
            if self.arm.reads_rationales and self.arm.reads_items:
                numbers.append(similarity(texts, user, item))
            found.append(NumbersField(self.width, name="match")(*numbers))
        return found
