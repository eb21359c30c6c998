"""The evaluator on splits in which users take items again, in both families and on a mesh."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reland_jax.config import EvalConfig, MeshConfig
from reland_jax.mesh import use_mesh
from reland_jax.train import Evaluator
from reland_jax.train.state import init_state
from reland_jax.types import RelandError, Splits
from tests.toys import ragged
from tests.train.toys import PAIRS, slope_task, tiny_task

REPEATS = Splits(
    ragged([[1, 2, 1, 3], [4, 5], [6, 1, 6], [2, 3, 4]]),
    ragged([[1, 4], [5], [2], [5]]),
    ragged([[4, 5, 2, 5], [], [6, 2], [1]]),
    6,
    "ratio",
)
"""Users take some items again; one of them has no test item, one a test item twice."""


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, model=4)])
@pytest.mark.parametrize(("backbone", "objective"), [("lightgcn", "bpr"), ("gru4rec", "shifted")])
def test_an_item_had_before_is_ranked_in_both_families(
    backbone: str, objective: str, mesh: MeshConfig
) -> None:
    """Each target among what the user has not had and itself; a validation item is had by the test part."""
    config = dataclasses.replace(PAIRS, objective=objective)
    with use_mesh(mesh):
        task = tiny_task(backbone, REPEATS, config)
        evaluator = Evaluator(task, REPEATS, EvalConfig(mask_history=True))
        params = init_state(task, config).params
        for part in ("valid", "test"):
            found = evaluator.ranks(params, part)
            users, items, _ = task.vectors(params, part)
            scores = np.asarray(users)[:4] @ np.asarray(items)[:7].T
            pairs = list(zip(found.user.tolist(), found.item.tolist(), strict=True))
            assert pairs == {"valid": [(0, 1), (0, 4), (1, 5), (2, 2), (3, 5)],
                             "test": [(0, 4), (0, 5), (0, 2), (2, 6), (2, 2), (3, 1)]}[part]  # fmt: skip
            for (user, item), rank in zip(pairs, found.rank.tolist(), strict=True):
                had = {*REPEATS.train.row(user).tolist()}
                had |= {*REPEATS.valid.row(user).tolist()} if part == "test" else set()
                others = set(range(1, 7)) - had - {item}
                assert rank == sum(scores[user, other] >= scores[user, item] for other in others)
        metrics = evaluator.metrics(params, "test")
    assert metrics["hr@10"] == 1 and all(0 < value <= 1 for value in metrics.values())


def test_a_split_without_anything_to_rank_is_refused_before_training() -> None:
    splits = REPEATS._replace(test=ragged([[]] * 4))
    with pytest.raises(RelandError, match="none has a test item"):
        Evaluator(slope_task(), splits, EvalConfig())
