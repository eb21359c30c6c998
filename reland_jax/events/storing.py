"""Event logs, and their encoded form, in the folders of artefacts: columns that are mapped into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import SIDES, Events, Feature, Label, Multi, Schema, Values
from reland_jax.events.encoding import Encoded, Encoding, Scale, Side
from reland_jax.files import read_json, write_json
from reland_jax.types import IdMap, Ragged, RelandError

_LOG, _ENCODING = "events.json", "encoding.json"


def save_events(events: Events, folder: Path) -> None:
    """Writes a log into a folder, which is there."""
    arrays = {"user": events.user, "item": events.item, "time": events.time}
    arrays |= {"users": events.ids.users, "items": events.ids.items}
    arrays |= arrays_of("scenario", events.scenario)
    for place, label in enumerate(events.schema.labels):
        arrays[f"label{place}"] = events.labels[label.name]
    for place, feature in enumerate(events.schema.features):
        arrays |= arrays_of(f"feature{place}", events.features[feature.name])
    save_arrays(arrays, folder)
    write_json(folder / _LOG, {"schema": dataclasses.asdict(events.schema), "notes": events.notes})


def load_events(folder: Path) -> Events:
    """What `save_events` was given; its columns are read when they are used.

    Raises:
        RelandError: a file is damaged.
    """
    plain, arrays = read_json(folder / _LOG), load_arrays(folder)
    schema = _schema(plain["schema"])
    scenario = values_of("scenario", "categorical", arrays)
    assert isinstance(scenario, Tokens)
    features = {
        each.name: values_of(f"feature{place}", each.kind, arrays)
        for place, each in enumerate(schema.features)
    }
    return Events(
        schema, arrays["user"], arrays["item"], arrays["time"], scenario,
        {each.name: arrays[f"label{place}"] for place, each in enumerate(schema.labels)},
        features, IdMap(arrays["users"], arrays["items"]), tuple(plain["notes"]),
    )  # fmt: skip


def save_encoded(encoding: Encoding, encoded: Encoded, folder: Path) -> None:
    """Writes an encoded log, of NumPy's arrays, and its encoding into a folder, which is there."""
    arrays = {"user": encoded.user, "item": encoded.item, "labels": encoded.labels}
    for name, side in zip(SIDES, encoded.sides, strict=True):
        arrays |= {f"{name}_categorical": side.categorical, f"{name}_numeric": side.numeric}
        arrays |= {f"{name}_multi{place}": each for place, each in enumerate(side.multi)}
    arrays |= {f"known{place}": names for place, names in enumerate(encoding.known.values())}
    save_arrays(arrays, folder)
    plain = {
        "schema": dataclasses.asdict(encoding.schema), "known": list(encoding.known),
        "scales": encoding.scales, "lengths": encoding.lengths,
        "multi": [len(side.multi) for side in encoded.sides],
    }  # fmt: skip
    write_json(folder / _ENCODING, plain)


def load_encoded(folder: Path) -> tuple[Encoding, Encoded]:
    """What `save_encoded` was given; a batch that is gathered reads its own rows alone.

    Raises:
        RelandError: a file is damaged.
    """
    plain, arrays = read_json(folder / _ENCODING), load_arrays(folder)
    encoding = Encoding(
        _schema(plain["schema"]),
        {name: arrays[f"known{place}"] for place, name in enumerate(plain["known"])},
        {name: Scale(*values) for name, values in plain["scales"].items()},
        plain["lengths"],
    )
    first, second, third = (
        Side(
            arrays[f"{name}_categorical"], arrays[f"{name}_numeric"],
            tuple(arrays[f"{name}_multi{place}"] for place in range(count)),
        )
        for name, count in zip(SIDES, plain["multi"], strict=True)
    )  # fmt: skip
    return encoding, Encoded(arrays["user"], arrays["item"], arrays["labels"], (first, second, third))


def read_schema(path: Path) -> Schema:
    """Reads a schema from a JSON file: its fields by name, with `labels` and `features` as lists of theirs.

    Raises:
        RelandError: it cannot be read, has a field that there is not, or declares what cannot be.
    """
    try:
        return _schema(read_json(path))
    except (TypeError, KeyError, AttributeError) as error:
        wrong = f"no {error}" if isinstance(error, KeyError) else str(error).replace(".__init__()", "")
        raise RelandError(f"{path}: not a schema ({wrong}); docs/events.md shows one") from None
    except RelandError as error:
        raise RelandError(f"{path}: {error}") from error


def arrays_of(name: str, values: Values) -> dict[str, np.ndarray]:
    """The arrays of a column, by the names that they are stored under."""
    if isinstance(values, Tokens):
        return {f"{name}_code": values.code, f"{name}_name": values.name}
    if isinstance(values, Multi):
        rows = {f"{name}_indptr": values.rows.indptr, f"{name}_code": values.rows.items}
        return {**rows, f"{name}_name": values.name}
    return {f"{name}_value": values}


def values_of(name: str, kind: str, arrays: Mapping[str, np.ndarray]) -> Values:
    """The column that `arrays_of` was given."""
    if kind == "numeric":
        return arrays[f"{name}_value"]
    code, names = arrays[f"{name}_code"], arrays[f"{name}_name"]
    return (
        Tokens(code, names) if kind == "categorical" else Multi(Ragged(arrays[f"{name}_indptr"], code), names)
    )


def _schema(plain: Mapping[str, Any]) -> Schema:
    """The schema of its plain values."""
    labels = tuple(Label(**each) for each in plain["labels"])
    features = tuple(Feature(**each) for each in plain["features"])
    return Schema(**{**plain, "labels": labels, "features": features})
