"""What is added to the score of a backbone, against NumPy."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import EaseConfig, ScoreConfig, TrainConfig
from reland_jax.models import Ease, Recommender, Tables
from reland_jax.models.beside import beside_numbers, recent_items, scored_entries
from reland_jax.models.scores import dot_product
from reland_jax.train import create_task, with_linear_scores
from reland_jax.train.linear import linear_task
from reland_jax.train.pairs import with_profiles
from reland_jax.train.state import init_state, program_of
from reland_jax.train.upon_linear import weights_of
from reland_jax.types import Splits
from tests.models.test_recommender import (
    DIM,
    NUM_ITEMS,
    NUM_USERS,
    PAIRS,
    SEQUENCES,
    TABLES,
    TEXT,
    TRAIN,
    apply,
    batch_for,
    random_params,
    recommender,
    score,
    tables_of,
)
from tests.toys import planted_splits
from tests.train.toys import MAX_LENGTH, SEQUENTIAL, tiny_task
from tests.train.toys import PAIRS as OF_PAIRS

TEXTS = np.asarray(TABLES.item_text) / np.linalg.norm(np.asarray(TABLES.item_text), axis=1, keepdims=True)
KNOWN = with_profiles(TABLES, TRAIN)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def with_kernel(backbone: str, variant: str = "f_item") -> Recommender:
    return recommender(backbone, variant).clone(beside=ScoreConfig(text_kernel=2.0, recent=2))


def means(left_out: np.ndarray | None = None) -> np.ndarray:
    """The mean unit text of every user's training items, or of those but one; zero without others."""
    rows = []
    for user in range(NUM_USERS):
        items = TRAIN.row(user).tolist()
        if left_out is not None:
            items.remove(left_out[user])
        rows.append(TEXTS[items].mean(0) if items else np.zeros(TEXT))
    return np.stack(rows)


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "neumf"])
def test_a_kernel_of_texts_is_added_to_the_score_of_sets(backbone: str) -> None:
    """In a ranking by all items of a user, in training by those that are not the target."""
    model, plain = with_kernel(backbone), recommender(backbone, "f_item")
    first = np.array([TRAIN.row(user)[0] for user in range(NUM_USERS)])
    user = np.flatnonzero(TRAIN.lengths() > 1)[:4]
    batch = PAIRS._replace(user=jnp.asarray(user), positive=jnp.asarray(first[user]), weight=jnp.ones(4))
    whole = batch._replace(negative=None)
    params = random_params(model.clone(beside=ScoreConfig()), batch)
    metric = np.random.default_rng(3).normal(size=(TEXT, TEXT)).astype(np.float32)
    kept = params["params"] | {"kernel": {"text_metric": jnp.asarray(metric)}}
    tables = tables_of(model, KNOWN)

    def scores(model: Recommender, params: Any) -> np.ndarray:
        users, items = (
            np.asarray(model.apply(params, tables, method=f"{kind}_vectors")) for kind in ("user", "item")
        )
        return score(model, params, users, items)

    added = scores(model, {"params": kept}) - scores(plain, params)
    np.testing.assert_allclose(added[:, 1:], (means() @ metric @ TEXTS.T)[:, 1:], **CLOSE)
    rest = scores(plain, params)[user] + means(first)[user] @ metric @ TEXTS.T
    squares = (np.asarray(params["params"]["user_embedding"])[user] ** 2).sum(1)
    ids = np.asarray(params["params"]["items"]["id_embedding"])
    of_all = np.log(np.exp(rest[:, 1:]).sum(1)) - rest[np.arange(4), first[user]]
    expected = (of_all + 0.5 * 0.3 * (squares + (ids[first[user]] ** 2).sum(1))).mean()
    found = model.apply({"params": kept}, tables, whole, method="loss", rngs=None)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    negative = np.asarray(batch.negative)
    pairs = np.log1p(np.exp(np.take_along_axis(rest, negative, 1) - rest[np.arange(4), first[user]][:, None]))
    squares += (ids[np.concatenate([first[user][:, None], negative], 1)] ** 2).sum((1, 2))
    expected = (pairs.mean(1) + 0.5 * 0.3 * squares).mean()
    found = model.apply({"params": kept}, tables, batch, method="loss")
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_kernel_reads_the_newest_items_of_a_sequence() -> None:
    """Two of them here; each weighs half as much as the one after it."""
    model, plain = with_kernel("sasrec"), recommender("sasrec", "f_item")
    params = random_params(model, SEQUENCES)
    metric = np.asarray(params["params"]["kernel"]["text_metric"])
    items = apply(model, params, method="item_vectors")
    assert items.shape == (NUM_ITEMS + 1, TEXT + DIM)
    users = apply(model, params, SEQUENCES, method="user_vectors")
    newest = [(4, 1), (2, 7), (8, 9)]
    mean = np.stack([(2 * TEXTS[one] + TEXTS[other]) / 3 for one, other in newest])
    np.testing.assert_allclose(users[:3, :TEXT], mean @ metric, **CLOSE)
    own = apply(plain, params, SEQUENCES, method="user_vectors")
    np.testing.assert_allclose(users[:, TEXT:], own, **CLOSE)
    scores = (users @ items.T)[:, 1:]
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(4), np.asarray(SEQUENCES.target) - 1]
    assert float(apply(model, params, SEQUENCES, method="loss")) == pytest.approx(losses[:3].mean(), rel=1e-4)


def test_the_items_of_one_sequence_are_not_read_for_another() -> None:
    items, position = jnp.array([[3, 1, 4, 7, 2]]), jnp.array([[0, 1, 2, 0, 1]])
    found, weight = recent_items(items, position, jnp.array([2, 3, 4]), 2.0, 4)
    np.testing.assert_array_equal(found, [[4, 1, 3, 0], [7, 0, 0, 0], [2, 7, 0, 0]])
    np.testing.assert_allclose(weight[0], [1, 0.5**0.5, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(weight[1:], [[1, 0, 0, 0], [1, 0.5**0.5, 0, 0]], rtol=1e-6)


def test_id_has_no_kernel() -> None:
    model = with_kernel("sasrec", "id")
    assert "kernel" not in random_params(model, batch_for("sasrec"))["params"]


def test_entries_before_vectors_are_added_to_the_scores_of_their_items() -> None:
    """An item named twice gets both, whichever way the items are asked for."""
    rng = np.random.default_rng(0)
    entry = rng.integers(0, NUM_ITEMS + 1, (NUM_USERS, 7))
    value, users = rng.normal(size=(NUM_USERS, 7)), rng.normal(size=(NUM_USERS, DIM))
    items = rng.normal(size=(NUM_ITEMS + 1, DIM))
    expected = users @ items.T
    for row in range(NUM_USERS):
        np.add.at(expected[row], entry[row], value[row])
    sides = jnp.asarray(np.concatenate([entry, value, users], 1)), beside_numbers(jnp.asarray(items), None)
    scored = jax.jit(partial(scored_entries, dot_product, num_items=NUM_ITEMS))
    np.testing.assert_allclose(scored(*sides), expected, **CLOSE)
    some = np.array([3, 3, 8])
    np.testing.assert_allclose(scored(sides[0], sides[1][some]), expected[:, some], **CLOSE)
    own = rng.integers(0, NUM_ITEMS + 1, (NUM_USERS, 2))
    np.testing.assert_allclose(scored(sides[0], sides[1][own]), np.take_along_axis(expected, own, 1), **CLOSE)


def linear_scores(model: Recommender) -> tuple[Any, np.ndarray, np.ndarray]:
    """Tables with the scores of a linear model, its weights, and those by which each user is trained.

    The latter ``[U, I + 1, I + 1]`` are of the model that was solved without the users of its fold.
    """
    config = EaseConfig(regularisation=1.0, neighbours=NUM_ITEMS - 1, form="sparse")
    splits = Splits(TRAIN, TRAIN, TRAIN, NUM_ITEMS, "ratio")
    tables = with_linear_scores(model, jax.tree.map(np.asarray, KNOWN), splits, config)
    ease, folds = Ease(config, NUM_ITEMS, model.texts, 0, False), model.beside.folds

    def weights(users: list[int]) -> np.ndarray:
        some = TRAIN.take(np.array(users))
        return weights_of(linear_task(ease, KNOWN, Splits(some, some, some, NUM_ITEMS, "ratio"), 1)).toarray()

    everybody = range(NUM_USERS)
    in_training = [
        weights([each for each in everybody if folds == 1 or each % folds != user % folds])
        for user in everybody
    ]
    return tables, weights([*everybody]), np.stack(in_training)


@pytest.mark.parametrize(("backbone", "folds"), [("lightgcn", 1), ("neumf", 1), ("lightgcn", 3)])
def test_a_backbone_of_sets_upon_a_linear_model(backbone: str, folds: int) -> None:
    """A ranking adds X B; in training the target is not in X, and the other items of the user are masked.

    With folds, B has not seen the user in training.
    """
    beside = ScoreConfig(linear=3.0, votes=NUM_ITEMS, listed=NUM_ITEMS, folds=folds)
    plain = recommender(backbone, "f_item")
    model = plain.clone(beside=beside)
    tables, weights, trained = linear_scores(model)
    tables = tables_of(model, tables)
    user = np.flatnonzero(TRAIN.lengths() > 1)[:4]
    target = np.array([TRAIN.row(each)[0] for each in user])
    batch = PAIRS._replace(
        user=jnp.asarray(user), positive=jnp.asarray(target), negative=None, weight=jnp.ones(4)
    )
    params = random_params(plain, batch)
    both = {"params": params["params"] | {"linear_scale": jnp.log(2 / 3)}}
    users, items = (np.asarray(plain.apply(params, tables, method=f"{s}_vectors")) for s in ("user", "item"))
    own = score(plain, params, users, items)
    had = np.zeros((NUM_USERS, NUM_ITEMS + 1))
    for each in range(NUM_USERS):
        had[each, TRAIN.row(each)] = 1
    sides = [np.asarray(model.apply(both, tables, method=f"{s}_vectors")) for s in ("user", "item")]
    found = score(model, both, *sides)
    np.testing.assert_allclose(found[:, 1:], (own + 2 * had @ weights)[:, 1:], rtol=1e-3, atol=1e-4)
    others = had[user]
    others[np.arange(4), target] = 0
    theirs = np.einsum("ui,uij->uj", others, trained[user])
    rest = (own[user] + 2 * theirs - 30 * others)[:, 1:]
    squares = (np.asarray(params["params"]["user_embedding"])[user] ** 2).sum(1)
    squares += (np.asarray(params["params"]["items"]["id_embedding"])[target] ** 2).sum(1)
    expected = (np.log(np.exp(rest).sum(1)) - rest[np.arange(4), target - 1] + 0.15 * squares).mean()
    assert float(model.apply(both, tables, batch, method="loss")) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 3])
def test_a_backbone_of_sequences_upon_a_linear_model(folds: int) -> None:
    """Each of the newest items speaks with the weight of its age."""
    beside = ScoreConfig(linear=3.0, votes=NUM_ITEMS, recent=2, folds=folds)
    plain = recommender("sasrec", "f_item")
    model = plain.clone(beside=beside)
    tables, weights, trained = linear_scores(model)
    params = random_params(plain, SEQUENCES)
    both = {"params": params["params"] | {"linear_scale": jnp.log(2 / 3)}}
    of_users = apply(plain, params, SEQUENCES, method="user_vectors")
    own = of_users @ apply(plain, params, method="item_vectors").T
    newest = [(4, 1), (2, 7), (8, 9)]
    voted = np.stack([weights[one] + 0.5 * weights[other] for one, other in newest])
    users = np.asarray(model.apply(both, tables, SEQUENCES, method="user_vectors"))
    items = np.asarray(model.apply(both, tables, method="item_vectors"))
    assert users.shape[1] == model.user_columns(items.shape[1])
    found = score(model, both, users, items)
    scores = (own[:3] + 2 * voted)[:, 1:]
    np.testing.assert_allclose(found[:3, 1:], scores, rtol=1e-3, atol=1e-4)
    theirs = [
        trained[user][one] + 0.5 * trained[user][other]
        for user, (one, other) in zip(np.asarray(SEQUENCES.user), newest, strict=False)
    ]
    scores = (own[:3] + 2 * np.stack(theirs))[:, 1:]
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(3), np.asarray(SEQUENCES.target)[:3] - 1]
    loss = model.apply(both, tables, SEQUENCES, method="loss")
    assert float(loss) == pytest.approx(losses.mean(), rel=1e-3)


@pytest.mark.parametrize(("backbone", "config"), [("lightgcn", OF_PAIRS), ("sasrec", SEQUENTIAL)])
def test_linear_scores_of_rankings_alone_change_nothing_of_a_training(
    backbone: str, config: TrainConfig
) -> None:
    """The program that trains is that of the plain backbone; a ranking adds the scores times the factor."""
    splits = planted_splits()
    sizes = ScoreConfig(votes=splits.num_items, listed=splits.num_items, recent=1)
    plain = tiny_task(backbone, splits, config)
    plain = plain._replace(model=plain.model.clone(beside=sizes))
    model = plain.model.clone(beside=dataclasses.replace(sizes, linear=2.0, added="ranking"))
    ease = EaseConfig(regularisation=1.0, neighbours=splits.num_items - 1)
    tables = with_linear_scores(model, jax.tree.map(np.asarray, plain.tables), splits, ease)
    task = create_task(model, tables, splits, config, MAX_LENGTH)
    assert program_of(task, config) == program_of(plain, config)
    params = init_state(plain, config).params
    scores = []
    for each in (task, plain):
        vectors = each.vectors(params, "valid")
        found = vectors.score(vectors.users, vectors.items)
        scores.append(np.asarray(found)[: splits.num_users, 1 : splits.num_items + 1])
    solved = linear_task(
        Ease(dataclasses.replace(ease, form="sparse"), splits.num_items, False, 0, False), Tables(), splits, 1
    )
    had = np.zeros((splits.num_users, splits.num_items + 1))
    for user in range(splits.num_users):
        row = splits.train.row(user)
        had[user, row[-1:] if backbone == "sasrec" else row] = 1
    expected = 2 * (had @ weights_of(solved).toarray())[:, 1:]
    np.testing.assert_allclose(scores[0] - scores[1], expected, rtol=1e-3, atol=1e-4)
