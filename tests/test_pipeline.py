"""The lines of the pipeline that join the stages: by what the encoder is judged, what M is, small worlds."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax import pipeline
from reland_jax.config import (
    Config,
    DataConfig,
    EncoderConfig,
    EvalConfig,
    RetrievalConfig,
    SeedsConfig,
    TrainConfig,
)
from reland_jax.pipeline import Pipeline, StagesDone
from reland_jax.storage import Seeding
from reland_jax.train import Evaluator, FitResult, Task
from reland_jax.types import Assignment, RelandError, Splits
from tests.toys import inputs_of, ragged
from tests.train.toys import SIZES

REPEATS = Splits(
    ragged([[1, 2, 3, 1], [2, 4, 5], [5, 1, 6, 2], [6, 3, 4]]),
    ragged([[2], [1], [5], [2]]),
    ragged([[1], [3], [3], [6]]),
    6,
    "leave_one_out",
)
"""Two validation items and three test items are items that their user has had before."""

ENCODER = TrainConfig(
    objective="shifted", learning_rate=0.05, batch_size=8, max_epochs=2, patience=9, steps_per_dispatch=2
)
Encoded = tuple[np.ndarray, Task, Evaluator, FitResult]


def settings(**sections: Any) -> Config:
    """Small models; the encoder is a sequential one, whose vectors depend on what they have read."""
    encoder = EncoderConfig(dataclasses.replace(SIZES, backbone="gru4rec"), ENCODER, text_weight=0.0)
    model = dataclasses.replace(SIZES, backbone="sasrec")
    train = dataclasses.replace(ENCODER, max_epochs=1)
    given = {"encoder": encoder, "model": model, "train": train} | sections
    return dataclasses.replace(Config(), **given)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """M of `REPEATS`, and what it was trained with; the config masks nothing."""
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        fit: Callable[..., FitResult] = pipeline.fit

        def watched(task: Task, evaluator: Evaluator, *rest: Any, **named: Any) -> FitResult:
            result = fit(task, evaluator, *rest, **named)
            seen.extend((task, evaluator, result))
            return result

        patch.setattr(pipeline, "fit", watched)
        config = settings(eval=EvalConfig(mask_history=False))
        stages = Pipeline(config, tmp_path_factory.mktemp("work"))
        behaviour = stages._encode_users(inputs_of(REPEATS).interactions, REPEATS)
    return behaviour, *seen


def validation_ranks(users: np.ndarray, items: np.ndarray, mask: bool) -> list[int]:
    """Rank of every validation item, by brute force; a masked history never holds the item itself."""
    ranks = []
    for user in range(REPEATS.num_users):
        target = int(REPEATS.valid.row(user)[0])
        out = set(REPEATS.train.row(user).tolist()) if mask else set()
        scores = items[:7] @ users[user]
        ranks.append(sum(scores[i] >= scores[target] for i in range(1, 7) if i not in out | {target}))
    return ranks


def test_the_encoder_is_judged_by_masked_rankings_that_find_repeats(encoded: Encoded) -> None:
    """Whatever the config masks: M must tell what users turn to next, not what they have had."""
    _, task, evaluator, result = encoded
    users, items, _ = map(np.asarray, task.vectors(result.params, "valid")[:2] + (0,))
    expected = validation_ranks(users, items, mask=True)
    assert expected != validation_ranks(users, items, mask=False)
    assert evaluator.ranks(result.params, "valid").rank.tolist() == expected
    places = np.array(expected) + 1
    found = [entry["ndcg@10"] for entry in result.history if entry["epoch"] == result.best_epoch]
    assert found == pytest.approx([np.mean(1 / np.log2(places + 1))])


def test_behaviour_vectors_have_read_the_training_items_alone(encoded: Encoded) -> None:
    behaviour, task, _, result = encoded
    valid, test = (np.asarray(task.vectors(result.params, part).users)[:4] for part in ("valid", "test"))
    np.testing.assert_array_equal(behaviour, valid)
    assert np.abs(valid - test).max() > 1e-3, "the validation item was read"


# --- small worlds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed_users", [(0,), (2, 0), (0, 1, 2, 3)])
def test_a_user_is_given_as_many_rationales_as_there_are(seed_users: tuple[int, ...], tmp_path: Path) -> None:
    stages = Pipeline(settings(retrieval=RetrievalConfig(neighbours=3)), tmp_path)
    inputs = inputs_of(REPEATS, seed_users)
    task = stages.task(inputs, "reland")
    each = min(3, len(seed_users))
    assert task.model.rationales == each and (task.tables.cosine is None) == (each == 1)
    assert task.tables.seed.shape == (4, len(seed_users))


@pytest.mark.parametrize(("neighbours", "expected"), [(3, 2), (2, 2), (1, 2)])
def test_seed_users_are_matched_as_far_as_there_are_any(
    neighbours: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Training draws among all of them; fewer than a user is to be given are told."""
    inputs = inputs_of(REPEATS, (3, 1))
    behaviour = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    seeds = inputs.built.pool.seeds
    seeding = Seeding(inputs.interactions, REPEATS, behaviour, seeds, inputs.clusters, "seeding")
    found: Assignment = pipeline._assign(
        seeding, inputs.built.pool, settings(retrieval=RetrievalConfig(neighbours=neighbours))
    )
    assert found.seed.shape == (4, expected) and found.seed[[3, 1], 0].tolist() == [0, 1]
    told = [record.getMessage() for record in caplog.records]
    warned = ["assign: config.retrieval.neighbours=3, and there are 2 seed users"]
    assert told == (warned if neighbours == 3 else [])


def demo(workdir: Path, stages: tuple[str, ...] = (), **sections: Any) -> Pipeline:
    """A pipeline on a demo of a few users."""
    data = DataConfig(demo_users=40, demo_items=30)
    return Pipeline(settings(data=data, seeds=SeedsConfig(fraction=0.2), **sections), workdir, stages)


def test_a_wrong_user_of_the_report_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="config.report_users: 'nobody' is none of the"):
        demo(tmp_path, report_users=("nobody",)).prepare()
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["load"]


def test_who_is_evaluated_is_told_before_anything_is_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reland_jax")
    with pytest.raises(StagesDone):
        demo(tmp_path, ("load", "split"), eval=EvalConfig(mask_history=True)).prepare()
    told = [record.getMessage() for record in caplog.records if "evaluation:" in record.getMessage()]
    assert "users by" in told[0] and "valid items" in told[0] and "test items" in told[0]
