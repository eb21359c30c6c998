"""The two families of recommenders: which parameters a variant has, and losses and vectors by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import BACKBONES, VARIANTS, FusionConfig, ModelConfig
from reland_jax.models import (
    MODELS,
    PairBatch,
    Recommender,
    SequenceBatch,
    Tables,
    bipartite_graph,
    build_propagation,
    create_recommender,
)
from reland_jax.models.sasrec import SASRec
from reland_jax.types import RelandError
from tests.toys import random_ragged

NUM_USERS, NUM_ITEMS, DIM, TEXT, NUM_SEEDS, LENGTH = 6, 9, 4, 5, 4, 5
TRAIN = random_ragged([3, 2, 5, 1, 4, 2], NUM_ITEMS)
_rng = np.random.default_rng(0)
TABLES = Tables(
    item_text=jnp.asarray(_rng.normal(size=(NUM_ITEMS + 1, TEXT)), jnp.float32),
    rationale=jnp.asarray(_rng.normal(size=(NUM_SEEDS, TEXT)), jnp.float32),
    seed=jnp.asarray([[user % NUM_SEEDS, (user + 1) % NUM_SEEDS] for user in range(NUM_USERS)], jnp.int32),
    propagation=build_propagation(bipartite_graph(TRAIN, NUM_ITEMS)),
)
SEQUENCES = SequenceBatch(
    items=jnp.array([[3, 1, 4, 7, 2], [9, 8, 0, 0, 0]], jnp.int32),
    position=jnp.array([[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]], jnp.int32),
    segment=jnp.array([[1, 1, 1, 2, 2], [3, 3, 0, 0, 0]], jnp.int32),
    place=jnp.array([2, 4, 6, 0], jnp.int32),
    user=jnp.array([0, 5, 2, 0], jnp.int32),
    target=jnp.array([5, 6, 1, 1], jnp.int32),
    weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
)
PAIRS = PairBatch(
    user=jnp.array([0, 3, 5, 0], jnp.int32),
    positive=jnp.array([1, 2, 9, 1], jnp.int32),
    negative=jnp.array([[4, 5], [6, 7], [8, 1], [2, 3]], jnp.int32),
    weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
)


def recommender(backbone: str, variant: str) -> Recommender:
    return create_recommender(
        ModelConfig(backbone=backbone, dim=DIM, layers=1, heads=2, inner=6, dropout=0.0),
        FusionConfig(dropout=0.0), variant,
        num_users=NUM_USERS, num_items=NUM_ITEMS, max_length=LENGTH, embedding_l2=0.3,
    )  # fmt: skip


def random_params(model: Recommender, batch: Any) -> Any:
    """Parameters of the right shapes and of a size at which every part matters."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(rngs, TABLES, batch, method="loss"))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


def parameter_names(params: Any) -> set[str]:
    paths = jax.tree_util.tree_leaves_with_path(params["params"])
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths}


@pytest.mark.parametrize("backbone", ["sasrec", "lightgcn"])
def test_a_variant_adds_its_parameters_and_no_others(backbone: str) -> None:
    """The same additions, whatever the backbone: that is the one mechanism."""
    batch = SEQUENCES if backbone == "sasrec" else PAIRS
    names = {v: parameter_names(random_params(recommender(backbone, v), batch)) for v in VARIANTS}
    assert not [name for name in names["id"] if "text" in name or "fuse" in name]
    added = {"items/from_id/kernel", "items/from_id/bias", "items/from_text/kernel"}
    assert names["f_item"] - names["id"] == added
    assert names["reland"] - names["f_item"] == {"fuse/attention", "fuse/project/kernel", "fuse/project/bias"}
    assert names["id"] < names["f_item"] < names["reland"]


def test_every_named_backbone_has_a_line_in_the_table() -> None:
    assert set(BACKBONES) == set(MODELS)


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(RelandError, match="unknown backbone 'sasrek'; did you mean 'sasrec'"):
        recommender("sasrek", "id")


def fused(params: Any, users: np.ndarray, rationale: np.ndarray) -> np.ndarray:
    """Eq. 5 in numpy, scaled by two as `RationaleFusion` explains."""
    p = params["params"]["fuse"]
    projected = rationale @ np.asarray(p["project"]["kernel"]) + np.asarray(p["project"]["bias"])
    scores = np.exp(np.stack([users @ p["attention"], projected @ p["attention"]], -1))
    weights = scores / scores.sum(-1, keepdims=True)
    return 2 * (weights[:, :1] * users + weights[:, 1:] * projected)


def test_evaluation_uses_the_nearest_seed_user_and_training_any_of_the_k() -> None:
    model = recommender("lightgcn", "reland")
    params = random_params(model, PAIRS)
    user = jnp.tile(jnp.arange(NUM_USERS), 50)
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(len(user), DIM)), jnp.float32)

    def attach(train: bool) -> np.ndarray:
        rngs = {"dropout": jax.random.key(3)}
        return np.asarray(model.apply(params, TABLES, user, vectors, train, method="attach", rngs=rngs))

    seed, rationale = np.asarray(TABLES.seed)[user], np.asarray(TABLES.rationale)
    nearest, second = (fused(params, np.asarray(vectors), rationale[seed[:, column]]) for column in (0, 1))
    np.testing.assert_allclose(attach(False), nearest, rtol=1e-4, atol=1e-5)
    drawn = attach(True)
    is_nearest, is_second = (np.abs(drawn - one).max(1) < 1e-4 for one in (nearest, second))
    assert (is_nearest ^ is_second).all()
    assert 0.35 < is_second.mean() < 0.65


def represented_items(params: Any) -> np.ndarray:
    """Linear([id embedding ; text]) in numpy, ``[I + 1, D]``."""
    p = jax.tree.map(np.asarray, params["params"]["items"])
    items = p["id_embedding"] @ p["from_id"]["kernel"] + p["from_id"]["bias"]
    items += np.asarray(TABLES.item_text) @ p["from_text"]["kernel"]
    items[0] = 0.0
    return items


def apply(model: Recommender, params: Any, *arguments: Any, method: str) -> np.ndarray:
    """One compiled call of a method, with the nearest seed user as the only one to draw."""
    alone = TABLES._replace(seed=TABLES.seed[:, :1])
    rngs = {"dropout": jax.random.key(0)}
    return np.asarray(jax.jit(lambda p: model.apply(p, alone, *arguments, method=method, rngs=rngs))(params))


def test_sequential_loss_is_the_cross_entropy_of_every_place() -> None:
    """Hidden state of every used place -> fusion -> log softmax over the catalogue, in numpy."""
    model = recommender("sasrec", "reland")
    params = random_params(model, SEQUENCES)
    items = represented_items(params)
    encode = jax.jit(SASRec(model.model, LENGTH).apply, static_argnums=4)
    arguments = (jnp.asarray(items)[SEQUENCES.items], SEQUENCES.position, SEQUENCES.segment, False)
    hidden = np.asarray(encode({"params": params["params"]["backbone"]}, *arguments)).reshape(-1, DIM)
    seed = np.asarray(TABLES.seed)[SEQUENCES.user, 0]
    users = fused(params, hidden[SEQUENCES.place], np.asarray(TABLES.rationale)[seed])
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(apply(model, params, SEQUENCES, method="user_vectors"), users, **close)
    np.testing.assert_allclose(apply(model, params, method="item_vectors"), items, **close)
    scores = users @ items[1:].T
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(4), np.asarray(SEQUENCES.target) - 1]
    found = apply(model, params, SEQUENCES, method="loss")
    assert float(found) == pytest.approx(losses[:3].mean(), rel=1e-4)


def test_collaborative_loss_is_bpr_with_a_penalty() -> None:
    """Scores of fused users, softplus of the differences, and half the squared embeddings of the batch."""
    model = recommender("lightgcn", "reland")
    params = random_params(model, PAIRS)
    users, items = (apply(model, params, method=f"{kind}_vectors") for kind in ("user", "item"))
    chosen = np.concatenate([PAIRS.positive[:, None], PAIRS.negative], 1)
    scores = np.einsum("bd,bnd->bn", users[PAIRS.user], items[chosen])
    each = np.log1p(np.exp(scores[:, 1:] - scores[:, :1])).mean(1)
    squares = (np.asarray(params["params"]["user_embedding"])[PAIRS.user] ** 2).sum()
    squares += (represented_items(params)[chosen] ** 2).sum()
    found = apply(model, params, PAIRS, method="loss")
    assert float(found) == pytest.approx(each[:3].mean() + 0.5 * 0.3 * squares / 4, rel=1e-4)
