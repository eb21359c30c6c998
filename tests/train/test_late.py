"""Late interaction against brute force, and recommenders that read rationales as sets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import FusionConfig
from reland_jax.models import Recommender, Tables
from reland_jax.models.representation import SetFusion
from reland_jax.text import ablated
from reland_jax.train import with_late_scores
from reland_jax.train.late import late_scores
from tests.models.test_recommender import (
    DIM,
    NUM_ITEMS,
    NUM_SEEDS,
    SEQUENCES,
    TABLES,
    TEXT,
    batch_for,
    recommender,
    score,
    tables_of,
)

COUNT = 3
RNG = np.random.default_rng(4)
PHRASES = RNG.normal(size=(NUM_SEEDS, COUNT, TEXT)).astype(np.float32)
PHRASES[1, 2] = PHRASES[3, 1:] = 0  # of two seed users there are fewer
ITEMS = np.asarray(TABLES.item_text)


def centred() -> np.ndarray:
    """The largest cosine of an item to a phrase of a rationale, minus its mean, ``[S, I + 1]``."""
    likeness = np.zeros((NUM_SEEDS, NUM_ITEMS + 1))
    for seed in range(NUM_SEEDS):
        for item in range(NUM_ITEMS + 1):
            likeness[seed, item] = max(
                phrase @ ITEMS[item] / np.linalg.norm(phrase) / np.linalg.norm(ITEMS[item])
                for phrase in PHRASES[seed]
                if phrase.any()
            )
    return likeness - likeness.mean(0)


def added(count: int) -> np.ndarray:
    """What each rationale adds to all items, ``[S, I + 1]``."""
    out = np.zeros((NUM_SEEDS, NUM_ITEMS + 1))
    for row, values in zip(out, centred(), strict=True):
        order = 1 + np.argsort(-values[1:])
        row[order[:count]] = values[order[:count]] - (values[order[count]] if count < NUM_ITEMS else 0)
    return out


@pytest.mark.parametrize("count", [2, NUM_ITEMS, 50])
def test_a_rationale_speaks_for_the_items_most_like_one_of_its_phrases(count: int) -> None:
    found = late_scores(PHRASES, ITEMS, count)
    ours = np.zeros((NUM_SEEDS, NUM_ITEMS + 1))
    np.put_along_axis(ours, found.item, found.value, 1)
    np.testing.assert_allclose(ours, added(min(count, NUM_ITEMS)), atol=1e-6)
    assert found.item.min() > 0


def test_a_user_reads_the_phrases_that_matter_to_it() -> None:
    """Softmax of the products with the phrases of both seed users, times cosines; none that is unused."""
    users = RNG.normal(size=(5, DIM)).astype(np.float32)
    seed, cosine = np.array([[0, 1], [1, 3], [3, 2], [2, 0], [3, 1]]), RNG.uniform(0.1, 1, (5, 2))
    module, given = SetFusion(FusionConfig(dropout=0.9)), (users, jnp.asarray(PHRASES), seed, cosine, False)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *given))
    params = jax.tree.map(lambda leaf: RNG.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)
    p = params["params"]
    found = module.apply(params, *given)
    for row in range(5):
        projected, weights = [], []
        for one, likeness in zip(seed[row], cosine[row], strict=True):
            for phrase in PHRASES[one]:
                if phrase.any():
                    projected.append(phrase @ p["project"]["kernel"] + p["project"]["bias"])
                    weights.append(likeness * np.exp(users[row] @ projected[-1] / DIM**0.5))
        read = np.asarray(weights) @ np.stack(projected) / np.sum(weights)
        a, b = np.exp([users[row] @ p["attention"], read @ p["attention"]])
        expected = 2 * (a * users[row] + b * read) / (a + b)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def of_sets(backbone: str, variant: str) -> tuple[Recommender, Tables[Any]]:
    """A recommender that reads sets, and its tables."""
    fusion = FusionConfig(reading="set", dropout=0.0, late_gain=3.0, late_items=4)
    model = recommender(backbone, variant, rationales=2).clone(fusion=fusion)
    tables = Tables(**(jax.tree.map(np.asarray, TABLES)._asdict() | {
        "rationale": ablated(PHRASES, "noise") if variant == "seed_id" else PHRASES,
        "cosine": np.full(TABLES.seed.shape, 0.5, np.float32),
    }))  # fmt: skip
    return model, tables_of(model, jax.tree.map(jnp.asarray, with_late_scores(model, tables)))


def params_of(model: Recommender, tables: Tables[Any], batch: Any) -> Any:
    """Random parameters of a size at which every part matters."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(rngs, tables, batch, method="loss"))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


@pytest.mark.parametrize("backbone", ["lightgcn", "neumf", "sasrec"])
def test_late_interaction_is_added_to_the_score(backbone: str) -> None:
    """The mean of what both seed users' rationales add, times the gain."""
    model, tables = of_sets(backbone, "reland")
    batch = batch_for(backbone)
    params = params_of(model, tables, batch)
    arguments = (batch,) if backbone == "sasrec" else ()
    users, items = (
        np.asarray(model.apply(params, tables, *rest, method=f"{side}_vectors"))
        for side, rest in (("user", arguments), ("item", ()))
    )
    assert users.shape[1] == model.user_columns(items.shape[1]) == items.shape[1] - 1 + 2 * 8
    own = score(model, params, np.pad(users[:, 16:], ((0, 0), (16, 0))), items)
    user = np.asarray(SEQUENCES.user) if arguments else np.arange(len(users))
    gain = 3.0 * np.exp(float(params["params"]["late_gain"]))
    expected = own + gain * added(4)[np.asarray(TABLES.seed)[user]].mean(1)
    np.testing.assert_allclose(score(model, params, users, items), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["reland", "seed_id"])
@pytest.mark.parametrize("backbone", ["lightgcn", "sasrec"])
def test_what_reads_a_set_learns(backbone: str, variant: str) -> None:
    """The gain, the projection and, of seed_id, the phrases have gradients."""
    model, tables = of_sets(backbone, variant)
    batch = batch_for(backbone)
    params = params_of(model, tables, batch)
    rngs = {"dropout": jax.random.key(0)}
    found = jax.grad(lambda p: model.apply(p, tables, batch, method="loss", rngs=rngs))(params)["params"]
    assert abs(float(found["late_gain"])) > 1e-6
    assert np.abs(found["fuse"]["project"]["kernel"]).max() > 1e-6
    assert ("rationale" in found["fuse"]) == (variant == "seed_id")
    if variant == "seed_id":
        moved = np.abs(found["fuse"]["rationale"]).sum(-1) > 0
        assert moved.any() and not moved[~PHRASES.any(-1)].any()


def test_ablations_of_sets_have_as_many_phrases() -> None:
    noise, permuted = (ablated(PHRASES, name) for name in ("noise", "permuted"))
    np.testing.assert_array_equal(noise.any(-1), PHRASES.any(-1))
    assert not (noise == PHRASES)[PHRASES.any(-1)].any()
    assert sorted(map(np.ndarray.tobytes, permuted)) == sorted(map(np.ndarray.tobytes, PHRASES))
    assert not (permuted == PHRASES).all((1, 2)).any()
