"""NeuMF against the network of its paper's Eq. 12, written with concatenations, pair by pair."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ModelConfig
from reland_jax.device import sizes, use_sizes
from reland_jax.eval import Vectors, plan_ranking, rank_targets
from reland_jax.models import neumf
from reland_jax.models.neumf import NeuMF
from tests.toys import random_ragged

NUM_USERS, NUM_ITEMS, DIM = 5, 11, 4
TOWERS = [(6, 5, 3), (4,)]
RNG = np.random.default_rng(0)
USERS = RNG.normal(size=(NUM_USERS, 2 * DIM)).astype(np.float32)
ITEMS = RNG.normal(size=(NUM_ITEMS + 1, 2 * DIM)).astype(np.float32)


def network(tower: tuple[int, ...], dropout: float = 0.5) -> tuple[NeuMF, Any]:
    """The module with random parameters, biases too."""
    module = NeuMF(ModelConfig(dim=DIM, tower=tower, dropout=dropout))
    shapes = jax.eval_shape(partial(module.init, method=everything), jax.random.key(0), USERS, ITEMS)
    rng = np.random.default_rng(1)
    return module, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.8, leaf.shape), jnp.float32), shapes)


def everything(module: NeuMF, users: jax.Array, items: jax.Array) -> jax.Array:
    """Scores of all users and items from their embeddings."""
    return module.score(module.user_side(users), module.item_side(items))


def pairs(
    module: NeuMF, users: jax.Array, items: jax.Array, chosen: jax.Array, train: bool = False
) -> jax.Array:
    """Scores of every user with its own items."""
    return module.score(module.user_side(users), module.item_side(items[chosen]), train)


def score_of_pair(params: Any, user: np.ndarray, item: np.ndarray) -> float:
    """h . [GMF ; MLP([user ; item])] with the MLP's first layer on the concatenation, Eq. 12."""
    p = jax.tree.map(np.asarray, params["params"]["tower"])
    gmf = user[:DIM] @ item[:DIM]
    kernel = np.concatenate([p["from_user"]["kernel"], p["from_item"]["kernel"]])
    hidden = np.concatenate([user[DIM:], item[DIM:]]) @ kernel + p["from_item"]["bias"]
    hidden = np.maximum(hidden, 0)
    depth = sum(name.startswith("kernel_") for name in p)
    for layer in range(depth - 1):
        hidden = np.maximum(hidden @ p[f"kernel_{layer}"] + p[f"bias_{layer}"], 0)
    return float(gmf + (hidden @ p[f"kernel_{depth - 1}"]).item())


def brute_force(params: Any) -> np.ndarray:
    return np.array([[score_of_pair(params, user, item) for item in ITEMS] for user in USERS])


@pytest.mark.parametrize("tower", TOWERS)
def test_scores_are_those_of_the_paper_for_all_items_and_for_pairs(tower: tuple[int, ...]) -> None:
    module, params = network(tower)
    expected = brute_force(params)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(module.apply(params, USERS, ITEMS, method=everything), expected, **close)
    chosen = np.array([[1, 2, 3], [11, 0, 4], [5, 5, 5], [6, 7, 8], [9, 10, 1]])
    found = module.apply(params, USERS, ITEMS, chosen, method=pairs)
    np.testing.assert_allclose(found, np.take_along_axis(expected, chosen, 1), **close)


def test_the_embeddings_are_not_changed() -> None:
    module, params = network(TOWERS[0])
    (users,), (items,) = module.apply(params, USERS, ITEMS, None, True)
    np.testing.assert_array_equal(users, USERS)
    np.testing.assert_array_equal(items, ITEMS)


def test_full_ranking_by_its_score() -> None:
    """Ranks counted from the paper's scores; they are not those of a dot product of the sides."""
    module, params = network(TOWERS[0])
    targets = random_ragged([2, 0, 3, 1, 4], NUM_ITEMS)
    masked = random_ragged([1, 2, 0, 3, 2], NUM_ITEMS, seed=1)
    sides = [
        module.apply(params, side, method=name) for side, name in ((USERS, "user_side"), (ITEMS, "item_side"))
    ]
    score = jax.tree_util.Partial(partial(module.apply, method="score"), params)
    plan = plan_ranking(targets, masked, NUM_ITEMS, 3 * 8 * (NUM_ITEMS + 1))
    found = rank_targets(plan, Vectors(*sides, score))
    scores, expected = brute_force(params), []
    for user in range(NUM_USERS):
        own, history = scores[user].copy(), masked.row(user)
        scores[user, [0, *history]] = -np.inf
        # A target that is masked is ranked all the same, and does not count itself.
        expected += [int((scores[user] >= own[t]).sum()) - (t not in history) for t in targets.row(user)]
    np.testing.assert_array_equal(found.rank, expected)


def test_gradients_reach_every_parameter_and_are_those_of_a_difference() -> None:
    """The derivative of the scores' sum along a random direction, against a central difference."""
    module, params = network(TOWERS[0])
    chosen = np.arange(10).reshape(5, 2) + 1
    total = jax.jit(lambda p: jnp.sum(module.apply(p, USERS, ITEMS, chosen, method=pairs)))
    gradients = jax.grad(total)(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert float(jnp.abs(leaf).max()) > 1e-6, jax.tree_util.keystr(path)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    step = 1e-3
    moved = [jax.tree.map(lambda p, d, s=s: p + s * step * d, params, direction) for s in (1, -1)]
    slope = (float(total(moved[0])) - float(total(moved[1]))) / (2 * step)
    products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradients, direction)
    assert sum(map(float, jax.tree.leaves(products))) == pytest.approx(slope, rel=0.02)


def test_dropout_is_in_the_tower_and_in_training_only() -> None:
    module, params = network(TOWERS[0])
    chosen = np.arange(5)[:, None] + 1

    def scores(train: bool, key: int) -> np.ndarray:
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(module.apply(params, USERS, ITEMS, chosen, train, method=pairs, rngs=rngs))

    np.testing.assert_array_equal(scores(False, 0), scores(False, 1))
    assert np.abs(scores(True, 0) - scores(True, 1)).max() > 0.01
    without = jax.tree.map(jnp.zeros_like, params)
    rngs = {"dropout": jax.random.key(0)}
    gmf = module.apply(without, USERS, ITEMS, chosen, True, method=pairs, rngs=rngs)
    expected = np.sum(USERS[:, :DIM] * ITEMS[1:6, :DIM], 1)
    np.testing.assert_allclose(gmf[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_large_tower_is_scored_user_by_user_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    module, params = network(TOWERS[0])
    unrolled = module.apply(params, USERS, ITEMS, method=everything)
    monkeypatch.setattr(neumf, "UNROLLED", 0)
    again = module.apply(params, USERS, ITEMS, method=everything)
    np.testing.assert_allclose(again, unrolled, rtol=1e-4, atol=1e-5)
    several = dataclasses.replace(sizes(), pair_bytes=2 * 4 * 6 * len(ITEMS))
    with use_sizes(several):
        together = module.apply(params, USERS, ITEMS, method=everything)
    np.testing.assert_allclose(together, unrolled, rtol=1e-4, atol=1e-5)
