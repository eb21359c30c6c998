"""Assignment: as many seed users as both settings of neighbours need, and which of them is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reland_jax.config import Config, FusionConfig, RetrievalConfig
from reland_jax.stages import ASSIGN, BUILD_POOL, ENCODE_USERS, LOAD, SPLIT
from reland_jax.stages.assign import drawn_among, given
from reland_jax.types import Assignment, Splits
from tests.stages.toys import REPEATS, made_of, settings
from tests.toys import inputs_of, ragged


def assigned(
    config: Config, folder: Path, seed_users: tuple[int, ...] = (3, 1), splits: Splits = REPEATS
) -> Assignment:
    """The assignment of the four users to users 3 and 1, or to others."""
    inputs = inputs_of(splits, seed_users)
    behaviour = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    values = {LOAD: inputs.interactions, SPLIT: splits, ENCODE_USERS: behaviour, BUILD_POOL: inputs.built}
    return made_of(config, folder, values).compute(ASSIGN)


@pytest.mark.parametrize(("neighbours", "expected"), [(3, 2), (2, 2), (1, 2)])
def test_seed_users_are_matched_as_far_as_there_are_any(
    neighbours: int, expected: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training draws among all of them; fewer than a user is to be given are told."""
    found = assigned(settings(retrieval=RetrievalConfig(neighbours=neighbours)), tmp_path)
    assert found.seed.shape == (4, expected) and found.seed[[3, 1], 0].tolist() == [0, 1]
    told = [record.getMessage() for record in caplog.records]
    warned = ["assign: config.retrieval.neighbours=3 exceeds the 2 seed users"]
    assert told == (warned if neighbours == 3 else [])


def test_seed_users_without_training_items_are_passed_over_and_keep_their_row(tmp_path: Path) -> None:
    """A file may bring them; the others are known by their row in the pool."""
    splits = REPEATS._replace(train=ragged([[1, 2], [], [2, 4], [6, 3]]))
    found = assigned(settings(), tmp_path, (1, 3, 2), splits)
    assert found.seed[[3, 2], 0].tolist() == [1, 2] and set(found.seed.ravel().tolist()) == {1, 2}


@pytest.mark.parametrize(("each", "among"), [(1, 1), (1, 2), (2, 1), (9, 1), (1, 9)])
def test_what_is_given_and_what_is_drawn_among(each: int, among: int, tmp_path: Path) -> None:
    """And the settings that do not change the artefact do not change its stamp."""
    config = settings(retrieval=RetrievalConfig(neighbours=each), fusion=FusionConfig(neighbours=among))
    found = assigned(config, tmp_path)
    assert found.seed.shape[1] == min(max(each, among), 2)
    assert given(found, config).seed.shape[1] == min(each, 2)
    assert drawn_among(found, config).cosine.shape[1] == min(max(each, among), 2)
    exchanged = settings(retrieval=RetrievalConfig(neighbours=among), fusion=FusionConfig(neighbours=each))
    assert ASSIGN.settings(config) == ASSIGN.settings(exchanged)
