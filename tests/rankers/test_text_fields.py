"""Rows of tables of texts, also those that are not there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.rankers.text_fields import NumbersField, TextField, Texts, entries, seed_of, similarity
from tests.rankers import oracles
from tests.rankers.toys import applied

TABLE = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]])
ROWS = np.array([-1, 0, 1, 2, 3], np.int32)
"""None, one without a text, two with one, and one that came after the table was made."""


def test_a_text_is_projected_and_what_has_none_has_a_vector_of_its_own() -> None:
    params, found = applied(TextField(3), TABLE, ROWS)
    absent = params["absent"]
    texts = [oracles.linear(params["projection"], TABLE[row]) for row in (1, 2)]
    np.testing.assert_allclose(found, [absent, absent, *texts, absent], rtol=1e-10)
    assert "bias" not in params["projection"]


def test_numbers_are_each_times_a_vector() -> None:
    cosine = np.asarray(entries(np.array([0.5, -0.25, 1.0]), jnp.asarray(ROWS), 0.0), np.float64)
    np.testing.assert_array_equal(cosine, [0, 0.5, -0.25, 1.0, 0])
    params, found = applied(NumbersField(2), cosine, cosine**2)
    expected = np.stack([cosine, cosine**2], 1) @ params["vectors"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_rationale_is_like_an_item_by_their_cosine() -> None:
    said = np.array([[3.0, 4.0], [0.0, 0.0]])
    texts = Texts(items=TABLE, rationales=said, seed=np.array([0, 1, -1], np.int32))
    user, item = np.array([0, 0, 0, 1, 2, -1, 0], np.int32), np.array([1, 2, 0, 1, 1, 1, 9], np.int32)
    expected = [11 / (5 * 5**0.5), 5 / (5 * 10**0.5), 0, 0, 0, 0, 0]
    found = similarity(texts, jnp.asarray(user), jnp.asarray(item))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_everything_starts_at_zero() -> None:
    for module, given in ((TextField(3), (TABLE, ROWS)), (NumbersField(2), (TABLE[:, 0], TABLE[:, 1]))):
        params = module.init(jax.random.key(0), *given)
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(params))


def test_seed_users_of_users() -> None:
    texts = Texts(seed=np.array([2, -1, 0], np.int32))
    np.testing.assert_array_equal(seed_of(texts, jnp.asarray(ROWS)), [-1, 2, -1, 0, -1])
