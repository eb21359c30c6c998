"""What a report is made from: plain values and arrays, with external ids and titles filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.pool import Problem
from reland_jax.results import RunResults
from reland_jax.types import Assignment, SeedSet


class ItemLabel(NamedTuple):
    """An item as people see it.

    Attributes:
        item_id: external id; two items may share a title, never an id.
        title: readable name; "" shows the id instead.
    """

    item_id: str
    title: str = ""


class GivenRationale(NamedTuple):
    """A rationale that a user is given.

    Attributes:
        seed_user_id: external id of the seed user from whose history it was written; the user's own id for a
            seed user.
        weight: cosine of the two users, in [-1, 1], which its share of the attention is multiplied by.
        step1: its first step, shown as the explanation.
        step2: its second step, the text that is encoded.
    """

    seed_user_id: str
    weight: float
    step1: str
    step2: str


class Case(NamedTuple):
    """One user's recommendations and what they rest on (paper, Fig. 8).

    Attributes:
        user_id: external id of the user.
        history: training items and then validation items, oldest first.
        held_for_validation: how many of the last ones are validation items.
        was_read: what of them the model read for the lists, in a sentence.
        rationales: of the matched seed users, nearest first.
        recommendations: variant -> items, best first; fewer than usual where no more are left for the user.
        targets: the held-out test items (one under leave-one-out), each once.
        had_before: ids of the targets that the user has had before.
    """

    user_id: str
    history: Sequence[ItemLabel]
    held_for_validation: int
    was_read: str
    rationales: Sequence[GivenRationale]
    recommendations: Mapping[str, Sequence[ItemLabel]]
    targets: Sequence[ItemLabel]
    had_before: Sequence[str] = ()


class ReportContent(NamedTuple):
    """Everything `write_report` shows.

    Attributes:
        results: what the run found.
        config: nested settings of the run, as `Config.to_keep` gives them.
        masked: whether the lists leave out what a user has had.
        activity: ``<int64>[U]``, number of training interactions of every user.
        seeds: the seed users of the pool, aligned with the rows that `assignment` names.
        cluster_sizes: ``<int64>[clusters]``, users in each K-means cluster; empty if not known.
        assignment: the seed users matched to every user.
        cases: users to show in full; may be empty.
        problems: of seed users left out or read with a remark; may be empty.
        data: labels and values of what was done to load the data; may be empty.
    """

    results: RunResults
    config: Mapping[str, object]
    masked: bool
    activity: np.ndarray
    seeds: SeedSet
    cluster_sizes: np.ndarray
    assignment: Assignment
    cases: Sequence[Case] = ()
    problems: Sequence[Problem] = ()
    data: Sequence[tuple[str, str]] = ()
