"""What training rows say of scenarios, and of users in each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events import Events, Multi
from reland_jax.fields import nearest_name
from reland_jax.types import Ragged, RelandError

_LIKED = 5
_DOUBT = 20.0
"""Impressions at the average rate that are added to those of a word before its rate is compared."""


class ScenarioFacts(NamedTuple):
    """One scenario.

    Attributes:
        name: as the log has it.
        rows: impressions.
        share: of all impressions.
        users: users.
        items: items.
        rate: share of impressions with a click.
        shared: other scenario -> share of the users here who are there too.
        liked: words of items that are clicked more here than elsewhere, the most first.
        disliked: the same of less.
    """

    name: str
    rows: int
    share: float
    users: int
    items: int
    rate: float
    shared: Mapping[str, float]
    liked: Sequence[str]
    disliked: Sequence[str]


class UserFacts(NamedTuple):
    """One user.

    Attributes:
        user: row in tables of users.
        seen: scenario -> impressions and clicks.
        clicked: scenario -> the words of the items that were clicked there last, oldest first.
    """

    user: int
    seen: Mapping[str, tuple[int, int]]
    clicked: Mapping[str, Sequence[str]]


def item_words(events: Events, name: str) -> Multi:
    """The words of every item, from a categorical or multi-valued feature.

    Args:
        events: the log.
        name: of the feature.

    Raises:
        RelandError: there is no such feature of items, or it is a number.
    """
    known = [each.name for each in events.schema.of_side("item") if each.kind != "numeric"]
    if name not in known:
        hint = nearest_name(name, known) if known else "this log has none"
        raise RelandError(f"{name!r} is no categorical or multi-valued feature of items; {hint}")
    values = events.features[name]
    if isinstance(values, Tokens):
        return Multi(Ragged(np.arange(len(values.code) + 1), values.code), values.name)
    assert isinstance(values, Multi)
    return values


def facts_of_scenarios(
    events: Events, rows: np.ndarray, words: Multi, label: str = ""
) -> list[ScenarioFacts]:
    """Facts of every scenario that has a row.

    Args:
        events: the log.
        rows: ``<int64>[n]``, training rows; nothing else is looked at.
        words: of the items, ``I + 1`` rows.
        label: what counts as a click; "" for the first label of the log.
    """
    code, user, item = events.scenario.code[rows], events.user[rows], events.item[rows]
    click = events.labels[label or events.schema.labels[0].name][rows]
    names, count = events.scenario.name.tolist(), len(events.scenario.name)
    there = np.zeros((count, events.num_users), bool)
    there[code, user] = True
    lift = _lifts(code, item, click, words, count)
    found = []
    for s in np.flatnonzero(np.bincount(code, minlength=count)).tolist():
        own = code == s
        others = {
            name: float((there[s] & there[other]).sum() / there[s].sum())
            for other, name in enumerate(names)
            if other != s and there[other].any()
        }
        found.append(ScenarioFacts(
            names[s], int(own.sum()), float(own.mean()), int(there[s].sum()), len(np.unique(item[own])),
            float(click[own].mean()), others,
            _extreme(lift[s], words.name, 1), _extreme(lift[s], words.name, -1),
        ))  # fmt: skip
    return found


def _lifts(code: np.ndarray, item: np.ndarray, click: np.ndarray, words: Multi, count: int) -> np.ndarray:
    """How much more a word is clicked in a scenario than its own and the scenario's rates tell.

    Returns:
        ``<float64>[scenarios, words]``, differences of smoothed logarithms of rates; 0 without impressions.
    """
    lengths, size = words.rows.lengths(), len(words.name)
    place, cells = code.astype(np.int64) * len(lengths) + item, count * len(lengths)
    item_click = np.stack([np.bincount(place, weights, minlength=cells) for weights in (None, click)])
    item_click = item_click.reshape(2, count, len(lengths))
    of = np.repeat(np.arange(len(lengths)), lengths)
    shown, clicked = (
        np.stack([np.bincount(words.rows.items, row[of], minlength=size) for row in part])
        for part in item_click
    )
    rate = max(clicked.sum() / max(shown.sum(), 1), 1e-6)

    def log_rate(clicks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.log((clicks + rate * _DOUBT) / (rows + _DOUBT))

    of_word = log_rate(clicked.sum(0), shown.sum(0)) - np.log(rate)
    of_scenario = log_rate(clicked.sum(1), shown.sum(1))[:, None]
    expected = np.exp(of_scenario + of_word[None])
    return np.log((clicked + expected * _DOUBT) / (expected * (shown + _DOUBT)))


def _extreme(lift: np.ndarray, names: np.ndarray, sign: int) -> list[str]:
    """The words that stand out most to one side."""
    order = np.argsort(-sign * lift, kind="stable")[:_LIKED]
    return [str(names[word]) for word in order if sign * lift[word] > 0 and names[word]]


def facts_of_users(
    events: Events, rows: np.ndarray, users: np.ndarray, words: Multi, history: int, label: str = ""
) -> list[UserFacts]:
    """What some users did in each scenario.

    Args:
        events: the log.
        rows: ``<int64>[n]``, training rows, increasing; nothing else is looked at.
        users: ``<int>[m]``, who is wanted.
        words: of the items.
        history: last clicks that are told per scenario.
        label: what counts as a click; "" for the first label of the log.
    """
    click = events.labels[label or events.schema.labels[0].name]
    wanted = np.full(events.num_users, -1, np.int64)
    wanted[users] = np.arange(len(users))
    rows = rows[wanted[events.user[rows]] >= 0]
    rows = rows[np.argsort(wanted[events.user[rows]], kind="stable")]
    ends = np.searchsorted(wanted[events.user[rows]], np.arange(len(users) + 1))
    return [
        _facts_of_user(events, int(user), rows[ends[at] : ends[at + 1]], click, words, history)
        for at, user in enumerate(users)
    ]


def _facts_of_user(
    events: Events, user: int, rows: np.ndarray, click: np.ndarray, words: Multi, history: int
) -> UserFacts:
    seen, clicked = {}, {}
    for code in np.unique(events.scenario.code[rows]).tolist():
        own, name = rows[events.scenario.code[rows] == code], str(events.scenario.name[code])
        hits = own[click[own] == 1]
        seen[name] = (len(own), len(hits))
        if len(hits):
            clicked[name] = [_said(words, int(item)) for item in events.item[hits[-history:]]]
    return UserFacts(user, seen, clicked)


def _said(words: Multi, item: int) -> str:
    found = words.name[words.rows.items[words.rows.indptr[item] : words.rows.indptr[item + 1]]]
    return ", ".join(str(each) for each in found) or "unknown"
