"""Refuses features that are a label in disguise: one alone that ranks a label nearly perfectly.

A label among the features is the classic fault of conversion models, and shows as an AUC near 1. What a
feature tells alone is measured out of sample: the rate of each value is taken from one half of the training
rows and ranks the other half. In sample, the id of a user with one row would rank perfectly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import Events, Multi, Values, all_features, row_in, rows_of
from reland_jax.events.metrics import auc
from reland_jax.types import RelandError

LIMIT = 0.98
_BINS = 64
_LEAST = 20
"""Rows of each class that a judgement needs; with a handful, chance ranks perfectly."""
_PRIOR = 1.0
"""Rows at the overall rate that are added to each value's."""


class Judged(NamedTuple):
    """What one feature alone tells of one label.

    Attributes:
        feature: its name.
        label: its name.
        auc: out of sample, at least 0.5, since an order may be turned; None where a class has too few rows.
    """

    feature: str
    label: str
    auc: float | None


def refuse_leaks(events: Events, rows: np.ndarray, limit: float = LIMIT) -> list[Judged]:
    """Judges every feature beside every label on the training rows.

    Args:
        events: the log.
        rows: ``<int64>[n]``, training rows.
        limit: a feature whose AUC is above it is refused.

    Returns:
        What each tells, the most telling first.

    Raises:
        RelandError: features that are above the limit; all of them are named.
    """
    judged = single_feature_aucs(events, rows)
    if leaks := [each for each in judged if each.auc is not None and each.auc > limit]:
        named = "; ".join(f"{each.feature!r} ranks {each.label!r} with AUC {each.auc:.4f}" for each in leaks)
        raise RelandError(
            f"a feature alone ranks a label with an AUC above {limit}, as an outcome does and nothing "
            f"that is known before it: {named}; take it out of the schema"
        )
    return judged


def single_feature_aucs(events: Events, rows: np.ndarray) -> list[Judged]:
    """What every feature alone tells of every label, the most telling first."""
    half = np.random.default_rng(0).permutation(len(rows)) % 2 == 0
    labels = {each.name: events.labels[each.name][rows].astype(np.float64) for each in events.schema.labels}
    found = []
    for name, (feature, values) in all_features(events).items():
        mine = rows_of(values, row_in(feature.side, events)[rows])
        found += [Judged(name, label, _alone(mine, value, half)) for label, value in labels.items()]
    return sorted(found, key=lambda each: -(each.auc or 0.0))


def _alone(values: Values, label: np.ndarray, half: np.ndarray) -> float | None:
    """AUC of the rates of a column's values, and of a number itself."""
    score = np.empty(len(label))
    for train, rest in ((half, ~half), (~half, half)):
        score[rest] = _rates(values, label, train)[rest]
    # Each half by rates of the other; the two are not mixed, since their overall rates differ.
    found = [_judged(label[part], score[part]) for part in (half, ~half)]
    if isinstance(values, np.ndarray):
        there = ~np.isnan(values)
        found.append(_judged(label[there], values[there]))
    said = [max(each, 1 - each) for each in found if each is not None]
    return max(said, default=None)


def _judged(label: np.ndarray, score: np.ndarray) -> float | None:
    """AUC, where there are enough rows of both classes."""
    return auc(label, score) if min(label.sum(), len(label) - label.sum()) >= _LEAST else None


def _rates(values: Values, label: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The rate of a label that the value of each row has in the training half, ``<float64>[n]``."""
    overall = label[train].mean() if train.any() else 0.0
    row, code = _codes(values)
    kept = train[row]
    size = int(code.max(initial=0)) + 1
    count = np.bincount(code[kept], minlength=size)
    hits = np.bincount(code[kept], label[row[kept]], minlength=size)
    rate = (hits + _PRIOR * overall) / (count + _PRIOR)
    values_of_row = np.bincount(row, minlength=len(label))
    total = np.bincount(row, rate[code], minlength=len(label))
    return np.where(values_of_row > 0, total / np.maximum(values_of_row, 1), overall)


def _codes(values: Values) -> tuple[np.ndarray, np.ndarray]:
    """The row and the code of every value; a number's is its bin, and one more for no value."""
    if isinstance(values, Multi):
        return np.repeat(np.arange(values.rows.num_rows), values.rows.lengths()), values.rows.items
    if isinstance(values, Tokens):
        return np.arange(len(values.code)), values.code
    there = values[~np.isnan(values)]
    edges = np.unique(np.quantile(there, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(there) else np.zeros(0)
    code = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    return np.arange(len(values)), code
