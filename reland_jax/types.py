"""The contracts between the stages: what each one hands to the next.

Axis letters mean the same everywhere in the project:

    B batch     U users     I items      S seed users     L sequence
    D model     T text      K list       E edges          W packed row width

Between stages travel dense integer ids only: users are ``0 .. U-1``, items are ``1 .. I`` and item
``0`` is padding. External ids (the strings in the raw files) live in `IdMap` and are used at the
edges: `reland_jax.data.sources`, the stored reasoning pool and the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    import jax

Array = TypeVar("Array", np.ndarray, "jax.Array")
"""An array of the host, or of a device."""

PADDING_ITEM = 0

REPRESENTATIVE = 0
IMPORTANT = 1
HOW_NAMES = ("representative", "important")
"""Names of the values of `SeedSet.how`: which of the two samplings chose a seed user."""


PARTS = ("valid", "test")
"""The held-out parts of a split, as artefacts and results call them."""

NDCG, HR, MRR = "ndcg@10", "hr@10", "mrr@10"
COMPARED = (NDCG, HR)
"""Metrics of the paper's Table 2; early stopping looks at the first."""


class RelandError(ValueError):
    """An error for people: what is wrong, where (file, line, field, value), and what to do."""


class IdMap(NamedTuple):
    """External ids of users and items, by dense id.

    Attributes:
        users: ``<str>[U]``, ``users[u]`` is the external id of user ``u``.
        items: ``<str>[I + 1]``, ``items[i]`` is the external id of item ``i``; ``items[0]`` is "".
    """

    users: np.ndarray
    items: np.ndarray


class Ragged(NamedTuple):
    """Lists of different lengths in two flat arrays (the layout of a CSR matrix).

    Attributes:
        indptr: ``<int64>[U + 1]``; row ``u`` is ``items[indptr[u]:indptr[u + 1]]``.
        items: ``<int32>[n]``, item ids of all rows one after the other.
    """

    indptr: np.ndarray
    items: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of rows, ``U``."""
        return len(self.indptr) - 1

    def lengths(self) -> np.ndarray:
        """Length of every row, ``<int64>[U]``."""
        return np.diff(self.indptr)

    def row(self, index: int) -> np.ndarray:
        """Items of one row, ``<int32>[length]`` (a view)."""
        return self.items[self.indptr[index] : self.indptr[index + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        """Some rows ``<int64>[m]``, in the order that is asked for."""
        lengths = self.lengths()[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        place = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - self.indptr[rows], lengths)
        return Ragged(indptr, self.items[place])

    def joined(self, second: Ragged) -> Ragged:
        """Every row followed by the row of `second` of the same number."""
        indptr = self.indptr + second.indptr
        items = np.empty(int(indptr[-1]), np.int32)
        into_first = np.arange(len(self.items)) + np.repeat(second.indptr[:-1], self.lengths())
        into_second = np.arange(len(second.items)) + np.repeat(self.indptr[1:], second.lengths())
        items[into_first], items[into_second] = self.items, second.items
        return Ragged(indptr, items)


class LoadReport(NamedTuple):
    """What was read, what was taken away, and what is left: the accounting of a data set.

    Attributes:
        where: the file, folder or generator.
        rows: rows read.
        dropped: why rows were taken away, in words, and how many, in the order of the filters.
        left: interactions left.
        columns: what the columns in use are called, by what they are ("user", "item", "time", "rating").
        time_unit: such as "seconds"; "" where it is not known, or there are no times.
        first_time: the earliest time read, for people.
        last_time: the latest.
        ties: rows whose user has another row at the same time, so that the order of the file decides.
        repeats: rows whose user has had the item before.
        users_read: users before the filters.
        items_read: items before the filters.
        users: users left.
        items: items left.
        text_fields: columns that describe the items.
        items_with_text: items of which one of them says something.
        matched_items: items that the table of items has a row for; None where there is no such table.
        evaluated_users: users with a test item.
        notes: further remarks for the account of the loading.
    """

    where: str
    rows: int
    dropped: tuple[tuple[str, int], ...]
    left: int
    columns: Mapping[str, str]
    time_unit: str
    first_time: str
    last_time: str
    ties: int
    repeats: int
    users_read: int
    items_read: int
    users: int
    items: int
    text_fields: tuple[str, ...]
    items_with_text: int
    matched_items: int | None
    evaluated_users: int
    notes: tuple[str, ...]


class Interactions(NamedTuple):
    """Every observed (user, item, time), after filtering, with dense ids.

    Rows are sorted by user, then time, then their order in the raw file.

    Attributes:
        user: ``<int32>[n]`` in ``0 .. U-1``.
        item: ``<int32>[n]`` in ``1 .. I``.
        time: ``<float64>[n]``; only its order within a user is ever used. Rows are sorted by the exact times
            of the raw data, of which two may be one float64.
        ids: external ids.
        item_features: field name -> ``<str>[I + 1]`` (row 0 is ""); "" where a value is missing.
        user_features: field name -> ``<str>[U]``; "" where a value is missing.
        fixed_split: ``<int8>[n]`` with 0 train, 1 valid, 2 test where the raw data fixes the split,
            else None.
        report: what was done to get them, or None where nobody kept account.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    ids: IdMap
    item_features: Mapping[str, np.ndarray]
    user_features: Mapping[str, np.ndarray]
    fixed_split: np.ndarray | None = None
    report: LoadReport | None = None

    @property
    def num_users(self) -> int:
        """``U``."""
        return len(self.ids.users)

    @property
    def num_items(self) -> int:
        """``I``, without the padding item."""
        return len(self.ids.items) - 1


class Splits(NamedTuple):
    """Training interactions and held-out targets of every user, each chronological.

    Only `train` may be seen by the behaviour encoder, K-means, prompts and retrieval
    (docs/method.md, "Leakage"). A user without a target in a split has an empty row there.

    Attributes:
        train: ``U`` rows.
        valid: ``U`` rows of validation targets.
        test: ``U`` rows of test targets.
        num_items: ``I``.
        protocol: "leave_one_out", "ratio" or "fixed"; or `data.NOTHING_HELD_OUT` or `data.REFRESHED`.
    """

    train: Ragged
    valid: Ragged
    test: Ragged
    num_items: int
    protocol: str

    @property
    def num_users(self) -> int:
        """``U``."""
        return self.train.num_rows


class SeedSet(NamedTuple):
    """The seed users and how each was chosen (paper, section 3.1.1).

    Attributes:
        user: ``<int32>[S]``, distinct, in the order in which they were chosen.
        cluster: ``<int32>[S]``, the K-means cluster of each.
        how: ``<int8>[S]``, `REPRESENTATIVE` or `IMPORTANT`.
    """

    user: np.ndarray
    cluster: np.ndarray
    how: np.ndarray

    def rows(self, rows: np.ndarray | Sequence[int]) -> SeedSet:
        """Some of the seed users, by their places ``<int64>[n]``."""
        index = np.asarray(rows, np.int64)
        return SeedSet(self.user[index], self.cluster[index], self.how[index])


class Rationale(NamedTuple):
    """What was written about one seed user (paper, section 3.1.2).

    Attributes:
        step1: one sentence on the user's preferences; shown to people as the explanation.
        step2: recommended categories and items; this text is what gets encoded.
        response: the raw answer both were parsed from.
        prompt_hash: hexadecimal SHA-256 of the prompt, "" where the prompt is not known.
        model: who wrote it; "heuristic" for the offline writer, which is not an LLM.
        prompt_tokens: tokens read, 0 where not known.
        response_tokens: tokens written, 0 where not known.
        created: ISO-8601 time in UTC, "" where not known.
    """

    step1: str
    step2: str
    response: str
    prompt_hash: str = ""
    model: str = ""
    prompt_tokens: int = 0
    response_tokens: int = 0
    created: str = ""


class ReasoningPool(NamedTuple):
    """The LLM Reasoning Pool P = {(m_s, r_s)} (paper, section 3.1.2), one row per seed user.

    Attributes:
        seeds: the seed users that have a rationale; its arrays are aligned with `rationales`.
        behaviour: ``<float32>[S, D]``, the behaviour representation m_s of every seed user.
        rationales: ``S`` rationales.
    """

    seeds: SeedSet
    behaviour: np.ndarray
    rationales: Sequence[Rationale]


class Assignment(NamedTuple):
    """Every user's most similar seed users, nearest first (paper, Eq. 3).

    Attributes:
        seed: ``<int32>[U, k]``, row numbers of the pool (not user ids). A seed user's first is itself.
        cosine: ``<float32>[U, k]`` in [-1, 1], not increasing along a row.
    """

    seed: np.ndarray
    cosine: np.ndarray


class TargetRanks(NamedTuple):
    """Full-ranking rank of every held-out target.

    Attributes:
        user: ``<int32>[n]``, sorted; a user with several targets has several rows.
        item: ``<int32>[n]``, the target.
        rank: ``<int32>[n]``, 0 is the top of the list. Ties lose: the rank is the number of other
            items that score at least as high, so a constant score cannot look like a good one. If a
            cutoff was given, ranks at or above it are only guaranteed to be >= cutoff.
        had_before: ``<bool>[n]``, targets of a masked history, each ranked as if it alone were not masked;
            None where there are none. Two of them do not compete with each other.
    """

    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    had_before: np.ndarray | None = None
