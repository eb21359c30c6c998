"""The batches of an encoded event log, as a ranker reads them: columns by name.

An encoded log has its columns side by side in a few arrays, by kind. Here they get their names again, inside
the compiled step, where that costs nothing. What is read of the log's side is declared as protocols: this
wing does not import that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from reland_jax.rankers.schema import (
    CATEGORICAL,
    ITEM_ROW,
    MULTI,
    NUMERIC,
    SEQUENCE,
    USER_ROW,
    WEIGHT,
    Batch,
    Field,
    FieldSchema,
)

ITEM_ID = "item_id"
"""The feature of an event log that is the candidate."""


class LogEncoding(Protocol):
    """What is known of the columns of an encoded log."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Values of a list at the most, by multi-valued feature."""

    def names(self, kind: str) -> list[str]:
        """Features of a kind, in the order of their columns."""

    def rows_of(self, name: str) -> int:
        """Number of codes of a categorical or multi-valued feature."""

    def vocabulary(self, name: str) -> str:
        """The feature whose codes a feature uses, mostly itself."""


class LogBatch(Protocol):
    """Rows of an encoded log; columns in the order of `LogEncoding.names`."""

    @property
    def categorical(self) -> Any:
        """``<int32>[B, columns]``."""

    @property
    def numeric(self) -> Any:
        """``<float32>[B, columns]``."""

    @property
    def multi(self) -> tuple[Any, ...]:
        """One ``<int32>[B, length]`` per multi-valued feature."""

    @property
    def labels(self) -> Any:
        """``<float32>[B, labels]``."""

    @property
    def user(self) -> Any:
        """``<int32>[B]``, rows of tables of users."""

    @property
    def item(self) -> Any:
        """``<int32>[B]``, rows of tables of items."""

    @property
    def weight(self) -> Any:
        """``<float32>[B]``, 0 for a row that only fills the batch."""


def field_schema(encoding: LogEncoding, labels: Sequence[str]) -> FieldSchema:
    """The schema of a ranker on an encoded log; lists of items are sequences.

    Args:
        encoding: of the log.
        labels: names of its labels, in order.
    """
    fields = [
        _field(encoding, name, kind)
        for kind in (CATEGORICAL, NUMERIC, MULTI)
        for name in encoding.names(kind)
    ]
    return FieldSchema(tuple(fields), tuple(labels))


def _field(encoding: LogEncoding, name: str, kind: str) -> Field:
    if kind == NUMERIC:
        return Field(name, kind)
    shares, length = encoding.vocabulary(name), encoding.lengths[name] if kind == MULTI else 0
    if shares == name:
        return Field(name, kind, encoding.rows_of(name), length)
    return Field(name, SEQUENCE if kind == MULTI and shares == ITEM_ID else kind, 0, length, shares)


def named_columns(schema: FieldSchema, batch: LogBatch) -> Batch:
    """The columns of a batch by their names.

    Args:
        schema: of `field_schema`.
        batch: of the same log.
    """
    lists, found = iter(batch.multi), {WEIGHT: batch.weight, USER_ROW: batch.user, ITEM_ROW: batch.item}
    for kind, columns in ((CATEGORICAL, batch.categorical), (NUMERIC, batch.numeric)):
        found |= {each.name: columns[:, at] for at, each in enumerate(schema.of_kind(kind))}
    found |= {each.name: next(lists) for each in schema.of_kind(MULTI, SEQUENCE)}
    return found | {name: batch.labels[:, at] for at, name in enumerate(schema.labels)}
