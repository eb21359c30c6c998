"""Vocabularies and scales, fitted to training rows alone, and the log as arrays of fixed shape.

Codes of a category: `PADDING` where a list has no more values (and for the padding item), `UNSEEN` for a
value that training does not have, or has in too few rows, and 2, 3, ... for the known ones. A table of
embeddings of a feature so has a row for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import (
    SIDES,
    Events,
    Feature,
    Multi,
    Schema,
    Values,
    all_features,
    row_in,
    rows_in,
)  # fmt: skip
from reland_jax.events.values import positions
from reland_jax.strings import as_strings, distinct
from reland_jax.types import RelandError

PADDING, UNSEEN, KNOWN = 0, 1, 2
"""Codes: no value of a list, a value that training has not, the first one that it has."""


class Scale(NamedTuple):
    """How a number is scaled.

    Attributes:
        mean: over the training rows that have a value, after the logarithm where there is one.
        deviation: the standard deviation of the same (divided by n); 1 where it is 0.
        log: whether ``sign(x) log(1 + |x|)`` comes first.
    """

    mean: float
    deviation: float
    log: bool

    def of(self, value: np.ndarray) -> np.ndarray:
        """Scaled numbers, ``<float32>``; 0, the mean, where there is no value."""
        return np.nan_to_num((_logged(value, self.log) - self.mean) / self.deviation, nan=0.0).astype(
            np.float32
        )


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What is learnt from the training rows about columns; how any log of the same schema becomes arrays.

    Attributes:
        schema: of the log.
        known: feature -> ``<str>[m]``, values that get a code of their own; one that shares another's
            vocabulary is not in it.
        scales: numeric feature -> its scale.
        lengths: multi-valued feature -> values of a list that are kept, the last ones.
    """

    schema: Schema
    known: Mapping[str, np.ndarray]
    scales: Mapping[str, Scale]
    lengths: Mapping[str, int]

    def names(self, kind: str) -> list[str]:
        """Features of a kind, in the order of the columns of a batch: of users, of items, of the context."""
        return [name for side in SIDES for name, each in self._features() if each == (kind, side)]

    def rows_of(self, name: str) -> int:
        """Rows that the embedding table of a categorical or multi-valued feature needs."""
        return KNOWN + len(self.known[self.vocabulary(name)])

    def vocabulary(self, name: str) -> str:
        """The feature whose vocabulary a feature uses, mostly itself."""
        shared = {each.name: each.shares for each in self.schema.features}
        return shared.get(name) or name

    def _features(self) -> list[tuple[str, tuple[str, str]]]:
        built_in = {"user_id": "user", "item_id": "item", "scenario": "context"}
        found = [(name, ("categorical", side)) for name, side in built_in.items()]
        return [*found, *((each.name, (each.kind, each.side)) for each in self.schema.features)]


class Side(NamedTuple):
    """The encoded columns of users, items or the context; r is U, I + 1 or n.

    Attributes:
        categorical: ``<int32>[r, columns]``.
        numeric: ``<float32>[r, columns]``.
        multi: one ``<int32>[r, length]`` per multi-valued feature, `PADDING` after the last value.
    """

    categorical: Any
    numeric: Any
    multi: tuple[Any, ...]


class Encoded(NamedTuple):
    """A log as arrays of NumPy, or of a device (it is a tree of arrays and nothing else).

    Attributes:
        user: ``<int32>[n]``.
        item: ``<int32>[n]``.
        labels: ``<float32>[n, labels]``, in the order of the schema.
        sides: the columns of users, of items and of the context.
    """

    user: Any
    item: Any
    labels: Any
    sides: tuple[Side, Side, Side]


class Batch(NamedTuple):
    """Rows of a log, as a ranker gets them. Columns are in the order of `Encoding.names`.

    Attributes:
        categorical: ``<int32>[B, columns]``.
        numeric: ``<float32>[B, columns]``.
        multi: one ``<int32>[B, length]`` per multi-valued feature.
        labels: ``<float32>[B, labels]``.
        user: ``<int32>[B]``, to look up what belongs to a user, such as the vector of a rationale.
        item: ``<int32>[B]``.
        weight: ``<float32>[B]``, 0 for a row that only fills the batch.
    """

    categorical: Any
    numeric: Any
    multi: tuple[Any, ...]
    labels: Any
    user: Any
    item: Any
    weight: Any


def fit(events: Events, rows: np.ndarray, *, min_count: int = 2, longest: int = 50) -> Encoding:
    """Vocabularies, scales and lengths of the training rows.

    Args:
        events: the log.
        rows: ``<int64>[n]``, the training rows; nothing else of the log is looked at.
        min_count: training rows that a value needs for a code of its own. From 2 on the rare ones train the
            row of `UNSEEN`; at 1 nothing does, and it keeps what it was initialised with.
        longest: values of a list that are kept at most.

    Raises:
        RelandError: there are no training rows, or a number is too small.
    """
    if not len(rows) or min_count < 1 or longest < 1:
        given = f"{len(rows):,} training rows, min_count={min_count}, longest={longest}"
        raise RelandError(f"{given}: each must be >= 1")
    features = all_features(events)
    seen = {side: _times_seen(side, events, rows) for side in SIDES}
    counts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    scales, lengths = {}, {}
    for name, (feature, values) in features.items():
        times = seen[feature.side]
        if isinstance(values, np.ndarray):
            scales[name] = _scale(values, times, feature.log)
            continue
        if isinstance(values, Multi):
            lengths[name] = max(1, min(longest, int(values.rows.lengths()[times > 0].max(initial=0))))
        counts.setdefault(feature.shares or name, []).append(_counted(values, times))
    known = {name: _known(of_value, min_count) for name, of_value in counts.items()}
    return Encoding(events.schema, known, scales, lengths)


def encode(encoding: Encoding, events: Events) -> Encoded:
    """A log as arrays of fixed shape.

    Args:
        encoding: fitted to a log of the same schema.
        events: any rows, also of other days, users and items.

    Raises:
        RelandError: the schema is another one.
    """
    if events.schema != encoding.schema:
        raise RelandError("the log has another schema than the one that the vocabularies were fitted to")
    features = all_features(events)
    sides = tuple(_side(encoding, features, side, rows_in(side, events)) for side in SIDES)
    labels = np.stack([events.labels[each.name] for each in events.schema.labels], 1).astype(np.float32)
    return Encoded(events.user, events.item, labels, (sides[0], sides[1], sides[2]))


def gather(encoded: Encoded, rows: Any, weight: Any) -> Batch:
    """The batch of some rows; arrays of NumPy give NumPy's, and those of a device the device's (also in jit).

    Args:
        encoded: the log.
        rows: ``<int>[B]``.
        weight: ``<float32>[B]``.
    """
    user, item = encoded.user[rows], encoded.item[rows]
    places = (user, item, rows)
    join = _joiner(encoded.user)
    sides = list(zip(encoded.sides, places, strict=True))
    return Batch(
        categorical=join([side.categorical[place] for side, place in sides]),
        numeric=join([side.numeric[place] for side, place in sides]),
        multi=tuple(each[place] for side, place in sides for each in side.multi),
        labels=encoded.labels[rows], user=user, item=item, weight=weight,
    )  # fmt: skip


def columns_of(encoding: Encoding, batch: Batch) -> dict[str, Any]:
    """A batch as columns by name: features, labels, "user_row", "item_row" and "weight"; also in jit.

    Args:
        encoding: that the batch was encoded by.
        batch: of NumPy or of a device.
    """
    found = {name: batch.categorical[:, at] for at, name in enumerate(encoding.names("categorical"))}
    found |= {name: batch.numeric[:, at] for at, name in enumerate(encoding.names("numeric"))}
    found |= dict(zip(encoding.names("multi"), batch.multi, strict=True))
    found |= {each.name: batch.labels[:, at] for at, each in enumerate(encoding.schema.labels)}
    return found | {"user_row": batch.user, "item_row": batch.item, "weight": batch.weight}


def unseen_shares(encoding: Encoding, encoded: Encoded, rows: np.ndarray) -> dict[str, float]:
    """The share of rows whose value of a categorical feature has no code of its own, per feature.

    Args:
        encoding: see `fit`.
        encoded: the log, as arrays of NumPy.
        rows: ``<int64>[n]``, such as those of testing.
    """
    codes = gather(encoded, rows, None).categorical
    shares = (codes == UNSEEN).mean(0) if len(rows) else np.zeros(codes.shape[1])
    return dict(zip(encoding.names("categorical"), shares.tolist(), strict=True))


def _times_seen(side: str, events: Events, rows: np.ndarray) -> np.ndarray:
    """In how many training rows each row of the columns of a side is, ``<int64>[r]``."""
    return np.bincount(row_in(side, events)[rows], minlength=rows_in(side, events))


def _logged(value: np.ndarray, log: bool) -> np.ndarray:
    return np.sign(value) * np.log1p(np.abs(value)) if log else value


def _scale(value: np.ndarray, times: np.ndarray, log: bool) -> Scale:
    weight = np.where(np.isnan(value), 0, times)
    total = weight.sum()
    number = np.nan_to_num(_logged(value, log), nan=0.0)
    if not total:
        return Scale(0.0, 1.0, log)
    mean = float((weight * number).sum() / total)
    deviation = float(np.sqrt((weight * (number - mean) ** 2).sum() / total))
    return Scale(mean, deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0, log)


def _counted(values: Tokens | Multi, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, and how often each is in the training rows."""
    if isinstance(values, Multi):
        code, weight = values.rows.items, np.repeat(times, values.rows.lengths())
    else:
        code, weight = values.code, times
    return as_strings(values.name), np.bincount(code, weight, minlength=len(values.name))


def _known(counted: list[tuple[np.ndarray, np.ndarray]], min_count: int) -> np.ndarray:
    """The values that training has often enough, over all columns of a vocabulary, in order."""
    names, code = distinct(np.concatenate([name for name, _ in counted]))
    total = np.bincount(code, np.concatenate([count for _, count in counted]), minlength=len(names))
    return names[total >= min_count]


def _side(encoding: Encoding, features: dict[str, tuple[Feature, Values]], side: str, rows: int) -> Side:
    """The columns of one side, each kind in the order of `Encoding.names`."""

    def of_kind(kind: str) -> list[str]:
        return [name for name in encoding.names(kind) if features[name][0].side == side]

    coded = (*of_kind("categorical"), *of_kind("multi"))
    codes = {name: _codes(encoding, name, features[name][1]) for name in coded}
    if side == "item":
        for name in of_kind("categorical"):
            codes[name][0] = PADDING
    numbers = [encoding.scales[name].of(np.asarray(features[name][1])) for name in of_kind("numeric")]
    return Side(
        _columns([codes[name] for name in of_kind("categorical")], rows, np.int32),
        _columns(numbers, rows, np.float32),
        tuple(_padded(features[name][1], codes[name], encoding.lengths[name]) for name in of_kind("multi")),
    )


def _columns(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
    return np.stack(columns, 1).astype(dtype) if columns else np.zeros((rows, 0), dtype)


def _codes(encoding: Encoding, name: str, values: Values) -> np.ndarray:
    """Codes of a categorical column, or of all values of a multi-valued one, ``<int32>``."""
    assert not isinstance(values, np.ndarray)
    place = positions(values.name, encoding.known[encoding.vocabulary(name)])
    code = np.where(place < 0, UNSEEN, place + KNOWN).astype(np.int32)
    return code[values.rows.items if isinstance(values, Multi) else values.code]


def _padded(values: Values, codes: np.ndarray, length: int) -> np.ndarray:
    """The last values of every list, from the first column on, ``<int32>[r, length]``."""
    assert isinstance(values, Multi)
    lengths = values.rows.lengths()
    row = np.repeat(np.arange(len(lengths)), lengths)
    first = values.rows.indptr[:-1] + np.maximum(lengths - length, 0)
    place = np.arange(len(codes)) - np.repeat(first, lengths)
    result = np.full((len(lengths), length), PADDING, np.int32)
    result[row[place >= 0], place[place >= 0]] = codes[place >= 0]
    return result


def _joiner(example: Any) -> Callable[[list[Any]], Any]:
    """Puts columns side by side, by NumPy or by JAX."""
    if isinstance(example, np.ndarray):
        return lambda arrays: np.concatenate(arrays, 1)
    import jax.numpy as jnp

    return lambda arrays: jnp.concatenate(arrays, 1)
