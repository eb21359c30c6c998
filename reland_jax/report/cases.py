"""The content of a report, from the artefacts and results of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reland_jax.config import Config
from reland_jax.data import report_lines
from reland_jax.plain import text_columns
from reland_jax.report.content import Case, GivenRationale, ItemLabel, ReportContent
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
            _case(config, inputs, label, user, {variant: found[row] for variant, found in lists.items()})
            for row, user in enumerate(users.tolist())
        ],
        problems=inputs.built.problems,
        data=() if inputs.interactions.report is None else report_lines(inputs.interactions.report),
    )


def _case(config: Config, inputs: Inputs, label: Labels, user: int, found: Mapping[str, np.ndarray]) -> Case:
    splits = inputs.splits
    targets = list(dict.fromkeys(splits.test.row(user).tolist()))
    history = [*splits.train.row(user).tolist(), *splits.valid.row(user).tolist()]
    had, valid = {*history}, len(splits.valid.row(user))
    return Case(
        user_id=str(inputs.interactions.ids.users[user]),
        history=label.all(history),
        held_for_validation=valid,
        was_read=_was_read(config, len(history), valid),
        rationales=_given(inputs, user),
        recommendations={
            variant: label.all(items[items != PADDING_ITEM]) for variant, items in found.items()
        },
        targets=label.all(targets),
        had_before=[one.item_id for one in label.all([item for item in targets if item in had])],
    )


def _given(inputs: Inputs, user: int) -> list[GivenRationale]:
    """The rationales of a user's seed users, nearest first."""
    pool, ids = inputs.built.pool, inputs.interactions.ids.users
    nearest = zip(inputs.assignment.seed[user], inputs.assignment.cosine[user], strict=True)
    return [
        GivenRationale(
            str(ids[pool.seeds.user[row]]),
            float(cosine),
            pool.rationales[row].step1,
            pool.rationales[row].step2,
        )
        for row, cosine in nearest
    ]


def _was_read(config: Config, items: int, valid: int) -> str:
    """What of a user's items the model read for its test lists; see `train.tasks` and `train.linear`."""
    if config.train.objective == "bpr":
        return (
            f"The user's vector was trained on the first {items - valid} of these items. Those marked as "
            "validation were not read; the choice of the best epoch looked at them."
        )
    read = min(items, config.data.max_length) if config.train.objective in ("prefix", "shifted") else items
    which = f"all {items} items" if read == items else f"the last {read} of these {items} items"
    return f"For these lists the models read {which}, those marked as validation too."


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
        # Where tags stood there are several spaces.
        tidy = [" ".join(title.split()) for title in titles[0].tolist()] if titles else [""] * len(self.ids)
        self.titles = as_strings(tidy)

    def all(self, items: Sequence[int] | np.ndarray) -> list[ItemLabel]:
        """The labels of some items, in their order."""
        return [ItemLabel(str(self.ids[item]), str(self.titles[item])) for item in items]
