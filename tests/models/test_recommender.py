"""The two families of recommenders: which parameters a variant has, and losses and vectors by hand."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import ENCODERS, LINEAR, FusionConfig, ModelConfig
from reland_jax.models import (
    MODELS,
    PairBatch,
    Recommender,
    SequenceBatch,
    Tables,
    Views,
    bipartite_graph,
    build_graph,
    build_propagation,
    create_recommender,
)
from reland_jax.models.duorec import info_nce
from reland_jax.types import RelandError
from reland_jax.variants import VARIANTS, find_variant
from tests.toys import random_ragged

NUM_USERS, NUM_ITEMS, DIM, TEXT, NUM_SEEDS, LENGTH = 6, 9, 4, 5, 4, 5
TRAIN = random_ragged([3, 2, 5, 1, 4, 2], NUM_ITEMS)
_rng = np.random.default_rng(0)
TABLES = Tables(
    item_text=jnp.asarray(_rng.normal(size=(NUM_ITEMS + 1, TEXT)), jnp.float32),
    rationale=jnp.asarray(_rng.normal(size=(NUM_SEEDS, TEXT)), jnp.float32),
    seed=jnp.asarray([[user % NUM_SEEDS, (user + 1) % NUM_SEEDS] for user in range(NUM_USERS)], jnp.int32),
    propagation=build_propagation(bipartite_graph(TRAIN, NUM_ITEMS), TRAIN.num_rows),
)
GRAPH = build_graph(TRAIN, NUM_ITEMS, np.array([[-1, 0, 1, 1, 0, -1, 2, 2, 1, 0]], np.int32))
SEQUENCES = SequenceBatch(
    items=jnp.array([[3, 1, 4, 7, 2], [9, 8, 0, 0, 0]], jnp.int32),
    position=jnp.array([[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]], jnp.int32),
    segment=jnp.array([[1, 1, 1, 2, 2], [3, 3, 0, 0, 0]], jnp.int32),
    place=jnp.array([2, 4, 6, 0], jnp.int32),
    user=jnp.array([0, 5, 2, 0], jnp.int32),
    target=jnp.array([5, 6, 1, 1], jnp.int32),
    weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
    views=Views(
        place=jnp.array([1, 4, 5, 0], jnp.int32),
        target=jnp.array([4, 6, 8, 1], jnp.int32),
        weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
        items=jnp.array([[7, 5, 0], [1, 2, 3], [6, 0, 0], [0, 0, 0]], jnp.int32),
        position=jnp.array([[0, 1, 0], [0, 1, 2], [0, 0, 0], [0, 0, 0]], jnp.int32),
        segment=jnp.array([[1, 1, 0], [2, 2, 2], [3, 0, 0], [0, 0, 0]], jnp.int32),
        last=jnp.array([1, 5, 6, 9], jnp.int32),
    ),
)
PAIRS = PairBatch(
    user=jnp.array([0, 3, 5, 0], jnp.int32),
    positive=jnp.array([1, 2, 9, 1], jnp.int32),
    negative=jnp.array([[4, 5], [6, 7], [8, 1], [2, 3]], jnp.int32),
    weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
)


SMALL = ModelConfig(dim=DIM, layers=1, heads=2, inner=6, dropout=0.0, hidden=3, tower=(3, 2), contrast=0.4)
SETS = tuple(name for name, line in MODELS.items() if line.build and not line.sequential)
SEQUENTIAL = tuple(name for name, line in MODELS.items() if line.build and line.sequential)
MOST = [pytest.param(name, marks=pytest.mark.slow if name == "duorec" else []) for name in ENCODERS]
"""DuoRec has the parameters of SASRec; two views and their contrast make it the slowest to compile."""


def batch_for(backbone: str) -> Any:
    return SEQUENCES if MODELS[backbone].sequential else PAIRS


def tables_of(model: Recommender, tables: Tables = TABLES) -> Tables:
    """With the kind of graph that the backbone reads."""
    other = MODELS[model.backbone.config.backbone].heterogeneous
    return tables._replace(propagation=GRAPH) if other else tables


def recommender(
    backbone: str, variant: str, projection: str = "own", dropout: float = 0.0, activations: str = "float32",
    rationales: int = 1,
) -> Recommender:  # fmt: skip
    return create_recommender(
        dataclasses.replace(SMALL, backbone=backbone, dropout=dropout, activations=activations),
        FusionConfig(dropout=0.0, projection=projection), find_variant(variant),
        num_users=NUM_USERS, num_items=NUM_ITEMS, max_length=LENGTH, embedding_l2=0.3,
        rationales=rationales,
    )  # fmt: skip


def random_params(model: Recommender, batch: Any) -> Any:
    """Parameters of the right shapes and of a size at which every part matters."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(rngs, tables_of(model), batch, method="loss"))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


def parameter_names(params: Any) -> set[str]:
    paths = jax.tree_util.tree_leaves_with_path(params["params"])
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths}


@pytest.mark.parametrize("backbone", ENCODERS)
def test_a_variant_adds_its_parameters_and_no_others(backbone: str) -> None:
    """The same additions, whatever the backbone: that is the one mechanism."""
    batch = batch_for(backbone)
    names = {v: parameter_names(random_params(recommender(backbone, v), batch)) for v in VARIANTS}
    assert not [name for name in names["id"] if "text" in name or "fuse" in name]
    added = {"items/from_id/kernel", "items/from_id/bias", "items/from_text/kernel"}
    assert names["f_item"] - names["id"] == added
    assert names["reland"] - names["f_item"] == {"fuse/attention", "fuse/project/kernel", "fuse/project/bias"}
    assert names["id"] < names["f_item"] < names["reland"]


def test_every_named_backbone_has_a_line_in_the_table() -> None:
    assert {*ENCODERS, *LINEAR} == set(MODELS)


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
        return np.asarray(
            model.apply(params, TABLES, user, vectors, train, method="fuse_rationales", rngs=rngs)
        )

    seed, rationale = np.asarray(TABLES.seed)[user], np.asarray(TABLES.rationale)
    nearest, second = (fused(params, np.asarray(vectors), rationale[seed[:, column]]) for column in (0, 1))
    np.testing.assert_allclose(attach(False), nearest, rtol=1e-4, atol=1e-5)
    drawn = attach(True)
    is_nearest, is_second = (np.abs(drawn - one).max(1) < 1e-4 for one in (nearest, second))
    assert (is_nearest ^ is_second).all()
    assert 0.35 < is_second.mean() < 0.65


def test_training_withholds_a_share_of_the_rationales() -> None:
    """What is withheld leaves the backbone's vector as it was; at evaluation nothing is."""
    model = recommender("lightgcn", "reland")
    params = random_params(model, PAIRS)
    user = jnp.tile(jnp.arange(NUM_USERS), 100)
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(len(user), DIM)), jnp.float32)
    tables = TABLES._replace(seed=TABLES.seed[:, :1])

    def attach(withheld: float, train: bool) -> np.ndarray:
        changed = model.clone(fusion=dataclasses.replace(model.fusion, withheld=withheld))
        rngs = {"dropout": jax.random.key(3)}
        return np.asarray(
            changed.apply(params, tables, user, vectors, train, method="fuse_rationales", rngs=rngs)
        )

    whole, drawn = attach(0.0, True), attach(0.3, True)
    without = (drawn == np.asarray(vectors)).all(1)
    assert 0.25 < without.mean() < 0.35
    np.testing.assert_array_equal(drawn[~without], whole[~without])
    np.testing.assert_array_equal(attach(0.3, False), attach(0.0, False))


def test_the_rationales_of_a_user_are_different_seed_users() -> None:
    """At evaluation the k nearest, in training one of every k-th part of the n nearest."""
    count, k = 400, 2
    near = np.tile(np.arange(NUM_SEEDS, dtype=np.int32), (NUM_USERS, 1))
    tables = TABLES._replace(seed=jnp.asarray(near), cosine=jnp.ones((NUM_USERS, NUM_SEEDS)))
    model = recommender("lightgcn", "reland", rationales=k)
    params, user = random_params(model, PAIRS), jnp.zeros(count, jnp.int32)
    vectors = jnp.zeros((count, DIM))
    rngs = {"dropout": jax.random.key(3)}
    found = [
        np.asarray(model.apply(params, tables, user, vectors, train, method="fuse_rationales", rngs=rngs))
        for train in (False, True)
    ]
    p, rationale = params["params"]["fuse"], np.asarray(TABLES.rationale)
    projected = rationale @ np.asarray(p["project"]["kernel"]) + np.asarray(p["project"]["bias"])

    def mixed(first: int, second: int) -> np.ndarray:
        pair = projected[[first, second]]
        weights = np.exp(pair @ p["attention"])
        r = weights @ pair / weights.sum()
        return 2 * r / (1 + np.exp(-r @ p["attention"]))

    np.testing.assert_allclose(found[0], np.tile(mixed(0, 1), (count, 1)), rtol=1e-4, atol=1e-5)
    pairs = [mixed(first, second) for first in (0, 1) for second in (2, 3)]
    share = [(np.abs(found[1] - pair).max(1) < 1e-4).mean() for pair in pairs]
    assert sum(share) == 1 and min(share) > 0.15


def represented_items(params: Any) -> np.ndarray:
    """Linear([id embedding ; text]) in numpy, ``[I + 1, D]``."""
    p = jax.tree.map(np.asarray, params["params"]["items"])
    items = p["id_embedding"] @ p["from_id"]["kernel"] + p["from_id"]["bias"]
    items += np.asarray(TABLES.item_text) @ p["from_text"]["kernel"]
    items[0] = 0.0
    return items


def apply(model: Recommender, params: Any, *arguments: Any, method: str) -> np.ndarray:
    """One compiled call of a method, with the nearest seed user as the only one to draw."""
    alone = tables_of(model, TABLES._replace(seed=TABLES.seed[:, :1]))
    rngs = {"dropout": jax.random.key(0)}
    return np.asarray(jax.jit(lambda p: model.apply(p, alone, *arguments, method=method, rngs=rngs))(params))


def score(model: Recommender, params: Any, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """All scores, as ranking computes them."""
    return np.asarray(jax.jit(lambda *a: model.apply(*a, method="score"))(params, users, items))


def encoded(model: Recommender, params: Any, *arguments: Any) -> np.ndarray:
    """The backbone alone, without dropout."""
    encode = jax.jit(model.backbone.apply, static_argnums=len(arguments) + 1)
    own = {"params": params["params"].get("backbone", {})}
    return jax.tree.map(np.asarray, encode(own, *arguments, False))


@pytest.mark.parametrize("backbone", SEQUENTIAL)
def test_sequential_loss_is_the_cross_entropy_of_every_place(backbone: str) -> None:
    """Hidden state of every used place -> fusion -> log softmax over the catalogue, in numpy."""
    model = recommender(backbone, "reland")
    params = random_params(model, SEQUENCES)
    items = represented_items(params)
    inputs = jnp.asarray(items)[SEQUENCES.items], SEQUENCES.position, SEQUENCES.segment
    hidden = encoded(model, params, *inputs).reshape(-1, DIM)
    seed = np.asarray(TABLES.seed)[SEQUENCES.user, 0]
    users = fused(params, hidden[SEQUENCES.place], np.asarray(TABLES.rationale)[seed])
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(apply(model, params, SEQUENCES, method="user_vectors"), users, **close)
    np.testing.assert_allclose(apply(model, params, method="item_vectors"), items, **close)
    np.testing.assert_allclose(score(model, params, users, items), users @ items.T, **close)
    scores = users @ items[1:].T
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(4), np.asarray(SEQUENCES.target) - 1]
    expected = losses[:3].mean()
    if MODELS[backbone].contrastive:
        expected += contrasts(model, params, items, hidden)
    found = apply(model, params, SEQUENCES, method="loss")
    assert float(found) == pytest.approx(expected, rel=1e-4)


def contrasts(model: Recommender, params: Any, items: np.ndarray, hidden: np.ndarray) -> float:
    """Both contrasts of the views; without dropout a sequence's second view is its first one again."""
    views = SEQUENCES.views
    assert views is not None
    other = encoded(model, params, jnp.asarray(items)[views.items], views.position, views.segment)
    own, other = hidden[views.place], other.reshape(-1, DIM)[views.last]
    return 0.4 * sum(
        float(info_nce(jnp.asarray(own), jnp.asarray(second), views.target, views.weight, 1.0))
        for second in (own, other)
    )


@pytest.mark.parametrize("backbone", SETS)
def test_collaborative_loss_is_bpr_with_a_penalty(backbone: str) -> None:
    """Softplus of the differences of the scores that rank, and half the pairs' squared id embeddings."""
    model = recommender(backbone, "reland")
    params = random_params(model, PAIRS)
    users, items = (apply(model, params, method=f"{kind}_vectors") for kind in ("user", "item"))
    everything = score(model, params, users, items)
    chosen = np.concatenate([PAIRS.positive[:, None], PAIRS.negative], 1)
    scores = everything[np.asarray(PAIRS.user)[:, None], chosen]
    each = np.log1p(np.exp(scores[:, 1:] - scores[:, :1])).mean(1)
    squares = (np.asarray(params["params"]["user_embedding"])[PAIRS.user] ** 2).sum(1)
    squares += (np.asarray(params["params"]["items"]["id_embedding"])[chosen] ** 2).sum((1, 2))
    found = apply(model, params, PAIRS, method="loss")
    assert not PAIRS.weight[3], "the last pair is unused"
    assert float(found) == pytest.approx(np.mean((each + 0.5 * 0.3 * squares)[:3]), rel=1e-4)


@pytest.mark.parametrize("backbone", SETS)
@pytest.mark.parametrize("drawn", [None, list(range(1, NUM_ITEMS + 1)), [5, 2, 2, 9]])
def test_collaborative_cross_entropy_is_over_the_catalogue(backbone: str, drawn: list[int] | None) -> None:
    """Log softmax of the scores that rank; a sample of all items is the catalogue, another stands for it."""
    model = recommender(backbone, "reland")
    params = random_params(model, PAIRS)
    batch = PAIRS._replace(negative=None if drawn is None else jnp.asarray(drawn, jnp.int32))
    users, items = (apply(model, params, method=f"{kind}_vectors") for kind in ("user", "item"))
    scores = score(model, params, users, items)[np.asarray(PAIRS.user)]
    own = scores[np.arange(4), PAIRS.positive]
    sums = []
    for row, target in zip(scores, np.asarray(PAIRS.positive).tolist(), strict=True):
        others = [item for item in drawn or range(1, NUM_ITEMS + 1) if item != target]
        sums.append(np.exp(row[target]) + np.exp(row[others]).sum() * (NUM_ITEMS - 1) / len(others))
    squares = (np.asarray(params["params"]["user_embedding"])[PAIRS.user] ** 2).sum(1)
    squares += (np.asarray(params["params"]["items"]["id_embedding"])[PAIRS.positive] ** 2).sum(1)
    expected = (np.log(sums) - own + 0.5 * 0.3 * squares)[:3].mean()
    assert float(apply(model, params, batch, method="loss")) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf", "gat"])
def test_a_dot_product_is_the_score_where_the_backbone_has_no_other(backbone: str) -> None:
    """Users are fused after propagation, items are as the backbone leaves them."""
    model = recommender(backbone, "reland")
    params = random_params(model, PAIRS)
    nodes = jnp.asarray(params["params"]["user_embedding"]), jnp.asarray(represented_items(params))
    sides = encoded(model, params, *nodes, tables_of(model).propagation)
    backbone = {"params": params["params"].get("backbone", {})}
    users, items = (np.asarray(model.backbone.apply(backbone, side, method="readout")) for side in sides)
    users = fused(params, users, np.asarray(TABLES.rationale)[np.asarray(TABLES.seed)[:, 0]])
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(apply(model, params, method="user_vectors"), users, **close)
    np.testing.assert_allclose(apply(model, params, method="item_vectors"), items, **close)
    np.testing.assert_allclose(score(model, params, users, items), users @ items.T, **close)


@pytest.mark.parametrize("backbone", ["ngcf", "neumf", "gru4rec"])
def test_a_shared_projection_stands_with_the_embeddings(backbone: str) -> None:
    """Linear(r) is the gain times the item texts' projection, with zeros beside it up to the user's width."""
    model = recommender(backbone, "reland", projection="shared")
    params = random_params(model, batch_for(backbone))
    fuse, kernel = params["params"]["fuse"], np.asarray(params["params"]["items"]["from_text"]["kernel"])
    width = fuse["attention"].shape[0]
    assert width == {"ngcf": 2 * DIM, "neumf": 2 * DIM, "gru4rec": DIM}[backbone]
    vectors = np.random.default_rng(5).normal(size=(NUM_USERS, width)).astype(np.float32)
    own = np.asarray(TABLES.rationale)[np.asarray(TABLES.seed)[:, 0]] @ kernel * np.asarray(fuse["gain"])
    padded = np.zeros((NUM_USERS, width), np.float32)
    padded[:, : own.shape[1]] = own
    weights = np.exp(np.stack([vectors @ fuse["attention"], padded @ fuse["attention"]], -1))
    weights /= weights.sum(-1, keepdims=True)
    expected = 2 * (weights[:, :1] * vectors + weights[:, 1:] * padded)
    user = jnp.arange(NUM_USERS)
    found = apply(model, params, user, jnp.asarray(vectors), False, method="fuse_rationales")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", MOST)
def test_every_parameter_learns_and_no_gradient_is_lost(backbone: str) -> None:
    """With dropout and every part of the method on, each tensor has a finite gradient that is not zero."""
    model = recommender(backbone, "reland", dropout=0.3)
    batch = batch_for(backbone)
    params = random_params(model, batch)
    rngs = {"dropout": jax.random.key(0)}
    gradient = jax.jit(jax.grad(lambda *a, rngs: model.apply(*a, method="loss", rngs=rngs)))
    found = gradient(params, tables_of(model), batch, rngs=rngs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-8, name


@pytest.mark.parametrize("backbone", ["lightgcn", "gru4rec"])
def test_texts_start_as_their_leading_directions_or_at_random(backbone: str) -> None:
    """`item_scale` times the first D directions; with None a random projection."""

    def kernel(item_scale: float | None) -> np.ndarray:
        fusion = FusionConfig(item_scale=item_scale)
        model = recommender(backbone, "f_item").clone(fusion=fusion)
        initialise = partial(model.init, method=lambda model, text: model.items(text))
        params = jax.jit(initialise)(jax.random.key(0), TABLES.item_text)["params"]
        return np.asarray(params["items"]["from_text"]["kernel"])

    np.testing.assert_array_equal(kernel(6.0), 6 * np.eye(TEXT, DIM))
    assert len(np.unique(kernel(None))) == TEXT * DIM


def loss_and_gradients(model: Recommender) -> tuple[float, Any]:
    """Of the same random parameters, whatever the activations."""
    batch = batch_for(model.backbone.config.backbone)
    params = random_params(model, batch)
    loss = partial(model.apply, rngs={"dropout": jax.random.key(0)}, method="loss")
    return jax.jit(jax.value_and_grad(lambda p: loss(p, tables_of(model), batch)))(params)


@pytest.mark.parametrize("backbone", MOST)
def test_bfloat16_activations_leave_parameters_and_gradients_in_float32(backbone: str) -> None:
    """And what comes out is the same to the precision of 8 bits."""
    (loss, gradients), (rough_loss, rough) = (
        loss_and_gradients(recommender(backbone, "reland", activations=dtype))
        for dtype in ("float32", "bfloat16")
    )
    assert float(rough_loss) == pytest.approx(float(loss), rel=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(rough)} == {jnp.dtype("float32")}
    flat, rough_flat = (np.concatenate([g.ravel() for g in jax.tree.leaves(t)]) for t in (gradients, rough))
    assert np.linalg.norm(rough_flat - flat) < 0.05 * np.linalg.norm(flat)
    # LightGCN has sums only, and they stay as they are.
    assert (np.abs(rough_flat - flat).max() > 0) == (backbone != "lightgcn")
