"""Parts of a log, such as its days, apart from what is known of users and items: stored and joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import Events, Multi, Values
from reland_jax.events.storing import arrays_of, values_of
from reland_jax.strings import as_strings, distinct
from reland_jax.types import Ragged, RelandError


def catalogue_of(events: Events) -> Events:
    """The log without rows: its ids, and the features of users and items."""
    return events.take(np.zeros(0, np.int64))


def save_rows(events: Events, folder: Path) -> None:
    """Writes the rows of a log, without ids and features of users and items, into an existing folder."""
    arrays = {"user": events.user, "item": events.item, "time": events.time}
    arrays |= arrays_of("scenario", events.scenario)
    for place, label in enumerate(events.schema.labels):
        arrays[f"label{place}"] = events.labels[label.name]
    for place, feature in enumerate(events.schema.of_side("context")):
        arrays |= arrays_of(f"feature{place}", events.features[feature.name])
    save_arrays(arrays, folder)


def load_rows(catalogue: Events, folder: Path) -> Events:
    """The log that `save_rows` was given; its columns are read when they are used.

    Args:
        catalogue: of the same log.
        folder: of the rows.

    Raises:
        RelandError: a file is damaged.
    """
    arrays, schema = load_arrays(folder), catalogue.schema
    context = {
        each.name: values_of(f"feature{place}", each.kind, arrays)
        for place, each in enumerate(schema.of_side("context"))
    }
    scenario = values_of("scenario", "categorical", arrays)
    assert isinstance(scenario, Tokens)
    return catalogue._replace(
        user=arrays["user"], item=arrays["item"], time=arrays["time"], scenario=scenario,
        labels={each.name: arrays[f"label{place}"] for place, each in enumerate(schema.labels)},
        features={**catalogue.features, **context},
    )  # fmt: skip


def joined(parts: Sequence[Events]) -> Events:
    """Parts of one log, each of them before the next, as one.

    Args:
        parts: at least one; with equal ids and features of users and items.

    Raises:
        RelandError: one begins before the end of the part before it.
    """
    if (np.diff(np.concatenate([part.time for part in parts])) < 0).any():
        raise RelandError("parts of a log are to be joined that are not in the order of time")
    return together(parts)


def together(parts: Sequence[Events]) -> Events:
    """Parts of one log with equal ids as one, in their order; context features and scenarios are joined.

    Args:
        parts: at least one; features of users and items, and notes, are those of the first.
    """
    first = parts[0]
    context = [each.name for each in first.schema.of_side("context")]
    scenario = _joined([part.scenario for part in parts])
    assert isinstance(scenario, Tokens)
    return first._replace(
        user=np.concatenate([part.user for part in parts]),
        item=np.concatenate([part.item for part in parts]),
        time=np.concatenate([part.time for part in parts]), scenario=scenario,
        labels={name: np.concatenate([part.labels[name] for part in parts]) for name in first.labels},
        features=dict(first.features) | {name: _joined([part.features[name] for part in parts])
                                         for name in context},
    )  # fmt: skip


def _joined(columns: Sequence[Values]) -> Values:
    """One column of the rows of several."""
    if isinstance(columns[0], Tokens):
        tokens = [each for each in columns if isinstance(each, Tokens)]
        name, places = _names_of_all([each.name for each in tokens])
        return Tokens(np.concatenate([at[each.code] for at, each in zip(places, tokens, strict=True)]), name)
    if isinstance(columns[0], Multi):
        lists = [each for each in columns if isinstance(each, Multi)]
        name, places = _names_of_all([each.name for each in lists])
        indptr = np.concatenate(([0], np.cumsum(np.concatenate([each.rows.lengths() for each in lists]))))
        items = np.concatenate([at[each.rows.items] for at, each in zip(places, lists, strict=True)])
        return Multi(Ragged(indptr, items), name)
    return np.concatenate([np.asarray(each) for each in columns])


def _names_of_all(names: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The names of several columns once, and the place of each column's among them ``<int32>[m]``."""
    first = names[0]
    if all(len(each) == len(first) and (each == first).all() for each in names):
        return first, [np.arange(len(first), dtype=np.int32)] * len(names)
    whole, place = distinct(np.concatenate([as_strings(each) for each in names]))
    ends = np.cumsum([len(each) for each in names])[:-1]
    return whole, np.split(place.astype(np.int32), ends)
