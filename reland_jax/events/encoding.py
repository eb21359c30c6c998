"""Vocabularies and scales, fitted to training rows alone, and the log as arrays of fixed shape.

Codes of a category: `PADDING` where a list has no more values (and for the padding item), `UNSEEN` for a
value that training does not have, or has in too few rows, and 2, 3, ... for the known ones. A table of
embeddings of a feature so has a row for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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


class Moments(NamedTuple):
    """What is counted of a number.

    Attributes:
        rows: those that have a value.
        mean: of these, after the logarithm where there is one.
        squares: sum of the squared distances from it.
    """

    rows: float
    mean: float
    squares: float

    def joined(self, other: Moments) -> Moments:
        """Those of the rows of both."""
        rows = self.rows + other.rows
        if not self.rows or not other.rows:
            return self if self.rows else other
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.rows * other.rows / rows
        return Moments(rows, self.mean + apart * other.rows / rows, squares)

    def scale(self, log: bool) -> Scale:
        """How the number is scaled."""
        if not self.rows:
            return Scale(0.0, 1.0, log)
        deviation = float(np.sqrt(self.squares / self.rows))
        return Scale(self.mean, deviation if deviation > 1e-12 * max(1.0, abs(self.mean)) else 1.0, log)


class Seen(NamedTuple):
    """What is counted of training rows; that of two parts of a log is joined to that of both.

    Attributes:
        schema: of the log.
        counts: vocabulary -> its values ``<str>[m]``, and in how many rows each is ``<float64>[m]``.
        moments: numeric feature -> its moments.
        lengths: multi-valued feature -> values of the longest list.
    """

    schema: Schema
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    moments: Mapping[str, Moments]
    lengths: Mapping[str, int]

    def joined(self, other: Seen) -> Seen:
        """What is seen in the rows of both.

        Raises:
            RelandError: they are of different schemas.
        """
        if self.schema != other.schema:
            raise RelandError("parts of one log have different schemas")
        return Seen(
            self.schema,
            {name: _summed([mine, other.counts[name]]) for name, mine in self.counts.items()},
            {name: mine.joined(other.moments[name]) for name, mine in self.moments.items()},
            {name: max(mine, other.lengths[name]) for name, mine in self.lengths.items()},
        )

    def encoding(self, *, min_count: int = 2, longest: int = 50) -> Encoding:
        """Vocabularies, scales and lengths.

        Args:
            min_count: training rows that a value needs for a code of its own. From 2 on the rare ones train
                the row of `UNSEEN`; at 1 nothing does, and it keeps what it was initialised with.
            longest: values of a list that are kept at most.

        Raises:
            RelandError: a number is too small.
        """
        if min_count < 1 or longest < 1:
            raise RelandError(f"min_count={min_count}, longest={longest}: each must be >= 1")
        logs = {each.name: each.log for each in self.schema.features}
        return Encoding(
            self.schema,
            {name: names[total >= min_count] for name, (names, total) in self.counts.items()},
            {name: moments.scale(logs[name]) for name, moments in self.moments.items()},
            {name: max(1, min(longest, length)) for name, length in self.lengths.items()},
        )


def seen(events: Events, rows: np.ndarray) -> Seen:
    """Counts training rows.

    Args:
        events: the log.
        rows: ``<int64>[n]``, the training rows; nothing else of the log is looked at.

    Raises:
        RelandError: there are none.
    """
    if not len(rows):
        raise RelandError("0 training rows: there must be some")
    times_of = {side: _times_seen(side, events, rows) for side in SIDES}
    counts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    moments, lengths = {}, {}
    for name, (feature, values) in all_features(events).items():
        times = times_of[feature.side]
        if isinstance(values, np.ndarray):
            moments[name] = _moments(values, times, feature.log)
            continue
        if isinstance(values, Multi):
            lengths[name] = int(values.rows.lengths()[times > 0].max(initial=0))
        counts.setdefault(feature.shares or name, []).append(_counted(values, times))
    summed = {name: _summed(of_value) for name, of_value in counts.items()}
    return Seen(events.schema, summed, moments, lengths)


def fit(events: Events, rows: np.ndarray, *, min_count: int = 2, longest: int = 50) -> Encoding:
    """Vocabularies, scales and lengths of the training rows.

    Args:
        events: the log.
        rows: ``<int64>[n]``, the training rows.
        min_count: see `Seen.encoding`.
        longest: see `Seen.encoding`.

    Raises:
        RelandError: there are no training rows, or a number is too small.
    """
    return seen(events, rows).encoding(min_count=min_count, longest=longest)


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


def _moments(value: np.ndarray, times: np.ndarray, log: bool) -> Moments:
    weight = np.where(np.isnan(value), 0, times)
    total = weight.sum()
    if not total:
        return Moments(0.0, 0.0, 0.0)
    number = np.nan_to_num(_logged(value, log), nan=0.0)
    mean = float((weight * number).sum() / total)
    return Moments(float(total), mean, float((weight * (number - mean) ** 2).sum()))


def _counted(values: Tokens | Multi, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, and how often each is in the training rows."""
    if isinstance(values, Multi):
        code, weight = values.rows.items, np.repeat(times, values.rows.lengths())
    else:
        code, weight = values.code, times
    return as_strings(values.name), np.bincount(code, weight, minlength=len(values.name))


def _summed(counted: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The values of several columns of one vocabulary that are there, in order, and how often each is."""
    names, code = distinct(np.concatenate([name for name, _ in counted]))
    total = np.bincount(code, np.concatenate([times for _, times in counted]), minlength=len(names))
    is_there = total > 0
    return names[is_there], total[is_there]


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
