"""The largest values of rows, by blocks, against a sort of all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.eval.lists import best, largest
from reland_jax.eval.ranks import Vectors
from reland_jax.models.scores import dot_product


def rows_of(kind: str, length: int) -> np.ndarray:
    """Rows ``<float32>[9, length]`` with many equal values or none."""
    random = np.random.default_rng(3)
    if kind == "few":
        return random.integers(0, 4, (9, length)).astype(np.float32)
    if kind == "left out":
        return np.where(random.random((9, length)) < 0.004, 1.0, -np.inf).astype(np.float32)
    return random.normal(size=(9, length)).astype(np.float32)


@pytest.mark.parametrize("kind", ["few", "left out", "different"])
@pytest.mark.parametrize(
    ("length", "count"), [(96, 3), (640, 10), (640, 9), (2048, 16), (2049, 16), (64, 64)]
)
def test_the_largest_by_blocks_are_those_of_a_stable_sort(kind: str, length: int, count: int) -> None:
    rows = rows_of(kind, length)
    values, places = jax.jit(largest, static_argnums=1)(rows, count)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, order, 1))


def test_lists_have_no_padding_no_masked_and_no_other_item() -> None:
    """Of 1,200 items in rows that are filled up, with scores that are equal in many places."""
    random = np.random.default_rng(4)
    users = random.integers(-1, 2, (7, 3)).astype(np.float32)
    items = np.pad(random.integers(-1, 2, (1201, 3)), ((0, 5), (0, 0))).astype(np.float32)
    masked = random.integers(0, 1201, (7, 6)).astype(np.int32)
    allowed = random.random(1201) < 0.5
    vectors = Vectors(jnp.asarray(users), jnp.asarray(items), jax.tree_util.Partial(dot_product))
    found, score = best(vectors, jnp.arange(7), masked, allowed, 16, 1200)
    wanted = users @ items.T
    wanted[:, np.flatnonzero(~np.pad(allowed, (0, 5)))] = -np.inf
    wanted[:, 0] = -np.inf
    np.put_along_axis(wanted, masked, -np.inf, 1)
    order = np.argsort(-wanted, axis=1, kind="stable")[:, :16]
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(score, np.take_along_axis(wanted, order, 1))
