"""The logs that rankers are compared on, each with its split into training, validation and testing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax import events
from reland_jax.config import DataConfig
from reland_jax.data.loading import load_interactions
from reland_jax.data.sources.raw import Tokens
from reland_jax.events import Events, Feature, Multi, Schema, streamed
from reland_jax.events.domains import TEST, TRAIN, VALID, Drawing, from_domains
from reland_jax.events.streamed import Streamed
from reland_jax.fields import nearest_name
from reland_jax.files import resolve
from reland_jax.ranker_settings import LogConfig, RankerConfig
from reland_jax.strings import as_strings
from reland_jax.types import Interactions, RelandError

KUAIRAND, MOVIES, SHOP, DOMAINS = "kuairand-pure", "ml-1m-full", "shop", "domains"

_ALL = Tokens(np.zeros(0, np.int32), as_strings(["all"]))


class Parts(NamedTuple):
    """Rows of a log, increasing.

    Attributes:
        train: ``<int64>[n]``.
        valid: ``<int64>[n]``; early stopping looks at these.
        test: ``<int64>[n]``; what results are of.
        about: how they were divided, in words.
        warm: ``<int64>[n]``; before all others, of behaviour alone, where there are some.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    about: str
    warm: np.ndarray = np.zeros(0, np.int64)

    @property
    def behaviour(self) -> np.ndarray:
        """Rows by whose clicks users are matched.

        A match by the rows that a ranker is trained on betrays their labels, and is worth less on all others.
        """
        return self.warm if len(self.warm) else self.train


class Log(NamedTuple):
    """A log of impressions, ready for rankers.

    Attributes:
        events: the log; texts are no features of it.
        parts: its split.
        item_texts: field -> ``<str>[I + 1]``, what is said of the items; empty where nothing is.
        shop: the generated world with its truth, for the shop alone.
        profiles: JSON lines with a text of every user, where there are any.
        streamed: what is known of training rows that stay in their files; None where they are in `events`.
    """

    events: Events
    parts: Parts
    item_texts: Mapping[str, np.ndarray]
    shop: events.shop.Shop | None = None
    profiles: Path | None = None
    streamed: Streamed | None = None

    @property
    def training_rows(self) -> int:
        """Rows on which rankers are trained."""
        return self.streamed.training.labels.total() if self.streamed else len(self.parts.train)


def read_log(config: LogConfig) -> Log:
    """Reads or generates a log, and divides it.

    Raises:
        RelandError: it is not there, cannot be read, or a part of it has no rows.
    """
    if config.streamed:
        return _streamed(config)
    log = _NAMED.get(config.name, _declared)(config)
    if config.without:
        log = log._replace(events=events.without(log.events, config.without))
    return _of_scenarios(log, config.scenarios) if config.scenarios else log


def check_classes(log: Log, config: RankerConfig) -> None:
    """Looks whether what is learned can be learned, before anything is trained.

    Raises:
        RelandError: a label has one value only in the rows for training, validation or testing.
    """
    for name in config.labels:
        if log.streamed:
            _check_values(name, _training_labels(log, name, config.trained_on), "training")
        for part, rows in zip(("training", "validation", "testing"), log.parts[:3], strict=True):
            if log.streamed and part == "training":
                continue
            there = log.events.labels[config.trained_on][rows] == 1 if config.trained_on else rows >= 0
            _check_values(name, log.events.labels[name][rows[there]], part)


def _check_values(name: str, label: np.ndarray, part: str) -> None:
    """Refuses a label ``<int8>[n]`` of one class."""
    values = np.unique(label)
    if len(values) < 2:
        told = f"is {values[0]} in all" if len(values) else "has none"
        raise RelandError(
            f"label {name!r} {told} of the {len(label):,} rows for {part}: nothing can be ranked; "
            "choose another label (config.ranker.labels) or other days (config.log.valid_days, "
            "config.log.test_days)"
        )


def _training_labels(log: Log, name: str, trained_on: str) -> np.ndarray:
    """A label of training rows that stay in their files, where another one is 1; in no order."""
    assert log.streamed is not None
    place = {each.name: at for at, each in enumerate(log.events.schema.labels)}
    counted = {
        labels: rows
        for labels, rows in log.streamed.training.labels.items()
        if not trained_on or labels[place[trained_on]]
    }
    return np.repeat(np.array([labels[place[name]] for labels in counted], np.int8), [*counted.values()])


def _of_scenarios(log: Log, names: Sequence[str]) -> Log:
    """The rows of some scenarios alone."""
    found, known = log.events.scenario, log.events.scenario.name.tolist()
    for name in names:
        if name not in known:
            raise RelandError(f"config.log.scenarios: {name!r} is not there; {nearest_name(name, known)}")
    wanted = np.array([name in names for name in known])[found.code]
    rows, parts = np.flatnonzero(wanted), log.parts
    train, valid, test, warm = (
        np.searchsorted(rows, part[wanted[part]]) for part in (*parts[:3], parts.warm)
    )
    for name, part in (("training", train), ("validation", valid), ("testing", test)):
        if not len(part):
            raise RelandError(f"config.log.scenarios={','.join(names)}: no rows for {name}")
    shop = log.shop and log.shop._replace(truth=type(log.shop.truth)(*(p[rows] for p in log.shop.truth)))
    left = Parts(train, valid, test, parts.about, warm)
    return log._replace(events=log.events.take(rows), parts=left, shop=shop)


def _shop(config: LogConfig) -> Log:
    settings = events.shop.ShopSettings(
        users=config.shop_users,
        rows=config.shop_rows,
        strength=config.shop_strength,
        shares=config.shop_shares,
        specific=config.shop_specific,
        tastes=config.shop_tastes,
        alone=config.shop_alone,
        seed=config.shop_seed,
    )
    shop = events.shop.generate(settings)
    return Log(shop.events, _by_days(shop.events, _last(shop.events, config), config), {}, shop)


def _kuairand(config: LogConfig) -> Log:
    log = events.kuairand.read(_place(config))
    # There are no words in this data set: the numbers of its tags show the mechanics alone.
    tags = log.features["tag"]
    assert isinstance(tags, Multi)
    return Log(log, _by_days(log, events.kuairand.DAYS, config), {"categories": _listed(tags)})


def _movies(config: LogConfig) -> Log:
    place, split = _place(config), "profile_split"
    people = ("gender", "age", "occupation", "zip_code")
    texts = config.texts or ("title", "genres", "llm_description")
    spoken = [name for name in texts if name != "genres"]
    schema = Schema(
        "user_id", "item_id", "timestamp", events.FUNNEL,
        (
            *(Feature(name, "categorical", "user") for name in people),
            Feature("genres", "multi", "item"),
            *(Feature(name, "categorical", "item") for name in spoken),
        ),
        split, "seconds",
    )  # fmt: skip
    found = events.read(DataConfig(name=str(place)), schema)
    said = {name: _texts(found, name) for name in texts}
    parts = _by_profile(found.scenario)
    one = _ALL._replace(code=np.zeros(found.num_rows, np.int32))
    log = events.without(found, spoken)._replace(scenario=one)
    log = log._replace(schema=replace(log.schema, scenario=""))
    return Log(log, parts, said, profiles=place / f"{MOVIES}.profiles.jsonl")


def _domains(config: LogConfig) -> Log:
    read = {
        name: load_interactions(DataConfig(name=name, root=config.root or None)) for name in config.domains
    }
    words = {name: _words_of(name, each) for name, each in read.items()}
    drawing = Drawing(config.negatives, config.drawn_by, config.single_users, config.longest)
    log, part = from_domains(read, words, drawing)
    about = (
        "training: all purchases of a user in a domain but the last two; validation: the last but one; test: "
        "the last, each with its negatives"
    )
    train, valid, test = (np.flatnonzero(part == which) for which in (TRAIN, VALID, TEST))
    parts = Parts(train, valid, test, about)
    said = events.domains.WORDS
    return Log(log, parts, {said: _texts(log, said)})


def _words_of(name: str, found: Interactions) -> list[list[str]]:
    """The steps of the category path of every item, or its tags, where it has no such path."""
    paths = {"categories": " > ", "generated_tags": " "}
    field = next((each for each in paths if each in found.item_features), None)
    if field is None:
        raise RelandError(
            f"config.log.domains: the items of {name!r} have none of {', '.join(paths)}; there are "
            f"{', '.join(found.item_features) or 'no texts'}"
        )
    return [
        [word for word in text.split(paths[field]) if word] for text in found.item_features[field].tolist()
    ]


def _declared(config: LogConfig) -> Log:
    if not config.schema:
        raise RelandError(
            f"config.log.name={config.name!r} is none of {', '.join(_NAMED)}; for a log of your own give its "
            "path, and in config.log.schema the JSON file that declares its columns (docs/events.md)"
        )
    schema = events.read_schema(resolve(config.schema))
    found = events.read(DataConfig(name=config.name, root=config.root or None), schema)
    said = {name: _texts(found, name) for name in config.texts}
    log = events.without(found, config.texts)
    return Log(log, _by_days(log, _last(log, config), config), said)


def _streamed(config: LogConfig) -> Log:
    """A log of one's own of which validation and testing rows alone are in memory."""
    if config.name in _NAMED or not config.schema or config.scenarios:
        raise RelandError(
            "config.log.streamed=True is for a log of your own, with config.log.schema and all of its "
            "scenarios"
        )
    schema = events.read_schema(resolve(config.schema))
    files = streamed.files_of(DataConfig(name=config.name, root=config.root or None))
    found = streamed.survey(files, schema)
    days = events.days_between(found.first, found.last, config.valid_days, config.test_days)
    division = streamed.division_of(days, found, config.warm_days)
    whole = streamed.catalogue(files, schema, found.ids)
    said = {name: _texts(whole, name) for name in config.texts}
    log, rest = streamed.go_through(files, whole, division, (*config.texts, *config.without))
    _, _, valid, test = division.rows(log)
    for name, rows in (("validation", valid), ("testing", test)):
        if not len(rows):
            raise RelandError(f"the log has no rows for {name}: choose other days")
    about = _about(days, config.warm_days)
    return Log(log, Parts(np.zeros(0, np.int64), valid, test, about), said, streamed=rest)


def _place(config: LogConfig) -> Path:
    root = resolve(config.root or os.environ.get("RELAND_DATA") or "../shared/data")
    if not (root / config.name).is_dir():
        raise RelandError(
            f"{root / config.name}: not there; put the data set into this folder, or set config.log.root or "
            "$RELAND_DATA to the one that holds it"
        )
    return root / config.name


def _last(log: Events, config: LogConfig) -> events.Days:
    return events.last_days(log, config.valid_days, config.test_days)


def _by_days(log: Events, days: events.Days, config: LogConfig) -> Parts:
    split = events.split_days(log, days)
    day = log.day()[split.train]
    is_warm = day < day[0] + config.warm_days
    if is_warm.all():
        raise RelandError(
            f"config.log.warm_days={config.warm_days} leaves nothing to train on: training has "
            f"{day[-1] - day[0] + 1} days"
        )
    about = _about(days, config.warm_days)
    return Parts(split.train[~is_warm], split.valid, split.test, about, split.train[is_warm])


def _about(days: events.Days, warm_days: int) -> str:
    about = "; ".join(f"{name}: {first or 'first'} to {last or 'last'} day" for name, (first, last) in
                      days._asdict().items())  # fmt: skip
    if warm_days:
        about += f"; of training the first {warm_days} days for the match alone"
    return about


def _by_profile(part: Tokens) -> Parts:
    """Training rows are those that the writer of the texts has seen; no other row was seen by it."""
    seen = part.name[part.code] == "train"
    unseen = np.flatnonzero(~seen)
    is_valid = np.random.default_rng(0).random(len(unseen)) < 0.25
    about = (
        "training: the ratings that the texts were written from; of the others a quarter, drawn at random, "
        "is for validation and the rest for testing"
    )
    return Parts(np.flatnonzero(seen), unseen[is_valid], unseen[~is_valid], about)


def _texts(log: Events, name: str) -> np.ndarray:
    """A feature of items as text, ``<str>[I + 1]``."""
    if name not in log.features or not any(each.name == name for each in log.schema.of_side("item")):
        raise RelandError(f"config.log.texts: {name!r} is no declared feature of items")
    values = log.features[name]
    if isinstance(values, Multi):
        return _listed(values)
    if isinstance(values, Tokens):
        return as_strings(values.name.tolist())[values.code]
    raise RelandError(f"config.log.texts: {name!r} is a number; a text is needed")


def _listed(values: Multi) -> np.ndarray:
    """Lists as text, ``<str>[r]``, their values with commas between them."""
    names = np.asarray(values.name, object)[values.rows.items]
    ends = values.rows.indptr
    return as_strings([", ".join(names[ends[row] : ends[row + 1]]) for row in range(values.rows.num_rows)])


_NAMED = {SHOP: _shop, KUAIRAND: _kuairand, MOVIES: _movies, DOMAINS: _domains}
"""Logs that need no schema."""
