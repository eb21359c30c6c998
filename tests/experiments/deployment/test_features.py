"""Histories, vectors and seed users of a day."""

from __future__ import annotations

import numpy as np

from experiments.deployment.encoders import Encoder, encoded, laid_out, reader_of
from experiments.deployment.features import known_history, nearest
from reland_jax.config import ModelConfig, RetrievalConfig
from reland_jax.retrieval import learn_fold_in
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions
from tests.toys import ragged, random_ragged


def clicks(rows: list[list[int]]) -> Interactions:
    lists = ragged(rows)
    user = np.repeat(np.arange(len(rows), dtype=np.int32), lists.lengths())
    ids = IdMap(as_strings([f"u{row}" for row in range(len(rows))]), as_strings(["", *"abcde"]))
    return Interactions(user, lists.items, np.arange(len(user), dtype=float), ids, {}, {})


def test_a_history_is_the_last_clicks_on_known_items() -> None:
    known = np.array([False, True, True, False, True, True])
    given = clicks([[1, 3, 2, 5], [], [3], [4, 4, 1]])
    for longest, expected in ((None, [[1, 2, 5], [], [], [4, 4, 1]]), (2, [[2, 5], [], [], [4, 1]])):
        found = known_history(given, known, longest)
        assert [found.row(row).tolist() for row in range(4)] == expected


def test_a_user_who_is_new_gets_the_vector_of_its_clicks() -> None:
    rng = np.random.default_rng(0)
    train, items = random_ragged([5] * 40, 12), rng.normal(size=(13, 4)).astype(np.float32)
    items[0] = 0
    users = np.array([items[train.row(user)].mean(0) for user in range(40)], np.float32)
    fold = learn_fold_in(users, train, items)
    arrays = {f"fold/{name}": array for name, array in fold._asdict().items()} | {"known": np.ones(13, bool)}
    encoder = Encoder(arrays, ModelConfig(backbone="lightgcn"), 8, 0.0)
    found = encoded(reader_of(encoder), laid_out(ragged([[], train.row(3).tolist(), [7]]), 8))
    assert not found[0].any()
    np.testing.assert_allclose(found[1], users[3], atol=2e-2)
    by_hand = np.concatenate([items[7], fold.scale[7] * items[7], [1.0]]) @ fold.weights
    np.testing.assert_allclose(found[2], by_hand, atol=1e-5)


def test_the_last_items_are_laid_out_oldest_first() -> None:
    found = laid_out(ragged([[], [4, 2], [1, 2, 3, 4, 5]]), 3)
    assert found.tolist() == [[0, 0, 0], [4, 2, 0], [3, 4, 5]] and found.dtype == np.int32


def test_users_without_a_vector_have_no_seed_user_and_seed_users_have_themselves() -> None:
    vectors = np.array([[1, 0], [0, 0], [0, 2], [1, 1.1], [1, 0.1]], np.float32)
    users, seeds = np.array([4, 2], np.int32), np.array([[0, 1], [1, 0]], np.float32)
    seed, cosine = nearest(vectors, users, seeds, RetrievalConfig())
    assert seed.tolist() == [1, -1, 1, 0, 0]
    np.testing.assert_allclose(cosine, [1, 0, 1, 1.1 / np.hypot(1, 1.1), 1], rtol=1e-6)
