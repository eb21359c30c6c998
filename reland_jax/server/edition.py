"""A loaded bundle as the server asks it: numbers of users and items, questions in batches, plain answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.bundle import MANIFEST_FILE, read_manifest
from reland_jax.files import checksum
from reland_jax.serve import BATCH_SIZES, Explanation, Ranked, Reland
from reland_jax.server.limits import Limits
from reland_jax.server.refusals import Refusal
from reland_jax.types import PADDING_ITEM, Ragged, Rationale, RelandError

SHORT_LIST = 10
"""Lists of up to so many items have programs of their own; the others are as long as allowed."""
_RARE = BATCH_SIZES[1]
"""Batches of rare questions, of long lists or histories, are of this size: fewer programs to compile."""
_FILTERS = 64
"""Filters whose items are kept, so that they are looked for once."""

Filter = tuple[tuple[str, tuple[str, ...]], ...]
"""Fields with the values that an item may have."""


class Reader(NamedTuple):
    """Whose list is asked for.

    Attributes:
        row: of a user; None for a new one.
        history: numbers of the items that a new user had, oldest first.
        unknown: ids of the request that are no item's.
    """

    row: int | None
    history: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()


class Kind(NamedTuple):
    """Questions that are answered by one program.

    Attributes:
        known: of users of the data, or of new ones.
        long_list: whether the list has more than `SHORT_LIST` items.
        long_history: whether a history is longer than those of the data.
        exclude_seen: whether what a user had is left out.
        filter: which items lists are made of.
    """

    known: bool
    long_list: bool
    long_history: bool
    exclude_seen: bool
    filter: Filter

    @property
    def is_rare(self) -> bool:
        """Whether it is answered by the programs of `_RARE` questions."""
        return self.long_list or self.long_history


class Listed(NamedTuple):
    """The answer to one question.

    Attributes:
        items: numbers, best first.
        scores: of the model.
        rationale: the nearest one; None where none are read.
        is_own: whether it was written from this user's own history.
    """

    items: list[int]
    scores: list[float]
    rationale: Rationale | None = None
    is_own: bool = False


class Edition:
    """One recommender of one bundle; another bundle of the same name is another edition.

    Attributes:
        name: of the recommender.
        version: tells this bundle from others.
        variant: name of the variant.
        backbone: name of the backbone.
        model: the recommender.
        item_ids: external ids; item n is at n - 1.
        titles: their titles; the id where there is none.
    """

    def __init__(self, name: str, folder: Path, limits: Limits) -> None:
        """Reads a bundle; `warm` compiles its programs.

        Raises:
            RelandError: there is none, or it is damaged.
        """
        folder = folder.resolve()  # a link may be pointed elsewhere meanwhile
        self.version, manifest = checksum(folder / MANIFEST_FILE)[:12], read_manifest(folder)
        self.name, self.variant, self.backbone = name, str(manifest["variant"]), str(manifest["backbone"])
        self.model, self._limits = Reland.load(folder), limits
        self.item_ids = self.model.item_ids
        titles = zip(self.item_ids, self.model.item_titles, strict=True)
        self.titles = [title or item for item, title in titles]
        self._user_ids = self.model.user_ids
        self._user = {user: row for row, user in enumerate(self._user_ids)}
        self._item = {item: number for number, item in enumerate(self.item_ids, 1)}
        both = zip(self.titles, self.item_ids, strict=True)
        self._searched = [f"{title}\n{item}".casefold() for title, item in both]
        # Nothing refers to the edition itself, so its arrays go with the last request that was asked of it.
        self._allowed = lru_cache(_FILTERS)(partial(_allowed_by, self.model))

    def warm(self) -> None:
        """Compiles the programs that questions within the limits need."""
        sizes = [size for size in BATCH_SIZES if size < self._limits.batch]
        sizes.append(next((size for size in BATCH_SIZES if size >= self._limits.batch), BATCH_SIZES[-1]))
        self.model.predictor.warm(sizes, self._count(SHORT_LIST))
        one = Reader(None, (1,))
        for kind in (
            Kind(True, True, False, True, ()), Kind(False, True, False, True, ()),
            Kind(False, True, True, True, ()),
        ):  # fmt: skip
            self.lists(kind, [Reader(0) if kind.known else one])
        self.model.explain(self.model.user_ids[0], 1)

    def reader(self, user: str | None, items: Sequence[str] | None) -> Reader:
        """The user, or the history, of a request.

        Raises:
            Refusal: the user is unknown, or all items are, or there are too many of them.
        """
        if user is not None:
            if user not in self._user:
                raise Refusal(404, "this user is not known", "user", "check the id, or give items instead")
            return Reader(self._user[user])
        items = items or ()
        if len(items) > (most := self._limits.history):
            raise Refusal(422, f"more than {most} items", "items", f"give the newest {most}")
        numbers = [self._item.get(item) for item in items]
        known = tuple(number for number in numbers if number is not None)
        if not known:
            raise Refusal(404, "none of these items is known", "items", "look for ids of items at /items")
        unknown = (item for item, number in zip(items, numbers, strict=True) if number is None)
        return Reader(None, known, tuple(dict.fromkeys(unknown)))

    def numbers(self, items: Sequence[str]) -> list[int]:
        """Numbers of items.

        Raises:
            Refusal: one is unknown.
        """
        for place, item in enumerate(items):
            if item not in self._item:
                raise Refusal(404, "this item is not known", f"items[{place}]", "look for ids at /items")
        return [self._item[item] for item in items]

    def kind(self, reader: Reader, k: int, exclude_seen: bool, wanted: Filter) -> Kind:
        """The kind of a question."""
        long_history = len(reader.history) > self.model.predictor.history
        return Kind(reader.row is not None, k > SHORT_LIST, long_history, exclude_seen, wanted)

    def lists(self, kind: Kind, readers: Sequence[Reader]) -> list[Listed]:
        """Lists of several users or histories of one kind.

        Raises:
            Refusal: the filter names no field of the items, or leaves nothing.
        """
        try:
            allowed = self._allowed(kind.filter) if kind.filter else None
        except RelandError as error:
            raise Refusal(422, str(error), "filter", "name fields and values that items have") from error
        if not kind.is_rare:
            return self._lists(kind, readers, allowed, self._count(SHORT_LIST))
        # One more makes all batches of one size, and histories of one width.
        filling = (
            Reader(0) if kind.known else Reader(None, (1,) * (self._longest if kind.long_history else 1))
        )
        found, step = list[Listed](), _RARE - 1
        for begin in range(0, len(readers), step):
            some = readers[begin : begin + step]
            found += self._lists(kind, [*some, filling], allowed, self._count(self._limits.k))[:-1]
        return found

    def _lists(
        self, kind: Kind, readers: Sequence[Reader], allowed: np.ndarray | None, count: int
    ) -> list[Listed]:
        predictor = self.model.predictor
        if kind.known:
            rows = np.array([reader.row for reader in readers], np.int64)
            ranked = predictor.users(rows, count, exclude_seen=kind.exclude_seen, allowed=allowed)
            nearest = None if self.model.nearest is None else self.model.nearest[rows]
        else:
            ranked, matched = predictor.histories(
                _ragged(readers), count, exclude_seen=kind.exclude_seen, allowed=allowed
            )
            nearest = None if matched is None else matched.seed[:, 0]
        return self._listed(ranked, readers, nearest)

    def _listed(self, ranked: Ranked, readers: Sequence[Reader], nearest: np.ndarray | None) -> list[Listed]:
        used = (ranked.item != PADDING_ITEM).sum(axis=1).tolist()
        rows = zip(used, ranked.item.tolist(), ranked.score.tolist(), strict=True)
        listed = [Listed(items[:count], scores[:count]) for count, items, scores in rows]
        if nearest is None:
            return listed
        found = zip(listed, readers, self.model.rationales(nearest), strict=True)
        return [
            each._replace(rationale=said, is_own=seed == reader.row) for each, reader, (seed, said) in found
        ]

    @property
    def _longest(self) -> int:
        """The longest history that is taken, longer than those of the data."""
        return max(self._limits.history, self.model.predictor.history + 1)

    def explained(self, reader: Reader, k: int) -> Explanation:
        """Why one user's list is as it is."""
        count = self._count(SHORT_LIST if k <= SHORT_LIST else self._limits.k)
        if reader.row is not None:
            found = self.model.explain(self._user_ids[reader.row], count)
        else:
            history = [self.item_ids[number - 1] for number in reader.history]
            found = self.model.explain_history(history, count)
        return dataclasses.replace(found, items=found.items[:k])

    def similar(self, items: Sequence[str], k: int) -> list[dict[str, Any]]:
        """The items most like each of some: rank, similar, score, by the item's id."""
        return self.model.similar_items(items, k).to_pylist()

    def search(self, words: str, most: int) -> list[int]:
        """Numbers of items whose title or id has all words, the shortest titles first."""
        wanted = words.casefold().split()
        found = [row for row, text in enumerate(self._searched) if all(word in text for word in wanted)]
        return [row + 1 for row in sorted(found, key=lambda row: (len(self.titles[row]), row))[:most]]

    def _count(self, k: int) -> int:
        return min(k, len(self.item_ids))


def _allowed_by(model: Reland, wanted: Filter) -> np.ndarray | None:
    return model.allowed(filter={field: list(values) for field, values in wanted})


def _ragged(readers: Sequence[Reader]) -> Ragged:
    lengths = [len(reader.history) for reader in readers]
    items = [number for reader in readers for number in reader.history]
    return Ragged(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.array(items, np.int32))
