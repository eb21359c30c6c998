"""The table of engines and the recall measure."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import ENGINES, recall_at_k, search
from reland_jax.types import RelandError


def test_search_uses_the_engine_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    index, cosine = search(np.eye(3), np.eye(3)[::-1], 1, RetrievalConfig(engine="exact", neighbours=3))
    np.testing.assert_array_equal(index, [[2], [1], [0]])
    np.testing.assert_allclose(cosine, 1.0)
    answer = (np.array([[7]]), np.array([[0.5]]))
    monkeypatch.setitem(ENGINES, "scann", lambda queries, keys, k, tile: answer if tile == 5 else None)
    assert search(np.eye(3), np.eye(3), 1, RetrievalConfig(engine="scann", tile=5)) is answer


def test_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(RelandError, match=r"engine='scan' is not known; did you mean 'scann'\?"):
        search(np.eye(3), np.eye(3), 1, RetrievalConfig(engine="scan"))


def test_recall_by_hand() -> None:
    exact = np.array([[0, 1, 2], [3, 4, 5]])
    assert recall_at_k(exact[:, ::-1], exact) == 1.0
    assert recall_at_k(np.array([[2, 9, 8], [4, 3, 0]]), exact) == pytest.approx(3 / 6)
    assert recall_at_k(np.array([[6, 7, 8], [0, 1, 2]]), exact) == 0.0


def test_recall_of_different_shapes_is_an_error() -> None:
    with pytest.raises(RelandError, match=r"found \(2, 1\) and exact \(2, 3\)"):
        recall_at_k(np.zeros((2, 1)), np.zeros((2, 3)))
