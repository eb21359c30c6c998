"""Purchases of several domains as one log: ids, parts, histories and what is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reland_jax.events import domains
from reland_jax.events.contract import Multi
from reland_jax.events.domains import TEST, TRAIN, VALID, DomainLog, Drawing, from_domains
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions, RelandError

USERS, ITEMS = 30, 40


def bought(seed: int, prefix: str, first_user: int) -> Interactions:
    """Users with three to nine purchases each, of distinct items; the first items are bought most."""
    rng, rows = np.random.default_rng(seed), []
    share = np.arange(ITEMS, 0, -1) ** 2.0
    for user in range(USERS):
        items = rng.choice(ITEMS, rng.integers(3, 10), replace=False, p=share / share.sum()) + 1
        rows += [(user, item, time) for time, item in enumerate(items)]
    user, item, time = np.array(rows).T
    ids = IdMap(
        as_strings([f"u{first_user + each:03d}" for each in range(USERS)]),
        as_strings(["", *(f"{prefix}{each:03d}" for each in range(ITEMS))]),
    )
    return Interactions(user.astype(np.int32), item.astype(np.int32), time.astype(np.float64), ids, {}, {})


DOMAINS = {"one": bought(0, "a", 0), "two": bought(1, "b", 20), "three": bought(2, "c", 45)}
WORDS = {name: [[], *([name, f"w{item % 3}"] for item in range(ITEMS))] for name in DOMAINS}
"""Users 20 to 29 are in one and two, 45 to 49 in two and three."""


def made(**changed: object) -> DomainLog:
    """The log of `DOMAINS`."""
    return from_domains(DOMAINS, WORDS, dataclasses.replace(Drawing(negatives=3), **changed))  # type: ignore[arg-type]


def ids_of(log: DomainLog, rows: np.ndarray) -> list[tuple[str, str, str]]:
    """External user, item and domain of rows."""
    events = log.events
    return [
        (str(events.ids.users[events.user[row]]), str(events.ids.items[events.item[row]]),
         str(events.scenario.name[events.scenario.code[row]]))
        for row in rows.tolist()
    ]  # fmt: skip


def purchases() -> dict[tuple[str, str], list[str]]:
    """(user, domain) -> items in order."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, each in DOMAINS.items():
        for user, item in zip(each.user, each.item, strict=True):
            found.setdefault((str(each.ids.users[user]), name), []).append(str(each.ids.items[item]))
    return found


def test_every_purchase_is_in_its_part_and_negatives_are_never_had() -> None:
    log, expected = made(), purchases()
    click = log.events.labels["click"] == 1
    for part, chosen in ((TRAIN, slice(None, -2)), (VALID, slice(-2, -1)), (TEST, slice(-1, None))):
        rows = np.flatnonzero(click & (log.part == part))
        wanted = {(u, i, d) for (u, d), items in expected.items() for i in items[chosen]}
        assert set(ids_of(log, rows)) == wanted and len(rows) == len(wanted)
        assert (log.part[~click] == part).sum() == 3 * len(rows)
    for user, item, domain in ids_of(log, np.flatnonzero(~click)):
        assert item not in expected[user, domain]
        assert item in {"one": "a", "two": "b", "three": "c"}[domain] + item[1:]
    assert (np.diff(log.events.time) >= 0).all()


def test_histories_hold_earlier_items_here_and_training_items_elsewhere() -> None:
    log, expected = made(longest=4), purchases()
    before, elsewhere = (log.events.features[name] for name in (domains.BEFORE, domains.ELSEWHERE))
    assert isinstance(before, Multi) and isinstance(elsewhere, Multi)
    crossing = 0
    for row, (user, item, domain) in enumerate(ids_of(log, np.arange(log.events.num_rows))):
        own = [str(before.name[each]) for each in before.rows.row(row)]
        others = [str(elsewhere.name[each]) for each in elsewhere.rows.row(row)]
        items = expected[user, domain]
        if log.events.labels["click"][row]:
            assert own == items[max(items.index(item) - 4, 0) : items.index(item)]
        trained = [expected[key][:-2][-4:] for key in expected if key[0] == user and key[1] != domain]
        assert sorted(others) == sorted(item for each in trained for item in each)
        crossing += bool(others)
    assert crossing > 100


def test_users_that_are_kept_and_how_often_items_are_drawn() -> None:
    several = {f"u{number:03d}" for number in (*range(20, 30), *range(45, 50))}
    few = made(single=2)
    assert set(few.events.ids.users.tolist()) > several and few.events.num_users == len(several) + 2
    assert set(made(single=0).events.ids.users.tolist()) == several
    assert made().events.num_users == 75

    def share_of_first(by: str) -> float:
        log = made(by=by, negatives=8)
        drawn = [item for _, item, _ in ids_of(log, np.flatnonzero(log.events.labels["click"] == 0))]
        return float(np.mean([int(item[1:]) < 10 for item in drawn]))

    assert share_of_first("uniform") + 0.1 < share_of_first("popularity")
    again, other = made(), made(seed=1)
    np.testing.assert_array_equal(made().events.item, again.events.item)
    assert (again.events.item != other.events.item).any()


def test_words_of_items_of_all_domains() -> None:
    log = made()
    words = log.events.features[domains.WORDS]
    assert isinstance(words, Multi)
    place = log.events.ids.items.tolist().index("b004")
    assert [str(words.name[each]) for each in words.rows.row(place)] == ["two", "w1"]
    assert not len(words.rows.row(0))


def test_what_cannot_be_made() -> None:
    with pytest.raises(RelandError, match="at least two are needed"):
        from_domains({"one": DOMAINS["one"]}, WORDS, Drawing())
    whole = DOMAINS["one"]
    everything = whole._replace(
        user=np.zeros(ITEMS, np.int32),
        item=np.arange(1, ITEMS + 1, dtype=np.int32),
        time=np.arange(ITEMS) * 1.0,
    )
    with pytest.raises(RelandError, match="domain 'one': a user has nearly all of its items"):
        from_domains(DOMAINS | {"one": everything}, WORDS, Drawing())
