"""The content of a report, from the artefacts and results of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reland_jax.config import Config
from reland_jax.data import report_lines
from reland_jax.plain import text_columns
from reland_jax.report.content import Case, ItemLabel, ReportContent
from reland_jax.results import RunResults
from reland_jax.storage import Inputs
from reland_jax.strings import as_strings
from reland_jax.types import PADDING_ITEM, Interactions

TITLE_FIELDS = ("title", "name")
LIST_LENGTH = 10
"""Recommendations that the report shows of a user and variant."""


def report_content(
    config: Config, inputs: Inputs, results: RunResults, users: np.ndarray, lists: Mapping[str, np.ndarray]
) -> ReportContent:
    """What the HTML page shows.

    Args:
        config: all settings.
        inputs: artefacts of the stages before training.
        results: what the run found.
        users: ``<int>[B]``, users shown in full.
        lists: variant -> ``<int32>[B, K]``, their recommendations, best first; see `eval.best_items`.
    """
    label = Labels(inputs.interactions)
    return ReportContent(
        results=results,
        config=config.to_keep(),
        masked=config.eval.mask_history,
        activity=inputs.splits.train.lengths(),
        seeds=inputs.built.pool.seeds,
        cluster_sizes=np.bincount(inputs.clusters[inputs.clusters >= 0]),
        assignment=inputs.assignment,
        cases=[
            _case(inputs, label, user, {variant: found[row] for variant, found in lists.items()})
            for row, user in enumerate(users.tolist())
        ],
        problems=inputs.built.problems,
        data=() if inputs.interactions.report is None else report_lines(inputs.interactions.report),
    )


def _case(inputs: Inputs, label: Labels, user: int, found: Mapping[str, np.ndarray]) -> Case:
    seed = int(inputs.assignment.seed[user, 0])
    pool, splits = inputs.built.pool, inputs.splits
    rationale, ids = pool.rationales[seed], inputs.interactions.ids.users
    targets = list(dict.fromkeys(splits.test.row(user).tolist()))
    had = {*splits.train.row(user).tolist(), *splits.valid.row(user).tolist()}
    return Case(
        user_id=str(ids[user]),
        history=label.all(splits.train.row(user)),
        seed_user_id=str(ids[pool.seeds.user[seed]]),
        cosine=float(inputs.assignment.cosine[user, 0]),
        step1=rationale.step1,
        step2=rationale.step2,
        recommendations={
            variant: label.all(items[items != PADDING_ITEM]) for variant, items in found.items()
        },
        targets=label.all(targets),
        had_before=[one.item_id for one in label.all([item for item in targets if item in had])],
    )


class Labels:
    """Titles and external ids of items.

    Attributes:
        ids: ``<str>[I + 1]``.
        titles: ``<str>[I + 1]``, "" where there is none.
    """

    def __init__(self, interactions: Interactions) -> None:
        """Finds the column with the titles, if there is one."""
        self.ids = interactions.ids.items
        titles = list(text_columns(interactions.item_features, TITLE_FIELDS).values())
        self.titles = titles[0] if titles else as_strings([""] * len(self.ids))

    def all(self, items: Sequence[int] | np.ndarray) -> list[ItemLabel]:
        """The labels of some items, in their order."""
        return [ItemLabel(str(self.ids[item]), str(self.titles[item])) for item in items]
