"""KAR's hybrid experts and SLIM's linear fusion: by loops, and both start at the plain backbone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import Config, FusionConfig
from reland_jax.models import Recommender
from reland_jax.models.adaptors import WIDTH, HybridExperts, JoinedFusion, LinearTexts
from reland_jax.types import RelandError
from tests.models.test_recommender import (
    SETS,
    batch_for,
    parameter_names,
    random_params,
    recommender,
    tables_of,
)  # fmt: skip

TEXT, DIM, BATCH = 6, 4, 5
FAST = (("lightgcn", "reland", "linear"),)
RNG = np.random.default_rng(0)
USERS, ITEMS = RNG.normal(size=(2, BATCH, TEXT)).astype(np.float32)


def both(module: nn.Module, users: np.ndarray, items: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """y_1 and y_2 of one adaptor."""
    return module.users(users), module.items(items)


def drawn(module: nn.Module) -> Any:
    """Parameters of a size at which every part matters."""
    params = module.init(jax.random.key(0), USERS, ITEMS, method=both)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), params)


def mlp(experts: Any, j: int, x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(x @ experts["first"][j] + experts["first_bias"][j], 0)
    return np.maximum(hidden @ experts["second"][j] + experts["second_bias"][j], 0)


def test_hybrid_experts_are_a_sum_over_gates() -> None:
    """Sample by sample and expert by expert, the shared ones first."""
    module = HybridExperts(2, 3, 0.0)
    params = drawn(module)
    p = params["params"]
    for side, text, found in zip(
        ("user", "item"), (USERS, ITEMS), module.apply(params, USERS, ITEMS, method=both), strict=True
    ):
        for x, y in zip(text, np.asarray(found), strict=True):
            logits = np.exp(x @ p[f"{side}_gate"]["kernel"] + p[f"{side}_gate"]["bias"])
            gates, expected = logits / logits.sum(), np.zeros(WIDTH)
            for j in range(5):
                kind, place = ("shared_experts", j) if j < 2 else (f"{side}_experts", j - 2)
                expected += gates[j] * mlp(p[kind], place, x)
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_a_single_expert_of_its_own_is_an_mlp() -> None:
    module = HybridExperts(0, 1, 0.0)
    params = drawn(module)
    found = module.apply(params, USERS, method="users")
    np.testing.assert_allclose(found, mlp(params["params"]["user_experts"], 0, USERS), rtol=1e-5, atol=1e-6)


def test_gates_do_not_matter_where_all_experts_are_equal() -> None:
    module = HybridExperts(2, 2, 0.0)
    params = drawn(module)
    p = params["params"]
    same = {name: np.repeat(leaf[:1], 2, 0) for name, leaf in p["shared_experts"].items()}
    equal = {"params": p | {"shared_experts": same, "user_experts": same}}
    other = {"params": equal["params"] | {"user_gate": jax.tree.map(lambda leaf: leaf + RNG.normal(
        size=leaf.shape), p["user_gate"])}}  # fmt: skip
    one, two = (module.apply(each, USERS, method="users") for each in (equal, other))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(module.apply(params, USERS, method="users")) - one).max() > 0.1


@pytest.mark.parametrize("module", [HybridExperts(2, 3, 0.0), LinearTexts(DIM)])
def test_a_user_does_not_depend_on_the_texts_of_items(module: nn.Module) -> None:
    """Bit by bit, but for the parameters that both sides share."""
    params = drawn(module)
    first, of_items = module.apply(params, USERS, ITEMS, method=both)
    again, changed = module.apply(params, USERS, ITEMS + 1, method=both)
    np.testing.assert_array_equal(first, again)
    assert np.abs(of_items - changed).max() > 0.1


def test_linear_texts_and_the_join_by_hand() -> None:
    """s_u = W_s [e_u ; W_l r] + b, r the mean of the rationales by cosine, one below zero counting 0.001."""
    adaptor = LinearTexts(DIM)
    module = JoinedFusion(adaptor)
    user = RNG.normal(size=(BATCH, DIM)).astype(np.float32)
    seed, cosine = (
        np.array([[0, 1], [2, 3], [4, 0], [1, 1], [3, 2]]),
        np.tile(np.float32([0.9, -0.3]), (5, 1)),
    )
    start = module.init(jax.random.key(0), user, USERS, seed, cosine, False)
    np.testing.assert_allclose(module.apply(start, user, USERS, seed, cosine, False), user, rtol=1e-6)
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), start)
    p = params["params"]
    shares = np.array([0.9, 1e-3]) / 0.901
    for train in (False, True):
        found = module.apply(params, user, USERS, seed, cosine, train)
        for row in range(BATCH):
            text = shares @ USERS[seed[row]] @ p["adaptor"]["of_users"]["kernel"]
            expected = user[row] @ p["from_user"]["kernel"] + p["from_user"]["bias"]
            expected += text @ p["from_text"]["kernel"]
            np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_dropout_of_experts_is_for_training_alone() -> None:
    module = HybridExperts(1, 1, 0.5)
    params = drawn(module)
    certain = module.apply(params, USERS, method="users")
    keyed = module.apply(params, USERS, method="users", rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(certain, module.apply(params, USERS, method="users"))
    assert np.abs(certain - keyed).max() > 0.01


def adapted(backbone: str, variant: str, adaptor: str) -> Recommender:
    model = recommender(backbone, variant, projection="shared" if adaptor == "hea" else "own")
    return model.clone(fusion=dataclasses.replace(model.fusion, adaptor=adaptor))


def vectors(model: Recommender, params: Any) -> list[np.ndarray]:
    """Of users and of items."""
    tables, batch = tables_of(model), batch_for(model.backbone.config.backbone)
    rest = () if isinstance(batch, type(batch_for(SETS[0]))) else (batch,)
    users = model.apply(params, tables, *rest, method="user_vectors")
    return [np.asarray(users), np.asarray(model.apply(params, tables, method="item_vectors"))]


@pytest.mark.parametrize(
    ("backbone", "variant", "adaptor"),
    [
        pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
        for case in itertools.product(
            ("lightgcn", "sasrec", "ngcf"), ("f_item", "reland", "reland_only"), ("hea", "linear")
        )
    ],
)
def test_training_starts_at_the_plain_backbone_and_moves(backbone: str, variant: str, adaptor: str) -> None:
    """Exactly the vectors of `id`; and the part of the texts has gradients."""
    plain, model, batch = (
        recommender(backbone, "id"),
        adapted(backbone, variant, adaptor),
        batch_for(backbone),
    )
    own = random_params(plain, batch)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    params = model.init(rngs, tables_of(model), batch, method="loss")
    merged = dict(params["params"]) | {name: leaf for name, leaf in own["params"].items() if name != "items"}
    merged["items"] = dict(params["params"]["items"]) | own["params"]["items"]
    for ours, theirs in zip(vectors(model, {"params": merged}), vectors(plain, own), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)

    def loss(tree: Any) -> Any:
        return model.apply({"params": tree}, tables_of(model), batch, method="loss", rngs=rngs)

    moved = jax.grad(loss)(merged)
    texts = [moved["items"]["from_text"]["kernel"]] if variant != "reland_only" else []
    texts += [moved["fuse"]["from_text"]["kernel"]] if variant != "f_item" else []
    assert all(float(jnp.abs(each).max()) > 1e-6 for each in texts) and texts


def test_both_sides_share_the_experts() -> None:
    names = parameter_names(random_params(adapted("sasrec", "reland", "hea"), batch_for("sasrec")))
    adaptors = {name.split("/")[1] for name in names if name.startswith("adaptor/")}
    assert adaptors == {"shared_experts", "user_experts", "item_experts", "user_gate", "item_gate"}
    items = parameter_names(random_params(adapted("sasrec", "f_item", "hea"), batch_for("sasrec")))
    assert not [name for name in items if "user_experts" in name or "fuse" in name]


@pytest.mark.parametrize("backbone", ["lightgcn", "gru4rec"])
def test_without_item_texts_rationales_have_a_projection_of_their_own(backbone: str) -> None:
    model = recommender(backbone, "reland_only", projection="shared")
    batch = batch_for(backbone)
    names = parameter_names(random_params(model, batch))
    plain = parameter_names(random_params(recommender(backbone, "id"), batch))
    assert names - plain == {"fuse/attention", "fuse/project/kernel", "fuse/project/bias"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fusion": {"adaptor": "hea", "reading": "set"}}, "reads a rationale as one vector"),
        (
            {"fusion": {"adaptor": "linear"}, "model": {"backbone": "ease"}},
            "take attention, or another backbone",
        ),
        ({"fusion": {"reading": "set"}, "variants": ["reland_only"]}, "reland_only has no item texts"),
    ],
)
def test_what_cannot_be_adapted_is_an_error(values: dict[str, Any], message: str) -> None:
    if "model" in values:
        values = {**values, "train": {"objective": "closed_form"}}
    with pytest.raises(RelandError, match=message):
        Config.from_dict(values)


def test_eq_5_is_the_default() -> None:
    assert FusionConfig().adaptor == "attention"
