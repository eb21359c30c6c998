"""EASE with few predictors for each item, against NumPy's least squares in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from reland_jax.models.sparse_ease import SparseGram, SparseWeights, sparse_weights

USERS, ITEMS, TEXT, RIDGE = 90, 37, 5, 3.0
RNG = np.random.default_rng(0)
HAD = (RNG.random((USERS, ITEMS)) < np.linspace(0.0, 0.4, ITEMS)) * 1.0
VECTORS = RNG.normal(size=(ITEMS, TEXT))
BOTH = HAD.T @ HAD


def gram_of(vectors: np.ndarray, sign: np.ndarray, dtype: type = np.float64) -> SparseGram:
    column = np.nonzero(BOTH)[1].astype(np.int32)
    begin = np.cumsum([0, *np.count_nonzero(BOTH, axis=1), 0]).astype(np.int32)
    return SparseGram(begin, column, BOTH[BOTH > 0].astype(dtype), vectors.astype(dtype), sign.astype(dtype))


def solved(gram: SparseGram, neighbours: int, tile: int = 8) -> SparseWeights:
    """In two groups, of which tiles are filled up with items that do not exist."""
    lengths = np.diff(gram.begin)[:ITEMS]
    groups = [np.flatnonzero(lengths <= 20), np.flatnonzero(lengths > 20)]
    rows = tuple(
        np.pad(group, (0, -len(group) % tile), constant_values=ITEMS).reshape(-1, tile).astype(np.int32)
        for group in groups
    )
    assert any((group == ITEMS).any() for group in rows)
    with jax.enable_x64(True):
        found = sparse_weights(gram, rows, gram.users.dtype.type(RIDGE), (20, int(lengths.max())), neighbours)
        return jax.tree.map(np.asarray, found)


def dense(found: SparseWeights) -> np.ndarray:
    weights = np.zeros((ITEMS, ITEMS))
    weights[found.nearest[:ITEMS], np.arange(ITEMS)[:, None]] = found.weight[:ITEMS]
    return weights


NOTHING = np.zeros((ITEMS, 0)), np.zeros(0)
PARTS = pytest.mark.parametrize(("vectors", "sign"), [NOTHING, (VECTORS, np.ones(TEXT))], ids=["id", "texts"])


@PARTS
def test_equals_the_exact_form_where_nothing_is_cut(vectors: np.ndarray, sign: np.ndarray) -> None:
    inverse = np.linalg.inv(BOTH + (vectors * sign) @ vectors.T + RIDGE * np.eye(ITEMS))
    expected = np.eye(ITEMS) - inverse / np.diag(inverse)
    for dtype, error in ((np.float64, 1e-10), (np.float32, 1e-5)):
        found = solved(gram_of(vectors, sign, dtype), ITEMS - 1)
        assert found.weight.dtype == dtype and found.error < error
        np.testing.assert_allclose(dense(found), expected, rtol=0, atol=error)
        rest = vectors - expected.T @ vectors
        np.testing.assert_allclose(found.rest[:ITEMS], rest, rtol=0, atol=20 * error)


@PARTS
def test_an_item_is_the_ridge_regression_on_its_best_predictors(
    vectors: np.ndarray, sign: np.ndarray
) -> None:
    whole = BOTH + (vectors * sign) @ vectors.T
    together, gain = (matrix**2 / (np.diag(whole) + RIDGE) for matrix in (BOTH, whole))
    found = solved(gram_of(vectors, sign), 6)
    for item in range(12, ITEMS):  # the others have fewer predictors with users in common
        near = found.nearest[item]
        first, second = together[item].copy(), gain[item].copy()
        first[item] = second[item] = -1
        np.testing.assert_allclose(np.sort(first[near[:3]]), np.sort(first)[-3:], rtol=1e-6)
        second[near[:3]] = -1
        np.testing.assert_allclose(np.sort(second[near[3:]]), np.sort(second)[-3:], rtol=1e-6)
        ridge = np.linalg.solve(whole[np.ix_(near, near)] + RIDGE * np.eye(6), whole[near, item])
        np.testing.assert_allclose(found.weight[item], ridge, atol=1e-10)
    assert not found.weight[ITEMS].any()


def test_what_is_taken_away_is_a_predictor_of_all_items() -> None:
    """Columns of V with s = -1 stand for predictors that no item is without."""
    more = RNG.normal(size=(USERS, TEXT))
    inverse = np.linalg.inv(np.block([
        [BOTH + RIDGE * np.eye(ITEMS), HAD.T @ more],
        [more.T @ HAD, more.T @ more + RIDGE * np.eye(TEXT)],
    ]))  # fmt: skip
    expected = (-inverse / np.diag(inverse))[:, :ITEMS]
    factor = np.linalg.cholesky(more.T @ more + RIDGE * np.eye(TEXT))
    found = solved(gram_of(np.linalg.solve(factor, more.T @ HAD).T, -np.ones(TEXT)), ITEMS - 1)
    np.testing.assert_allclose(dense(found) + np.diag(np.diag(expected)), expected[:ITEMS], atol=1e-9)
    theirs = np.linalg.solve(factor.T, found.rest[:ITEMS].T)
    np.testing.assert_allclose(theirs, expected[ITEMS:], atol=1e-9)
