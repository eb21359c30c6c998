"""What a ranker is told about an impression: declared features, and the columns of a batch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from reland_jax.fields import nearest_name
from reland_jax.types import RelandError

if typing.TYPE_CHECKING:
    import jax

CATEGORICAL, NUMERIC, MULTI, SEQUENCE = "categorical", "numeric", "multi", "sequence"
KINDS = (CATEGORICAL, NUMERIC, MULTI, SEQUENCE)
"""Kinds of features."""

PADDING, UNSEEN = 0, 1
"""Codes of no value, which reads as zero and fills up lists, and of a value that the training rows lack."""

WEIGHT, USER_ROW, ITEM_ROW = "weight", "user_row", "item_row"
"""Columns of every batch beside the features and the labels."""

Batch: TypeAlias = "Mapping[str, np.ndarray | jax.Array]"
"""Columns by name; see `reland_jax.rankers`."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One declared feature, as a ranker reads it (`reland_jax.events` says how it is read from a log).

    Attributes:
        name: of its column.
        kind: one of `KINDS`.
        size: number of codes, with `PADDING` and `UNSEEN`; 0 for a numeric feature, and for one that shares.
        length: L, values per row at the most, of a multi-valued feature or a sequence.
        shares: name of a categorical feature with the same values, whose embeddings it reads: a sequence of
            items those of the candidate.
    """

    name: str
    kind: str
    size: int = 0
    length: int = 0
    shares: str = ""

    @property
    def is_list(self) -> bool:
        """Whether a row has several values."""
        return self.kind in (MULTI, SEQUENCE)


@dataclasses.dataclass(frozen=True)
class FieldSchema:
    """The features of an event log, in the order of the fields.

    Attributes:
        features: the declared features.
        labels: names of the label columns.

    Raises:
        RelandError: a declaration that cannot be true.
    """

    features: tuple[Field, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks the declarations against each other."""
        names = [each.name for each in self.features]
        reserved = {*self.labels, WEIGHT, USER_ROW, ITEM_ROW}
        for at, feature in enumerate(self.features):
            if feature.name in names[:at]:
                raise RelandError(f"feature {feature.name!r} is declared twice")
            if feature.name in reserved:
                raise RelandError(f"feature {feature.name!r} has the name of a label or of another column")
            _check_feature(feature, self)

    def of_kind(self, *kinds: str) -> tuple[Field, ...]:
        """The features of some kinds, in order."""
        return tuple(each for each in self.features if each.kind in kinds)

    def feature(self, name: str) -> Field:
        """The feature of a name.

        Raises:
            RelandError: there is none.
        """
        for each in self.features:
            if each.name == name:
                return each
        raise RelandError(f"no feature {name!r}; {nearest_name(name, [each.name for each in self.features])}")

    def values_of(self, feature: Field) -> int:
        """Number of codes of a feature, that of the feature whose embeddings it reads if it shares."""
        return self.feature(feature.shares).size if feature.shares else feature.size


def _check_feature(feature: Field, schema: FieldSchema) -> None:
    what = f"feature {feature.name!r}"
    if feature.kind not in KINDS:
        raise RelandError(f"{what} is of kind {feature.kind!r}; {nearest_name(feature.kind, KINDS)}")
    if feature.is_list != (feature.length > 0):
        raise RelandError(f"{what} ({feature.kind}) has length {feature.length}; lists alone have one")
    if feature.kind == SEQUENCE and not feature.shares:
        raise RelandError(f"{what} is a sequence and must share the embeddings of the candidate")
    if feature.shares:
        shared = schema.feature(feature.shares)
        if feature.kind == NUMERIC or feature.size or shared.kind != CATEGORICAL or shared.shares:
            raise RelandError(
                f"{what} shares embeddings: it must have no size of its own, and {feature.shares!r} must be "
                "categorical and have embeddings of its own"
            )
    elif (feature.kind == NUMERIC) != (feature.size == 0):
        raise RelandError(f"{what} ({feature.kind}) has {feature.size} values")


class Column(NamedTuple):
    """What a column of a batch has to be.

    Attributes:
        dtype: of its numbers.
        length: L of a list; 0 of a column with one value per row.
        low: the least value.
        high: the largest value.
    """

    dtype: type[np.generic]
    length: int
    low: float
    high: float


def columns(schema: FieldSchema) -> dict[str, Column]:
    """The columns that a batch of a schema has, by name."""
    largest = float(np.iinfo(np.int32).max)
    found = {each.name: _column(each, schema) for each in schema.features}
    found |= {name: Column(np.float32, 0, 0.0, 1.0) for name in schema.labels}
    found |= {name: Column(np.int32, 0, -1.0, largest) for name in (USER_ROW, ITEM_ROW)}
    return found | {WEIGHT: Column(np.float32, 0, 0.0, float(np.finfo(np.float32).max))}


def _column(feature: Field, schema: FieldSchema) -> Column:
    if feature.kind == NUMERIC:
        largest = float(np.finfo(np.float32).max)
        return Column(np.float32, 0, -largest, largest)
    return Column(np.int32, feature.length, PADDING, schema.values_of(feature) - 1.0)


def blank_row(schema: FieldSchema) -> Batch:
    """A batch of one row without any values, for its shapes."""
    found = columns(schema).items()
    return {name: np.zeros((1, each.length) if each.length else 1, each.dtype) for name, each in found}


def check_batch(schema: FieldSchema, batch: Mapping[str, np.ndarray]) -> None:
    """Compares the columns of a batch, on the host, with what the schema says.

    Raises:
        RelandError: a column is missing, of another type or shape, or has a value out of range.
    """
    size = len(batch[WEIGHT]) if WEIGHT in batch else -1
    for name, column in columns(schema).items():
        if name not in batch:
            raise RelandError(f"the batch has no column {name!r}; it has {', '.join(sorted(batch))}")
        found, shape = batch[name], (size, column.length) if column.length else (size,)
        if found.dtype != column.dtype or found.shape != shape:
            wanted = f"{np.dtype(column.dtype).name}{list(shape)}"
            raise RelandError(f"column {name!r} is {found.dtype}{list(found.shape)}, and must be {wanted}")
        wrong = ~((found >= column.low) & (found <= column.high))
        if wrong.any():
            at = int(np.argwhere(wrong)[0, 0])
            raise RelandError(
                f"column {name!r}, row {at} of the batch: {found[wrong].flat[0]} is not in "
                f"[{column.low:g}, {column.high:g}]"
            )
