"""The paper's Figure 8: the user that it shows, and others who are drawn by a rule and not by hand.

Users are put into cells by what became of the rank of their test item, `reland` against `id`, and by whether
their rationale is their own or borrowed. From every cell the same number is drawn uniformly, and the sizes of
the cells are told, so that a picked success is not taken for the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.findings import Part, judged, not_testable
from reland_jax.report.tables import Table
from reland_jax.variants import ID, RELAND

TITLE = "Figure 8: cases"
PAPER_USER = {"amazon-beauty": "A2LUSYXY8NXYKW"}
"""Data set -> the user whom the paper shows."""
OUTCOMES, SOURCES = ("gained", "lost", "equal"), ("own", "borrowed")
OF_CELL = 1
"""Users drawn from each cell."""
_CLAIM = (
    "For the paper's user ReLand recommends the target, of a brand new to the user; the backbone does not."
)
_LISTED = 10


class Cell(NamedTuple):
    """Users of one outcome and source.

    Attributes:
        outcome: of `OUTCOMES`.
        source: of `SOURCES`.
        users: ``<int64>[n]``.
    """

    outcome: str
    source: str
    users: np.ndarray


def cells_of(users: np.ndarray, ours: np.ndarray, base: np.ndarray, own: np.ndarray) -> list[Cell]:
    """The six cells, which together have every user once.

    Args:
        users: ``<int64>[n]``, with a test item.
        ours: ``<int>[n]``, rank of it in `reland`; smaller is better.
        base: the same in `id`.
        own: ``<bool>[n]``, whether the rationale was written from the user's own history.
    """
    outcome = np.where(ours < base, 0, np.where(ours > base, 1, 2))
    return [
        Cell(name, source, users[(outcome == place) & (own == (source == "own"))])
        for place, name in enumerate(OUTCOMES)
        for source in SOURCES
    ]


def drawn(cells: Sequence[Cell], count: int = OF_CELL, seed: int = 0) -> list[tuple[Cell, int]]:
    """Users drawn uniformly from each cell, without looking at anything else."""
    rng = np.random.default_rng(seed)
    return [
        (cell, int(user))
        for cell in cells
        for user in rng.choice(cell.users, min(count, len(cell.users)), replace=False)
    ]


class Labelled(NamedTuple):
    """An item for people.

    Attributes:
        title: or its id where there is none.
        brand: "" where it is not known.
    """

    title: str
    brand: str = ""


class Shown(NamedTuple):
    """A user with what each variant recommends.

    Attributes:
        user_id: external id.
        why: the cell, or that the paper shows this user.
        history: oldest first.
        target: the test item.
        seed_user: external id of the nearest seed user.
        cosine: of the two.
        own: whether the rationale is the user's own.
        step1: of the rationale.
        step2: of the rationale.
        ranks: variant -> rank of the target, from 1.
        lists: variant -> items, best first.
    """

    user_id: str
    why: str
    history: Sequence[Labelled]
    target: Labelled
    seed_user: str
    cosine: float
    own: bool
    step1: str
    step2: str
    ranks: Mapping[str, int]
    lists: Mapping[str, Sequence[Labelled]]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Shown:
        """Of the plain values of JSON."""
        lists = {name: [Labelled(*one) for one in items] for name, items in plain["lists"].items()}
        history = [Labelled(*one) for one in plain["history"]]
        return cls(**{**plain, "history": history, "target": Labelled(*plain["target"]), "lists": lists})

    def to_plain(self) -> dict[str, Any]:
        """The plain values of JSON."""
        lists = {name: [list(one) for one in items] for name, items in self.lists.items()}
        return {
            **self._asdict(), "lists": lists, "target": list(self.target), "ranks": dict(self.ranks),
            "history": [list(one) for one in self.history],
        }  # fmt: skip

    def is_new(self, item: Labelled) -> bool:
        """Whether the brand of an item is known, and not in the history."""
        return bool(item.brand) and item.brand not in {one.brand for one in self.history}


def shared_words(text: str, other: str) -> list[str]:
    """Words of four letters or more that two texts have in common, in the order of the first."""
    known = set(_words(other))
    return [word for word in dict.fromkeys(_words(text)) if word in known]


def _words(text: str) -> list[str]:
    return [word for part in text.lower().split() if len(word := part.strip(".,;:()[]\"'!?&-")) > 3]


def cases_part(kept: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> Part:
    """Figure 8 with its claim.

    Args:
        kept: data set, backbone, sizes of the cells and users; see `as_plain`.
        missing: data set -> why there are none.
    """
    findings, words, tables, texts = [], [], [], []
    for plain in kept:
        about = f"{plain['dataset']}, {plain['backbone']}"
        shown = [Shown.from_plain(each) for each in plain["users"]]
        paper = [one for one in shown if one.user_id == PAPER_USER.get(plain["dataset"])]
        findings += [
            judged(_CLAIM, about, _told(one), _holds(one), "both are so in the first ten, or they are not")
            for one in paper
        ]
        if not paper:
            findings.append(not_testable(_CLAIM, about, "the paper's user is not in these data"))
        tables.append(_sizes(about, plain["cells"]))
        texts += [table for one in shown for table in _of_user(one)]
        words.append(
            f"{about}: users are put into cells by the rank of their test item in reland against id with one "
            f"training seed, and {OF_CELL} is drawn uniformly from each. Brands that a user never had are "
            "marked with *, the target with >."
        )
    findings += [not_testable(_CLAIM, name, why) for name, why in missing.items()]
    return Part("figure8", TITLE, findings, words, tables, (), texts)


def as_plain(dataset: str, backbone: str, cells: Sequence[Cell], shown: Sequence[Shown]) -> dict[str, Any]:
    """What is kept of the cases of a backbone; it has titles and texts of the data."""
    return {
        "cases": len(shown), "dataset": dataset, "backbone": backbone,
        "cells": [[cell.outcome, cell.source, len(cell.users)] for cell in cells],
        "users": [one.to_plain() for one in shown],
    }  # fmt: skip


def _holds(one: Shown) -> bool:
    """As the paper has it: the target is listed by `reland` alone, and its brand is new to the user."""
    listed = {name: rank <= _LISTED for name, rank in one.ranks.items()}
    return listed[RELAND.name] and not listed[ID.name] and one.is_new(one.target)


def _told(one: Shown) -> str:
    ranks = ", ".join(f"{name} {rank:,}" for name, rank in one.ranks.items())
    brand = f"its brand {one.target.brand!r} is {'new' if one.is_new(one.target) else 'not new'} to the user"
    return f"rank of the target: {ranks}; {brand if one.target.brand else 'its brand is not known'}"


def _sizes(about: str, cells: Sequence[Sequence[Any]]) -> Table:
    total = sum(size for *_, size in cells)
    rows = [
        (outcome, source, f"{size:,}", f"{size / max(total, 1):.1%}") for outcome, source, size in cells
    ]
    caption = f"{about}. How many users are in each cell."
    return Table(caption, ("rank of the target", "rationale", "users", "share"), rows)


def _of_user(one: Shown) -> list[Table]:
    source = "own" if one.own else f"borrowed from {one.seed_user}, cosine {one.cosine:.3f}"
    history = "; ".join(_marked(one, item) for item in one.history[-_LISTED:])
    said = [
        ("last items", history), ("target", _marked(one, one.target)), ("rationale", source),
        ("step 1", one.step1), ("step 2", one.step2),
        ("words of step 2 in the target", ", ".join(shared_words(one.step2, one.target.title)) or "none"),
        ("rank of the target", ", ".join(f"{name} {rank:,}" for name, rank in one.ranks.items())),
    ]  # fmt: skip
    names = list(one.lists)
    longest = max((len(items) for items in one.lists.values()), default=0)
    rows = [
        (str(place + 1), *(_at(one, items, place) for items in one.lists.values()))
        for place in range(longest)
    ]
    return [
        Table(f"User {one.user_id}: {one.why}.", ("what", "text"), said),
        Table(f"User {one.user_id}: what each variant recommends.", ("place", *names), rows),
    ]


def _at(one: Shown, items: Sequence[Labelled], place: int) -> str:
    return _marked(one, items[place]) if place < len(items) else ""


def _marked(one: Shown, item: Labelled) -> str:
    brand = f" [{item.brand}{'*' if one.is_new(item) else ''}]" if item.brand else ""
    return f"{'> ' if item == one.target else ''}{item.title}{brand}"
