"""Behaviour and texts side by side, against a loop over users."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.seeds import add_texts
from reland_jax.types import Ragged
from tests.toys import ragged

NUM_ITEMS, DIM, TEXT = 6, 3, 5
# User 2 has no items, user 3 only one without a text, user 4 an item twice.
TRAIN = ragged([[1, 2, 3], [6], [], [5], [4, 4, 1]])


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Behaviour, of user 1 zero, and item texts, of item 5 and of the padding item zero."""
    rng = np.random.default_rng(0)
    behaviour = rng.normal(size=(TRAIN.num_rows, DIM)).astype(np.float32)
    item_text = 9 * rng.normal(size=(NUM_ITEMS + 1, TEXT)).astype(np.float32)
    behaviour[1] = item_text[5] = item_text[0] = 0.0
    return behaviour, item_text


def unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


def loop(behaviour: np.ndarray, train: Ragged, item_text: np.ndarray, weight: float) -> np.ndarray:
    rows = []
    for user in range(train.num_rows):
        text = np.zeros(item_text.shape[1])
        for item in train.row(user):
            text = text + unit(item_text[item])
        rows.append(np.concatenate([unit(behaviour[user]), weight * unit(text)]))
    return np.array(rows)


@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
def test_both_halves_by_a_loop(weight: float) -> None:
    behaviour, item_text = arrays()
    found = add_texts(behaviour, TRAIN, item_text, weight)
    np.testing.assert_allclose(found, loop(behaviour, TRAIN, item_text, weight), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    lengths = np.linalg.norm(found[:, DIM:], axis=1)
    np.testing.assert_allclose(lengths, weight * np.array([1, 1, 0, 0, 1]), rtol=1e-5)


def test_rows_of_zeros_stay_zero_and_finite() -> None:
    """No items, no described items, no behaviour: that half is 0, the other one what it is."""
    behaviour, item_text = arrays()
    found = add_texts(behaviour, TRAIN, item_text, 1.0)
    assert np.isfinite(found).all()
    assert not found[1, :DIM].any() and found[1, DIM:].any()
    assert not found[[2, 3], DIM:].any() and found[[2, 3], :DIM].any(1).all()


def test_the_cosine_is_the_mean_of_both_cosines_at_weight_one() -> None:
    """And at another weight w the mean weighted 1 : w^2, for users who have both halves."""
    behaviour, item_text = arrays()
    for weight in (1.0, 2.0):
        found = add_texts(behaviour, TRAIN, item_text, weight)
        first, second = found[0], found[4]
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        halves = (unit(behaviour[0]) @ unit(behaviour[4]), unit(first[DIM:]) @ unit(second[DIM:]))
        expected = (halves[0] + weight**2 * halves[1]) / (1 + weight**2)
        assert cosine == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_input_is_left_as_it_was() -> None:
    behaviour, item_text = arrays()
    add_texts(behaviour, TRAIN, item_text, 2.0)
    for array, original in zip((behaviour, item_text), arrays(), strict=True):
        np.testing.assert_array_equal(array, original)
