"""The behaviour encoder: by what it is judged, and what its vectors have read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import EvalConfig, ScoreConfig
from reland_jax.stages import ENCODE_USERS, LOAD, SPLIT, behaviour
from reland_jax.train import Evaluator, FitResult, Task
from tests.stages.toys import REPEATS, made_of, settings
from tests.toys import inputs_of

Encoded = tuple[np.ndarray, Task, Evaluator, FitResult]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """M of `REPEATS`, and what it was trained with; the config masks nothing."""
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        fit: Callable[..., FitResult] = behaviour.fit

        def watched(task: Task, evaluator: Evaluator, *rest: Any, **named: Any) -> FitResult:
            result = fit(task, evaluator, *rest, **named)
            seen.extend((task, evaluator, result))
            return result

        patch.setattr(behaviour, "fit", watched)
        config = settings(eval=EvalConfig(mask_history=False))
        values = {LOAD: inputs_of(REPEATS).interactions, SPLIT: REPEATS}
        vectors = made_of(config, tmp_path_factory.mktemp("work"), values).compute(ENCODE_USERS)
    return vectors, *seen


def test_the_encoder_has_nothing_of_what_is_added_to_the_scores_of_the_recommender(
    encoded: Encoded, tmp_path: Path
) -> None:
    score = ScoreConfig(linear=3.0, added="ranking")
    config = settings(eval=EvalConfig(mask_history=False), score=score)
    values = {LOAD: inputs_of(REPEATS).interactions, SPLIT: REPEATS}
    np.testing.assert_array_equal(made_of(config, tmp_path, values).compute(ENCODE_USERS), encoded[0])


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
