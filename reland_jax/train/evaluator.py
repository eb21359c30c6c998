"""When a training ends: by the full ranking of what is held out, or after a number of epochs."""

from __future__ import annotations

from typing import Any, NamedTuple

from reland_jax.config import EvalConfig
from reland_jax.eval import Vectors, check_targets, mean_metrics, per_user_metrics, plan_ranking, rank_targets
from reland_jax.train.closed_form import ClosedForm
from reland_jax.train.tasks import Task
from reland_jax.types import PARTS, Splits, TargetRanks


class Evaluator:
    """Ranks the held-out targets of a split for any parameters of a task."""

    def __init__(self, task: Task | ClosedForm, splits: Splits, config: EvalConfig) -> None:
        """Plans the full ranking of both parts of the split.

        Raises:
            RelandError: a part of the split holds no item of anyone.
        """
        check_targets(splits)
        self._task, self._cutoffs = task, config.cutoffs
        masked = {"valid": splits.train, "test": splits.train.joined(splits.valid)}
        self._plans = {
            part: plan_ranking(
                getattr(splits, part),
                masked[part] if config.mask_history else None,
                splits.num_items,
                config.tile_bytes,
                splits.train,
            )
            for part in PARTS
        }

    @property
    def users_per_tile(self) -> int:
        """Users ranked at a time."""
        return self._plans["test"].users_at_a_time

    def ranks(self, params: Any, part: str, cutoff: int | None = None) -> TargetRanks:
        """Ranks of the distinct targets of `part`, "valid" or "test"; exact below the cutoff, None for all.

        A target in a masked history is ranked as if it alone were not masked.
        """
        return self.rank(part, self._task.vectors(params, part), cutoff)

    def rank(self, part: str, vectors: Vectors, cutoff: int | None = None) -> TargetRanks:
        """The same where the vectors of this part are at hand."""
        return rank_targets(self._plans[part], vectors, cutoff)

    def metrics(self, params: Any, part: str) -> dict[str, float]:
        """Mean HR, NDCG and MRR at every cutoff."""
        return mean_metrics(per_user_metrics(self.ranks(params, part, max(self._cutoffs)), self._cutoffs))


class FixedEpochs(NamedTuple):
    """In the place of an `Evaluator`: so many epochs are trained, nothing is validated, the last one counts.

    Attributes:
        epochs: from 1 to `max_epochs`, which the schedule of the step size goes on to refer to.
    """

    epochs: int
