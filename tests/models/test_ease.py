"""EASE against NumPy's closed form, and what must be true of it whatever the data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import EaseConfig
from reland_jax.models.ease import Gram, _multiplied, _summed, age_weights, item_weights, score

USERS, ITEMS, TEXT = 90, 37, 5
RNG = np.random.default_rng(0)
HAD = (RNG.random((USERS, ITEMS)) < 0.15) * 1.0
TEXTS = RNG.normal(size=(ITEMS, TEXT))
RATIONALES = RNG.normal(size=(USERS, TEXT))


def gram_of(
    had: np.ndarray,
    texts: np.ndarray | None = None,
    rationales: np.ndarray | None = None,
    dtype: type = np.float64,
) -> Gram:
    """The normal equations, from dense arrays."""
    both = had.T @ had
    row, column = (index.astype(np.int32) for index in np.nonzero(both))
    gram = Gram(row, column, both[row, column].astype(dtype))
    if texts is not None:
        gram = gram._replace(text=texts.astype(dtype))
    if rationales is not None:
        crossed, own = had.T @ rationales, rationales.T @ rationales
        gram = gram._replace(crossed=crossed.astype(dtype), rationales=own.astype(dtype))
    return gram


def solved(gram: Gram, regularisation: float, block: int = 16) -> np.ndarray:
    """`item_weights` in the precision of its arrays."""
    with jax.enable_x64(True):
        return np.asarray(item_weights(gram, gram.users.dtype.type(regularisation), ITEMS, block))


def by_numpy(
    had: np.ndarray, regularisation: float, texts: np.ndarray | None = None, more: np.ndarray | None = None
) -> np.ndarray:
    """The closed form with NumPy's inverse."""
    whole = had if more is None else np.concatenate([had, more], 1)
    gram = whole.T @ whole + regularisation * np.eye(whole.shape[1])
    if texts is not None:
        gram[:ITEMS, :ITEMS] += texts @ texts.T
    inverse = np.linalg.inv(gram)
    weights = (np.eye(len(gram)) - inverse / np.diag(inverse))[:, :ITEMS]
    np.fill_diagonal(weights, 0.0)
    return weights


PARTS = pytest.mark.parametrize(
    ("texts", "rationales"), [(None, None), (TEXTS, None), (TEXTS, RATIONALES)], ids=["id", "texts", "all"]
)


@PARTS
@pytest.mark.parametrize("block", [5, 16, 64])
def test_equals_the_closed_form_of_numpy(
    texts: np.ndarray | None, rationales: np.ndarray | None, block: int
) -> None:
    """In float64 to 1e-10 and in float32 to 1e-5, also where the last block is short."""
    expected = by_numpy(HAD, 3.0, texts, rationales)
    for dtype, error in ((np.float64, 1e-10), (np.float32, 1e-5)):
        found = solved(gram_of(HAD, texts, rationales, dtype), 3.0, block)
        assert found.dtype == dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)


@PARTS
def test_an_item_does_not_predict_itself(texts: np.ndarray | None, rationales: np.ndarray | None) -> None:
    found = solved(gram_of(HAD, texts, rationales), 3.0)
    assert not np.diagonal(found).any() and np.abs(found).max() > 0.01


def test_each_column_is_the_ridge_regression_on_the_other_items() -> None:
    """What the closed form claims to minimise, solved for one item at a time."""
    found = solved(gram_of(HAD), 3.0)
    for item in (0, 20, ITEMS - 1):
        others = np.delete(HAD, item, axis=1)
        ridge = np.linalg.solve(others.T @ others + 3 * np.eye(ITEMS - 1), others.T @ HAD[:, item])
        np.testing.assert_allclose(np.delete(found[:, item], item), ridge, atol=1e-10)


def test_names_of_items_do_not_matter() -> None:
    order = RNG.permutation(ITEMS)
    found = solved(gram_of(HAD, TEXTS), 3.0)
    renamed = solved(gram_of(HAD[:, order], TEXTS[order]), 3.0)
    np.testing.assert_allclose(renamed, found[np.ix_(order, order)], atol=1e-12)


def test_weights_by_age_by_hand() -> None:
    weights = age_weights(EaseConfig(half_life=2.0), recency=True, rationales=2, length=5)
    np.testing.assert_allclose(weights, [0.5, 0.5, 1, 2**-0.5, 0.5, 2**-1.5, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(age_weights(EaseConfig(), recency=False, rationales=0, length=3), [1, 1, 1])


def test_scores_are_sums_of_rows() -> None:
    """For all items, for some, and for each user's own; added up or multiplied."""
    table = RNG.normal(size=(12, 9)).astype(np.float32)
    table[0] = 0
    lists = np.array([[3, 0, 11, 2], [0, 0, 0, 0], [5, 1, 0, 0]])
    weight = np.array([1, 0.5, 0.25, 0.125], np.float32)
    expected = sum(weight[e] * table[lists[:, e]] for e in range(4))
    users, columns = jnp.asarray(lists, jnp.float32), np.arange(9, dtype=np.float32)[:, None]
    some = np.array([7, 0, 3])
    own = np.array([[1, 2], [3, 4], [8, 8]])
    for name, chosen in (("all", columns), ("some", columns[some])):
        wanted = expected if name == "all" else expected[:, some]
        np.testing.assert_allclose(jax.jit(score)(weight, table, users, chosen), wanted, atol=1e-6)
        numbers = jnp.asarray(chosen[:, 0], jnp.int32)
        for way in (_summed, _multiplied):
            found = jax.jit(way)(weight, jnp.asarray(table), jnp.asarray(lists), numbers)
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    found = score(weight, jnp.asarray(table), users, jnp.asarray(own, jnp.float32)[..., None])
    np.testing.assert_allclose(found, np.take_along_axis(expected, own, 1), atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(platform: str) -> None:
    """Without a device of that kind: float64 for GPUs, float32 for TPUs, and the score for both."""
    gram = gram_of(HAD, TEXTS, RATIONALES, np.float64 if platform == "cuda" else np.float32)
    with jax.enable_x64(True):
        one = gram.users.dtype.type(1)
        lowered = item_weights.trace(gram, one, ITEMS, 16).lower(lowering_platforms=(platform,))
    assert lowered.out_info.shape == (ITEMS + TEXT, ITEMS)
    sizes = ((4,), (50, ITEMS + 1), (8, 4), (ITEMS + 1, 1))
    shapes = (jax.ShapeDtypeStruct(size, np.float32) for size in sizes)
    scored = jax.jit(score).trace(*shapes).lower(lowering_platforms=(platform,))
    assert "dot_general" in scored.as_text() and "while" not in scored.as_text()
