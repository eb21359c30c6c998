"""Numbers in, numbers out: lists for batches of users or histories, by programs that are compiled once.

This is what a server and a command call. Every program is of one of `BATCH_SIZES` users and of fixed widths,
so after `warm` nothing is compiled. The arrays never change, and calls may come from several threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np

from reland_jax.device import sizes
from reland_jax.eval import Vectors
from reland_jax.eval.lists import best
from reland_jax.serve.listing import BATCH_SIZES, Batch, Ranked, batches, in_rows, nothing, power_of_two
from reland_jax.serve.programs import Answer, Form, Known, answer
from reland_jax.serve.stablehlo import Parts
from reland_jax.types import Assignment, Ragged, RelandError

SHORTEST_LIST = 16
"""Lists are computed in lengths that are powers of two from this one on, and cut."""


class Predictor:
    """A loaded recommender for programs that ask for batches.

    Attributes:
        num_users: U.
        num_items: I.
        history: items of a history that are read: the newest L for sequential backbones, else as many as the
            longest history of the data has, in a power of two; a longer one is read whole too, and compiles
            a program of its own.
    """

    def __init__(self, form: Form, known: Known, today: Vectors, seen: Ragged, longest: int | None) -> None:
        """Nothing is compiled yet.

        Args:
            form: what programs are made for.
            known: arrays that new users are read with.
            today: all users and items.
            seen: all items of every user.
            longest: newest items of a history that the model reads; None takes all.
        """
        self._form, self._known, self._today, self._seen = form, known, today, seen
        self.num_users, self.num_items, self._longest = seen.num_rows, form.num_items, longest
        self._masked = power_of_two(int(seen.lengths().max(initial=1)))
        self.history = longest or self._masked
        self._all = np.arange(self.num_items + 1) > 0

    def warm(self, batch_sizes: Iterable[int] = BATCH_SIZES, k: int = 10) -> None:
        """Compiles the programs of some batch sizes, of `BATCH_SIZES`, for lists of up to k items.

        Raises:
            RelandError: another size, or k below 1.
        """
        for size in batch_sizes:
            if size not in BATCH_SIZES:
                raise RelandError(f"batch_sizes: {size} is not one of {', '.join(map(str, BATCH_SIZES))}")
            self.users(np.zeros(size, np.int64), k)
            one = Ragged(np.arange(size + 1), np.ones(size, np.int32))
            self.histories(one, k)

    def users(
        self,
        rows: np.ndarray,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: np.ndarray | None = None,
    ) -> Ranked:
        """The best items of trained users, as they are today.

        Args:
            rows: ``<int>[n]`` in 0 .. U-1; any number of them.
            k: length of a list; there are never more than I items in one.
            exclude_seen: leave out all that a user had.
            allowed: ``<bool>[I + 1]``, items that lists are made of; None takes all.

        Raises:
            RelandError: k below 1.
        """
        masked = self._seen.take(rows) if exclude_seen else nothing(len(rows))
        return self.ranked(self._today, rows, masked, k, allowed)

    def histories(
        self,
        histories: Ragged,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: np.ndarray | None = None,
    ) -> tuple[Ranked, Assignment | None]:
        """The best items of new users, and their seed users (rows of the pool), where there are any.

        Args:
            histories: items of n users in 1 .. I, oldest first; none of them is empty.
            k: see `users`, as the others.
            exclude_seen: leave out the history.
            allowed: see `users`.

        Raises:
            RelandError: k below 1.
        """
        longest = power_of_two(int(histories.lengths().max(initial=1)))
        width = self._longest or max(self.history, longest)
        masked, count = max(self._masked, longest), self._count(k)
        which, nobodys = self._allowed(allowed), nothing(histories.num_rows)
        found = list[Answer]()
        for batch in batches(histories.num_rows, self._largest(width)):
            history = in_rows(histories, batch, width)
            seen = in_rows(histories if exclude_seen else nobodys, batch, masked)
            got = answer(self._form, self._known, history, seen, which, count)
            found.append(jax.tree.map(partial(_used, batch), got))
        if not found:
            return Ranked(*_no_lists()), None
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        matched = None if whole.matched is None else Assignment(*whole.matched)
        return _cut(Ranked(whole.item, whole.score), k), matched

    def parts(self) -> Parts:
        """What is exported of it."""
        return Parts(self._form, self._known, self._today, self._seen, self.history)

    def ranked(
        self, vectors: Vectors, rows: np.ndarray, masked: Ragged, k: int, allowed: np.ndarray | None = None
    ) -> Ranked:
        """The best items of any users, by their vectors.

        Args:
            vectors: of users and all items.
            rows: ``<int>[n]``, rows of `vectors.users`.
            masked: n rows of items that are left out of each list.
            k: see `users`.
            allowed: see `users`.
        """
        count, which = self._count(k), self._allowed(allowed)
        width = max(self._masked, power_of_two(int(masked.lengths().max(initial=1))))
        found = []
        for batch in batches(len(rows), self._largest(1)):
            users = np.zeros(batch.size, np.int32)
            users[: batch.used] = rows[batch.begin : batch.begin + batch.used]
            got = best(vectors, users, in_rows(masked, batch, width), which, count, self.num_items)
            found.append([_used(batch, each) for each in got])
        parts = [np.concatenate(each) for each in zip(*found, strict=True)] if found else _no_lists()
        return _cut(Ranked(*parts), k)

    def _count(self, k: int) -> int:
        """Length of the lists that are computed for lists of k items."""
        if k < 1:
            raise RelandError(f"k={k}: a list has at least one item")
        return min(power_of_two(max(k, SHORTEST_LIST)), self.num_items)

    def _allowed(self, allowed: np.ndarray | None) -> np.ndarray:
        return self._all if allowed is None else allowed

    def _largest(self, width: int) -> int:
        """Users at a time: as many as fit into a tile of scores, with vectors of histories of a width."""
        of_history = width * max(self._known.items.shape[1], 1)
        return sizes().score_bytes // (4 * max(2 * (self.num_items + 1), of_history))


def _used(batch: Batch, rows: Any) -> np.ndarray:
    return np.asarray(rows)[: batch.used]


def _cut(ranked: Ranked, k: int) -> Ranked:
    return Ranked(ranked.item[:, :k], ranked.score[:, :k])


def _no_lists() -> list[np.ndarray]:
    return [np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32)]
