"""The item representation and the fusion of Eq. 5, by hand."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import FusionConfig
from reland_jax.models.representation import ItemRepresentation, RationaleFusion

NUM_ITEMS, DIM, TEXT, BATCH = 7, 4, 6, 5
RNG = np.random.default_rng(0)
ITEM_TEXT = RNG.normal(size=(NUM_ITEMS + 1, TEXT)).astype(np.float32)
USER = RNG.normal(size=(BATCH, DIM)).astype(np.float32)
RATIONALE = RNG.normal(size=(BATCH, TEXT)).astype(np.float32)
ONE = (RATIONALE, np.arange(BATCH, dtype=np.int32)[:, None], np.ones((BATCH, 1), np.float32))


def test_item_representation_is_linear_of_the_concatenation() -> None:
    """Linear([id embedding ; text]) with the kernels of both parts stacked; the padding item is zero."""
    module = ItemRepresentation(NUM_ITEMS, DIM, with_text=True, init_scale=0.5)
    params = module.init(jax.random.key(0), ITEM_TEXT)["params"]
    params["from_id"]["bias"] = jnp.arange(1.0, DIM + 1)
    kernel = jnp.concatenate([params["from_id"]["kernel"], params["from_text"]["kernel"]])
    together = np.concatenate([params["id_embedding"], ITEM_TEXT], axis=1)
    linear = {"params": {"kernel": kernel, "bias": params["from_id"]["bias"]}}
    expected = np.asarray(nn.Dense(DIM).apply(linear, together))
    found = np.asarray(module.apply({"params": params}, ITEM_TEXT))
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5, atol=1e-6)
    assert not found[0].any() and expected[0].any()


def test_item_representation_without_text_is_the_embedding() -> None:
    module = ItemRepresentation(NUM_ITEMS, DIM, with_text=False, init_scale=0.5)
    variables = module.init(jax.random.key(0), None)
    assert list(variables["params"]) == ["id_embedding"]
    found = module.apply(variables, None)
    np.testing.assert_array_equal(found[1:], variables["params"]["id_embedding"][1:])
    assert not np.asarray(found[0]).any()


@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.parametrize("copies", [1, 3])
def test_some_rows_are_those_of_all_items(with_text: bool, copies: int) -> None:
    """Of 6 and of 18 asked for, which is fewer and more than there are; 0 and 8 and above give zeros."""
    module = ItemRepresentation(NUM_ITEMS, DIM, with_text=with_text, init_scale=0.5)
    text = jnp.asarray(ITEM_TEXT) if with_text else None
    variables = module.init(jax.random.key(0), text)
    if with_text:
        variables["params"]["from_id"]["bias"] = jnp.arange(1.0, DIM + 1)
    index = np.tile([3, 0, 7, 8, 3, 1000], copies)
    found = np.asarray(module.apply(variables, text, jnp.asarray(index), method="rows"))
    everything = np.concatenate([module.apply(variables, text), np.zeros((1, DIM))])
    np.testing.assert_allclose(found, everything[np.minimum(index, 8)], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0]).max() > 0 and not found[1].any()


@pytest.fixture(scope="module")
def fusion_params() -> Any:
    """Parameters large enough for attention weights that are far from one half."""
    params = RationaleFusion(FusionConfig()).init(jax.random.key(0), USER, *ONE, False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.7, leaf.shape).astype(np.float32), params)


def test_fusion_is_equation_5(fusion_params: Any) -> None:
    """e'_u = 2 (a e_u + b r), (a, b) = softmax(w . e_u, w . r), r the projected rationale.

    The 2 is this project's: at equal attention e_u keeps its length.
    """
    p = fusion_params["params"]
    found = RationaleFusion(FusionConfig(dropout=0.9)).apply(fusion_params, USER, *ONE, False)
    weights = []
    for row in range(BATCH):
        projected = RATIONALE[row] @ p["project"]["kernel"] + p["project"]["bias"]
        scores = np.exp([p["attention"] @ USER[row], p["attention"] @ projected])
        a, b = scores / scores.sum()
        weights.append(a)
        np.testing.assert_allclose(found[row], 2 * (a * USER[row] + b * projected), rtol=1e-5, atol=1e-6)
    assert min(weights) < 0.35 and max(weights) > 0.65


def test_training_starts_at_the_plain_backbone() -> None:
    """Untrained, the rationale adds nothing and the user keeps its representation, up to 5%."""
    module = RationaleFusion(FusionConfig())
    found = module.apply(module.init(jax.random.key(0), USER, *ONE, False), USER, *ONE, False)
    assert float(jnp.abs(found - USER).max()) < 0.05 * np.abs(USER).max()


def test_what_is_learned_in_the_place_of_rationales_starts_as_given(fusion_params: Any) -> None:
    """Then it is read in their place, whatever is given, and has gradients where a user has the seed."""
    module, given = RationaleFusion(FusionConfig(), learned=True), RATIONALE + 1
    learned = module.init(jax.random.key(0), USER, *ONE, False)["params"]["rationale"]
    np.testing.assert_array_equal(learned, RATIONALE)
    params = {"params": fusion_params["params"] | {"rationale": given}}
    found = module.apply(params, USER, *ONE, False)
    expected = RationaleFusion(FusionConfig()).apply(fusion_params, USER, given, *ONE[1:], False)
    np.testing.assert_array_equal(found, expected)
    two = (USER[:2], RATIONALE, *(side[:2] for side in ONE[1:]))
    moved = jax.grad(lambda p: module.apply(p, *two, False).sum())(params)["params"]["rationale"]
    assert (np.abs(moved).sum(1) > 0).tolist() == [True, True, False, False, False]


def test_dropout_works_on_the_rationale_in_training_only(fusion_params: Any) -> None:
    """At evaluation no random key is needed; with everything dropped the user is left beside a zero."""
    module = RationaleFusion(FusionConfig(dropout=0.5))
    user, seed, cosine = (jnp.asarray(np.repeat(a[:1], 4000, axis=0)) for a in (USER, *ONE[1:]))
    rows = user, jnp.asarray(RATIONALE), seed, cosine
    apply = jax.jit(module.apply, static_argnums=5)
    certain = apply(fusion_params, *rows, False)
    assert float(jnp.abs(certain - certain[0]).max()) < 1e-6
    dropped = np.asarray(apply(fusion_params, *rows, True, rngs={"dropout": jax.random.key(0)}))
    p = fusion_params["params"]
    user = USER[0]
    a = 1 / (1 + np.exp(-p["attention"] @ user))
    # The second dropout zeroes all D projected values at once in 1/2^D = 1/16 of the rows.
    emptied = np.abs(dropped - 2 * a * user).max(1) < 1e-5
    assert 0.04 < emptied.mean() < 0.09


def test_a_shared_projection_is_that_of_the_items_times_a_gain() -> None:
    """Eq. 5 with Linear(r) = gain * P r, P being the kernel that item texts go through."""
    items = ItemRepresentation(NUM_ITEMS, DIM, with_text=True, init_scale=0.5)
    item_params = items.init(jax.random.key(0), ITEM_TEXT)
    kernel = np.asarray(item_params["params"]["from_text"]["kernel"])

    def project(text: jax.Array) -> jax.Array:
        return items.apply(item_params, text, method="project")

    module = RationaleFusion(FusionConfig(projection="shared", dropout=0.0))
    start = module.init(jax.random.key(1), USER, *ONE, False, project)
    shapes = {name: leaf.shape for name, leaf in start["params"].items()}
    assert shapes == {"attention": (DIM,), "gain": ()}
    unchanged = module.apply(start, USER, *ONE, False, project)
    assert float(jnp.abs(unchanged - USER).max()) < 0.05 * np.abs(USER).max()
    gain, attention = np.float32(-1.7), RNG.normal(size=DIM).astype(np.float32)
    found = module.apply({"params": {"gain": gain, "attention": attention}}, USER, *ONE, False, project)
    projected = gain * (RATIONALE @ kernel)
    a = 1 / (1 + np.exp(projected @ attention - USER @ attention))[:, None]
    np.testing.assert_allclose(found, 2 * (a * USER + (1 - a) * projected), rtol=1e-4, atol=1e-5)
    given = RationaleFusion(FusionConfig(projection="shared", dropout=0.0, gain=0.25))
    assert set(given.init(jax.random.key(1), USER, *ONE, False, project)["params"]) == {"attention"}
    fixed = given.apply({"params": {"attention": attention}}, USER, *ONE, False, project)
    learned = {"gain": np.float32(0.25), "attention": attention}
    np.testing.assert_array_equal(fixed, module.apply({"params": learned}, USER, *ONE, False, project))


def test_several_rationales_are_weighed_by_cosine_and_attention(fusion_params: Any) -> None:
    """Their mean, by weights softmax(log cosine + w . r_j), stands in for r."""
    p = fusion_params["params"]
    texts = RNG.normal(size=(BATCH, 3, TEXT)).astype(np.float32)
    cosine = np.tile(np.float32([0.9, 0.3, -0.5]), (BATCH, 1))
    several = texts.reshape(-1, TEXT), np.arange(BATCH * 3).reshape(BATCH, 3), cosine
    found = RationaleFusion(FusionConfig()).apply(fusion_params, USER, *several, False)
    for row in range(BATCH):
        projected = texts[row] @ p["project"]["kernel"] + p["project"]["bias"]
        weights = np.array([0.9, 0.3, 1e-3]) * np.exp(projected @ p["attention"])
        r = weights @ projected / weights.sum()
        a, b = np.exp([p["attention"] @ USER[row], p["attention"] @ r])
        np.testing.assert_allclose(found[row], 2 * (a * USER[row] + b * r) / (a + b), rtol=1e-4, atol=1e-5)
