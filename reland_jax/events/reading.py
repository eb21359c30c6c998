"""Logs in the formats that data sets come in: RecBole's atomic files, CSV, Parquet and MovieLens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from reland_jax.config import DataConfig
from reland_jax.data.finding import locate
from reland_jax.data.sources import movielens, recbole, table
from reland_jax.data.sources.columns import Frames, listed
from reland_jax.events.build import Tables, build
from reland_jax.events.contract import Events, Feature, Label, Schema
from reland_jax.types import RelandError

_FRAMES: dict[str, Callable[[str, DataConfig], Frames]] = {
    "recbole": recbole.frames,
    "movielens": movielens.frames,
    "table": table.frames,
}
_KINDS = {"token": "categorical", "float": "numeric", "token_seq": "multi"}

FUNNEL = (Label("click", "rating", at_least=4), Label("conversion", "rating", at_least=5, given="click"))
"""Ratings as a funnel: from 4 on a click, and 5, given that, a conversion."""


def read(config: DataConfig, schema: Schema) -> Events:
    """Reads a log by a declared schema, from wherever `config` says.

    Args:
        config: `name`, `root`, `source`, `encoding`, `delimiter`, `item_table` and `user_table`. Several
            files, or a folder of parts, are one log.
        schema: what is read, and what it is.

    Raises:
        RelandError: there is no such data set, or see `build`.
    """
    config = replace(config, user_field=schema.user, item_field=schema.item)
    found = locate(config)
    if found.source not in _FRAMES:
        raise RelandError(
            f"{config.name!r} is read as {found.source}, which has no labels; event logs are read from "
            f"{', '.join(_FRAMES)}"
        )
    frames = _FRAMES[found.source](found.place, config)
    return build(as_tables(frames), schema)


def as_tables(frames: Frames) -> Tables:
    """The tables of a data set as those of a log."""
    return Tables(
        frames.log,
        [frames.users] if frames.users else [],
        [frames.items] if frames.items else [],
        frames.notes,
    )


def schema_of_atomic(
    path: Path,
    labels: Sequence[Label],
    *,
    time: str = "timestamp",
    scenario: str = "",
    context: Sequence[str] = (),
    without: Sequence[str] = (),
    config: DataConfig | None = None,
) -> Schema:
    """The schema that the typed headers of RecBole's atomic files declare.

    Every column of the ``.user`` and ``.item`` files is a feature: a token is categorical, a float numeric
    (taken by its logarithm), a token_seq multi-valued. Of the log's own columns only those named here are
    read, since most others are outcomes.

    Args:
        path: the ``.inter`` file.
        labels: its columns that are labels.
        time: its column of times.
        scenario: its column of scenarios, "" for none.
        context: its columns that are known before the outcome is.
        without: columns of the ``.user`` and ``.item`` files that are left out.
        config: how text is written.

    Raises:
        RelandError: a header that is not atomic, a name that no file has, or a type that is no feature's.
    """
    config = config or DataConfig()
    log = recbole.kinds(path, config)
    features = [_feature(name, log, "context", path) for name in context]
    known: list[str] = []
    for side in ("user", "item"):
        beside = path.with_name(f"{recbole.base(path)}.{side}")
        kinds = recbole.kinds(beside, config) if beside.is_file() else {}
        known += [name for name in kinds if name != f"{side}_id"]
        wanted = [name for name in kinds if name != f"{side}_id" and name not in without]
        features += [_feature(name, kinds, side, beside) for name in wanted]
    if unknown := [name for name in without if name not in known]:
        raise RelandError(
            f"{path}: {listed(unknown)} are to be left out and not there; there are {listed(known)}"
        )
    return Schema("user_id", "item_id", time, tuple(labels), tuple(features), scenario)


def _feature(name: str, kinds: dict[str, str], side: str, path: Path) -> Feature:
    """One column as a feature of the kind that its header says."""
    if name not in kinds:
        raise RelandError(f"{path}:1: no column {name!r}; the columns are {listed(list(kinds))}")
    if kinds[name] not in _KINDS:
        raise RelandError(
            f"{path}:1: column {name!r} is of type {kinds[name]}, which is no kind of feature; leave it out"
        )
    return Feature(name, _KINDS[kinds[name]], side, log=True)
