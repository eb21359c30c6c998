"""Purchases of several domains, such as product categories, as one log of impressions with drawn negatives.

A domain is a scenario. Users and items have one id over all domains. Order is known within a user and a
domain only: there is no common clock, so of another domain a user's history holds training items alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import ITEM_ID, Events, Feature, Label, Multi, Schema
from reland_jax.events.values import positions
from reland_jax.strings import as_strings, distinct
from reland_jax.types import IdMap, Interactions, Ragged, RelandError

WORDS, BEFORE, ELSEWHERE = "words", "before", "elsewhere"
"""Features: what is said of an item, the user's earlier items here, and the training items elsewhere."""
TRAIN, VALID, TEST = 0, 1, 2
_ROUNDS = 100
"""Draws of a negative until the user is said to have everything."""
_SCHEMA = Schema(
    "user_id", "item_id", "position", (Label("click"),),
    (
        Feature(WORDS, "multi", "item"),
        Feature(BEFORE, "multi", "context", shares=ITEM_ID),
        Feature(ELSEWHERE, "multi", "context", shares=ITEM_ID),
    ),
    "domain", "milliseconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a log is made of purchases.

    Attributes:
        negatives: drawn for every purchase, of items of the domain that the user never has in it.
        by: one of `ranker_settings.DRAWN_BY`; by popularity, what is bought often is no answer by itself.
        single: users of one domain only that are kept, drawn at random; users of several are kept all.
            None for all.
        longest: last items of a history that are kept.
        seed: of all draws.
    """

    negatives: int = 4
    by: str = "uniform"
    single: int | None = None
    longest: int = 20
    seed: int = 0


class DomainLog(NamedTuple):
    """A log and its parts.

    Attributes:
        events: the log; a purchase is the label "click".
        part: ``<int8>[n]``, `TRAIN`, `VALID` (the last purchase but one of a user in a domain, with its
            negatives) or `TEST` (the last one).
    """

    events: Events
    part: np.ndarray


class _Bought(NamedTuple):
    """Purchases by domain, user and order, ``[m]`` each."""

    domain: np.ndarray
    user: np.ndarray
    item: np.ndarray
    position: np.ndarray
    part: np.ndarray

    def take(self, rows: np.ndarray) -> _Bought:
        return _Bought(*(each[rows] for each in self))


def from_domains(
    domains: Mapping[str, Interactions], words: Mapping[str, Sequence[Sequence[str]]], drawing: Drawing
) -> DomainLog:
    """Puts domains together.

    Args:
        domains: name -> purchases.
        words: name -> words of every item of the domain, ``I + 1`` lists.
        drawing: how.

    Raises:
        RelandError: fewer than two domains, or a user for whom nothing is left to draw.
    """
    if len(domains) < 2:
        raise RelandError(f"domains {', '.join(domains)}: at least two are needed")
    users, _ = distinct(as_strings([name for each in domains.values() for name in each.ids.users.tolist()]))
    items, _ = distinct(as_strings([name for each in domains.values() for name in each.ids.items.tolist()]))
    # The padding item "" is the first in sorted order.
    everything = _bought(domains, IdMap(users, items))
    bought = everything.take(_kept(everything, len(users), drawing))
    there, user = np.unique(bought.user, return_inverse=True)
    ids, bought = IdMap(users[there], items), bought._replace(user=user.astype(np.int32))
    drawn = _negatives(bought, _sales(everything, len(domains), len(items)), drawing, list(domains))
    row = np.repeat(np.arange(len(bought.item)), drawing.negatives + 1)
    item = np.concatenate([bought.item[:, None], drawn], 1).ravel()
    click = (np.arange(len(row)) % (drawing.negatives + 1) == 0).astype(np.int8)
    # There is no clock: training rows by their place among a user's purchases, then the other parts.
    last = int(bought.position.max()) + 1
    time = np.where(bought.part == TRAIN, bought.position, bought.part.astype(np.int64) + last)[row]
    order = np.argsort(time, kind="stable")
    row = row[order]
    histories = (_before(bought, drawing.longest), _elsewhere(bought, drawing.longest))
    before, elsewhere = (Multi(each.take(row), items) for each in histories)
    events = Events(
        _SCHEMA, bought.user[row], item[order], time[order],
        Tokens(bought.domain[row], as_strings(list(domains))), {"click": click[order]},
        {WORDS: _words(domains, words, items), BEFORE: before, ELSEWHERE: elsewhere}, ids,
        _notes(drawing, bought),
    )  # fmt: skip
    return DomainLog(events, bought.part[row])


def _bought(domains: Mapping[str, Interactions], ids: IdMap) -> _Bought:
    """All purchases, with the ids of all domains."""
    found = []
    for place, each in enumerate(domains.values()):
        user = positions(each.ids.users, ids.users).astype(np.int32)[each.user]
        item = positions(each.ids.items, ids.items).astype(np.int32)[each.item]
        begins = np.searchsorted(each.user, each.user)
        left = np.searchsorted(each.user, each.user, side="right") - np.arange(len(user))
        part = np.select([left == 1, left == 2], [TEST, VALID], TRAIN).astype(np.int8)
        found.append(
            _Bought(np.full(len(user), place, np.int32), user, item, np.arange(len(user)) - begins, part)
        )
    return _Bought(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _kept(bought: _Bought, num_users: int, drawing: Drawing) -> np.ndarray:
    """Purchases of users of several domains, and of some of one."""
    pairs = np.unique(bought.domain.astype(np.int64) * num_users + bought.user) % num_users
    visits = np.bincount(pairs, minlength=num_users)
    single = np.flatnonzero(visits == 1)
    if drawing.single is not None and drawing.single < len(single):
        left_out = np.random.default_rng(drawing.seed).permutation(single)[drawing.single :]
        visits[left_out] = 0
    return visits[bought.user] > 0


def _sales(bought: _Bought, num_domains: int, num_items: int) -> np.ndarray:
    """Training purchases of every item in every domain, ``<int64>[domains, I + 1]``; -1 where it is not."""
    place = bought.domain.astype(np.int64) * num_items + bought.item
    there = np.bincount(place, minlength=num_domains * num_items) > 0
    sold = np.bincount(place[bought.part == TRAIN], minlength=num_domains * num_items)
    return np.where(there, sold, -1).reshape(num_domains, num_items)


def _negatives(bought: _Bought, sales: np.ndarray, drawing: Drawing, names: Sequence[str]) -> np.ndarray:
    """Items of the domain that the user has in none of its parts, ``<int32>[m, negatives]``."""
    rng, num_items = np.random.default_rng(drawing.seed + 1), sales.shape[1]
    drawn = np.zeros((len(bought.item), drawing.negatives), np.int32)
    for place, sold in enumerate(sales):
        rows = np.flatnonzero(bought.domain == place)
        items, user = np.flatnonzero(sold >= 0), np.repeat(bought.user[rows], drawing.negatives)
        has = np.unique(bought.user[rows].astype(np.int64) * num_items + bought.item[rows])
        weight = sold[items] if drawing.by == "popularity" else np.ones(len(items))
        edges = np.cumsum(weight) / weight.sum()
        found, open_ = np.zeros(len(user), np.int64), np.arange(len(user))
        for _ in range(_ROUNDS):
            found[open_] = items[np.searchsorted(edges, rng.random(len(open_)), side="right")]
            open_ = open_[np.isin(user[open_].astype(np.int64) * num_items + found[open_], has)]
            if not len(open_):
                break
        if len(open_):
            raise RelandError(f"domain {names[place]!r}: a user has nearly all of its items; none is left")
        drawn[rows] = found.reshape(-1, drawing.negatives)
    return drawn


def _before(bought: _Bought, longest: int) -> Ragged:
    """The user's last items of the domain before each purchase."""
    length = np.minimum(bought.position, longest)
    indptr = np.concatenate(([0], np.cumsum(length)))
    into = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - (np.arange(len(length)) - length), length)
    return Ragged(indptr, bought.item[into])


def _elsewhere(bought: _Bought, longest: int) -> Ragged:
    """The user's training items of the other domains, the last ones of each, for each purchase."""
    # Pairs of a purchase's (user, domain) and another domain's training items of that user.
    num_domains, key = int(bought.domain.max()) + 1, bought.user.astype(np.int64)
    train = np.flatnonzero(bought.part == TRAIN)
    train = train[np.lexsort((train, bought.domain[train], bought.user[train]))]
    of_pair = key[train] * num_domains + bought.domain[train]
    lists = []
    for shift in range(1, num_domains):
        other = key * num_domains + (bought.domain + shift) % num_domains
        last = np.searchsorted(of_pair, other, side="right")
        length = np.minimum(last - np.searchsorted(of_pair, other), longest)
        indptr = np.concatenate(([0], np.cumsum(length)))
        into = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - (last - length), length)
        lists.append(Ragged(indptr, bought.item[train[into]]))
    joined = lists[0]
    for each in lists[1:]:
        joined = joined.joined(each)
    return joined


def _words(
    domains: Mapping[str, Interactions], words: Mapping[str, Sequence[Sequence[str]]], items: np.ndarray
) -> Multi:
    """The words of every item; those of the first domain, where several sell it."""
    said: dict[str, Sequence[str]] = {}
    for name, each in domains.items():
        for item, own in zip(each.ids.items.tolist(), words[name], strict=True):
            said.setdefault(item, own)
    lists = [said[item] for item in items.tolist()]
    indptr = np.concatenate(([0], np.cumsum([len(each) for each in lists])))
    names, code = distinct(as_strings([word for each in lists for word in each]))
    return Multi(Ragged(indptr, code.astype(np.int32)), names)


def _notes(drawing: Drawing, bought: _Bought) -> tuple[str, ...]:
    users = len(np.unique(bought.user))
    return (
        f"{len(bought.item):,} purchases of {users:,} users, each with {drawing.negatives} items of its "
        f"domain that the user never has there, drawn by {drawing.by}",
        "there is no common clock: the times are places among a user's purchases in a domain",
    )
