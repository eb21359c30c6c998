"""Users from their items: the predictors and the regression against loops in float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.retrieval import behaviour_of, distinct, fold_in, learn_fold_in, learn_matching
from reland_jax.retrieval.inductive import RIDGE
from reland_jax.seeds import add_texts
from reland_jax.types import RelandError
from tests.toys import ragged, random_ragged

NUM_ITEMS = 9
TRAIN = random_ragged([3, 1, 5, 2, 4, 6, 3, 2], NUM_ITEMS, seed=1)
REPEATED = ragged([[2, 5, 2], [7]])
IN_ROWS = jnp.array([[2, 5, 2, 0], [7, 0, 0, 0]])


def vectors(rows: int, width: int, seed: int) -> np.ndarray:
    """Random vectors."""
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def predictors(history: list[int], items: np.ndarray, count: np.ndarray) -> tuple[list[float], np.ndarray]:
    """What the regression reads of one user, item by item, and the second of its sums."""
    mean, convolved = np.zeros(items.shape[1]), np.zeros(items.shape[1])
    for item in history:
        mean += items[item] / len(history)
        convolved += items[item] / np.sqrt(len(history) * max(count[item], 1))
    return [*mean, *convolved, 1.0], convolved


def regression(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ridge regression by the normal equations."""
    gram = np.zeros((x.shape[1], x.shape[1]))
    for row in x:
        gram += np.outer(row, row)
    own = [gram[place, place] for place in range(len(gram))]
    for place in range(len(gram)):
        gram[place, place] += RIDGE * (own[place] + 1e-6 * np.mean(own))
    return np.linalg.inv(gram) @ (x.T @ y)


def test_new_users_are_what_the_regression_says() -> None:
    """An item that stands twice counts twice."""
    items, users = vectors(NUM_ITEMS + 1, 3, 0), vectors(TRAIN.num_rows, 4, 1)
    learned = learn_fold_in(users, TRAIN, items)
    count, wide = np.bincount(TRAIN.items, minlength=NUM_ITEMS + 1), items.astype(np.float64)
    x = [predictors(TRAIN.row(u).tolist(), wide, count)[0] for u in range(TRAIN.num_rows)]
    weights = regression(np.array(x, np.float64), users.astype(np.float64))
    new = [predictors(REPEATED.row(u).tolist(), wide, count) for u in range(2)]
    found, convolved = fold_in(learned, IN_ROWS)
    np.testing.assert_allclose(found, np.array([x for x, _ in new]) @ weights, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(convolved, [each for _, each in new], rtol=1e-5, atol=1e-6)


def test_a_user_is_left_out_of_what_its_own_behaviour_is_predicted_from() -> None:
    behaviour = vectors(TRAIN.num_rows, 3, 4)
    learned = learn_matching(behaviour, TRAIN, NUM_ITEMS)
    rows = [set(TRAIN.row(u).tolist()) for u in range(TRAIN.num_rows)]
    count = [sum(item in row for row in rows) for item in range(NUM_ITEMS + 1)]
    x = []
    for user, had in enumerate(rows):
        mean, convolved = np.zeros(3), np.zeros(3)
        for item in had:
            others = [
                behaviour[o].astype(np.float64) for o, row in enumerate(rows) if item in row and o != user
            ]
            if others:
                mean += np.mean(others, axis=0) / len(had)
                convolved += np.mean(others, axis=0) / np.sqrt(len(had) * count[item])
        x.append([*mean, *convolved, 1.0])
    expected = regression(np.array(x), behaviour.astype(np.float64))
    np.testing.assert_allclose(learned.weights, expected, rtol=2e-3, atol=2e-4)
    for item in range(1, NUM_ITEMS + 1):
        of_item = [behaviour[u] for u, row in enumerate(rows) if item in row]
        known = np.mean(of_item, axis=0) if of_item else np.zeros(3)
        np.testing.assert_allclose(learned.items[item], known, rtol=1e-5, atol=1e-6)


def test_histories_are_left_as_they_are() -> None:
    """Repeats are summed in a copy: a list of newest items last is still one afterwards."""
    before = REPEATED.items.copy()
    learn_fold_in(vectors(2, 4, 1), REPEATED, vectors(NUM_ITEMS + 1, 3, 0))
    np.testing.assert_array_equal(REPEATED.items, before)


def test_an_item_stays_at_its_first_place_alone() -> None:
    rows = np.random.default_rng(3).integers(0, 5, (20, 9))
    found = np.asarray(distinct(jnp.asarray(rows)))
    for row, kept in zip(rows.tolist(), found.tolist(), strict=True):
        assert kept == [item if item not in row[:place] else 0 for place, item in enumerate(row)]


def test_nothing_is_learned_of_nobody() -> None:
    with pytest.raises(RelandError, match="no user has training items"):
        learn_fold_in(vectors(2, 4, 1), ragged([[], []]), vectors(NUM_ITEMS + 1, 3, 0))


def test_the_texts_of_a_behaviour_vector_are_those_of_a_trained_user() -> None:
    """An item that stands twice counts twice; one without a text adds nothing."""
    texts = vectors(NUM_ITEMS + 1, 4, 5)
    texts[[0, 5]] = 0.0
    behaviour = add_texts(vectors(2, 3, 6), REPEATED, texts, 0.5)
    found = np.asarray(behaviour_of(learn_matching(behaviour, REPEATED, NUM_ITEMS, texts, 0.5), IN_ROWS))
    np.testing.assert_allclose(found[:, 3:], behaviour[:, 3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found[:, :3], axis=1), 1.0, rtol=1e-5)
    alone = learn_matching(behaviour[:, :3], REPEATED, NUM_ITEMS)
    predicted = np.asarray(behaviour_of(alone, IN_ROWS))
    unit = predicted / np.linalg.norm(predicted, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :3], unit, rtol=1e-5, atol=1e-6)
