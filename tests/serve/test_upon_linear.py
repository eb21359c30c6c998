"""A backbone upon a linear model is served with the weights that its bundle has; nothing is solved again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.bundle import read_bundle
from reland_jax.config import ScoreConfig
from reland_jax.serve.api import Reland
from reland_jax.serve.listing import Batch, in_rows
from reland_jax.serve.programs import users_of
from reland_jax.serve.readers import everything
from reland_jax.train import upon_linear
from reland_jax.types import RelandError
from tests.serve.toys import model_of, toy_bundle
from tests.stages.toys import REPEATS
from tests.toys import quick_programs

SCORE = ScoreConfig(linear=5.0, added="ranking", votes=6, listed=6, recent=3)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="module", params=["sasrec", "lightgcn"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reland:
    """A model of sequences, and one of sets that reads its users by their histories."""
    bundle = toy_bundle(tmp_path_factory.mktemp("work"), request.param, "f_item", SCORE)
    return model_of(bundle._replace(by_histories=request.param == "lightgcn"))


def test_a_saved_model_solves_nothing(model: Reland, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save(tmp_path / "bundle")
    lists = model.recommend(k=6)

    def never(*given: Any) -> None:
        raise AssertionError("solved again")

    monkeypatch.setattr(upon_linear, "solve", never)
    again = Reland.load(tmp_path / "bundle")
    assert again.recommend(k=6).equals(lists)
    found = read_bundle(tmp_path / "bundle").linear
    wanted = model._fitted().linear
    assert found is not None and wanted is not None and found.nnz > 6
    np.testing.assert_array_equal(found.toarray(), wanted.toarray())


def test_the_linear_scores_of_today_are_those_of_the_whole_history(model: Reland) -> None:
    """Of a sequence the three newest items speak, of a set all of them; and of a new user likewise."""
    reader, weights = model._reader, model._fitted().linear
    assert weights is not None
    today, history = reader.today(), everything(REPEATS)
    vote = np.zeros((4, 7))
    for user in range(4):
        row = history.row(user)
        if model._fitted().by_histories:
            vote[user, row] = 1
        else:
            np.add.at(vote[user], row[::-1][:3], 0.5 ** np.arange(len(row[-3:])))
    scores = np.asarray(today.score(today.users, today.items))[:4, 1:7]
    plain = np.asarray(today.users)[:4]
    own = np.asarray(today.items)[1:7, 1:]
    expected = plain[:, -own.shape[1] :] @ own.T + 5.0 * (vote @ weights.toarray())[:, 1:7]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
    parts = reader.predictor(today).parts()
    new = users_of(parts.form, parts.known, in_rows(history, Batch(0, 4, 4), 8), None)
    again = np.asarray(today.score(new, today.items))[:, 1:7]
    np.testing.assert_allclose(again, scores, rtol=1e-3, atol=1e-4)


def test_likeness_is_that_of_the_backbone(model: Reland) -> None:
    """The numbers of items, which stand before their vectors, are no part of it."""
    rows = np.asarray(model._today.items)[1:7, 1:]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first = model.similar_items("i1", 5).to_pandas()
    np.testing.assert_allclose(first.score, np.sort(rows[1:] @ rows[0])[::-1], rtol=1e-4, atol=1e-5)
    with pytest.raises(RelandError, match="no product of a vector"):
        model.vectors()
