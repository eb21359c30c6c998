"""iALS with its data: what is ranked, from which histories, and on several devices."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from reland_jax.config import EvalConfig, FusionConfig, MeshConfig, ModelConfig, TrainConfig
from reland_jax.linear import IalsConfig
from reland_jax.mesh import use_mesh
from reland_jax.models import Tables, create_recommender
from reland_jax.train import ClosedForm, Evaluator, FitResult, create_task, fit, param_shapes
from reland_jax.types import Splits
from reland_jax.variants import find_variant
from tests.toys import random_ragged

USERS, ITEMS, SEEDS, TEXT, DIM = 53, 41, 7, 6, 8
RNG = np.random.default_rng(0)
SPLITS = Splits(
    random_ragged(RNG.integers(3, 20, USERS).tolist(), ITEMS, 1),
    random_ragged([1] * USERS, ITEMS, 2), random_ragged([2] * USERS, ITEMS, 3), ITEMS, "ratio",
)  # fmt: skip
TABLES = Tables(
    item_text=np.concatenate([np.zeros((1, TEXT)), RNG.normal(size=(ITEMS, TEXT))]).astype(np.float32),
    rationale=RNG.normal(size=(SEEDS, TEXT)).astype(np.float32),
    seed=RNG.integers(0, SEEDS, (USERS, 2)).astype(np.int32),
)
IALS = IalsConfig(unobserved=0.05, regularisation=0.02, sweeps=4, text_weight=3.0, rationale_weight=2.0)
CONFIG = TrainConfig(objective="closed_form")


def task_of(variant: str, ials: IalsConfig = IALS) -> ClosedForm:
    model = create_recommender(
        ModelConfig(backbone="ials", dim=DIM), FusionConfig(), find_variant(variant), num_users=USERS,
        num_items=ITEMS, max_length=50, embedding_l2=0.0, rationales=2, linear=ials,
    )  # fmt: skip
    task = create_task(model, TABLES, SPLITS, CONFIG, 50)
    assert isinstance(task, ClosedForm)
    return task


def fitted(task: ClosedForm, seed: int = 0) -> tuple[FitResult, Evaluator]:
    evaluator = Evaluator(task, SPLITS, EvalConfig(mask_history=True, cutoffs=(10,)))
    return fit(task, evaluator, dataclasses.replace(CONFIG, seed=seed)), evaluator


@pytest.mark.parametrize("variant", ["id", "f_item", "reland"])
def test_users_are_solved_for_from_the_training_part(variant: str) -> None:
    task = task_of(variant)
    result, evaluator = fitted(task)
    params = {name: np.asarray(value) for name, value in result.params.items() if value is not None}
    items = np.float64(params["items"])
    shared = IALS.unobserved * items.T @ params["items"]
    vectors = task.vectors(result.params, "test")
    unit = TABLES.rationale / np.linalg.norm(TABLES.rationale, axis=1, keepdims=True)
    for user in range(USERS):
        had = np.unique(SPLITS.train.row(user)) - 1
        penalty = IALS.regularisation * (len(had) + IALS.unobserved * ITEMS)
        matrix = items[had].T @ items[had] + shared + penalty * np.eye(DIM)
        wanted = items[had].sum(0)
        if variant == "reland":
            loadings = np.float64(params["rationale_loadings"])
            matrix += loadings.T @ loadings
            wanted = wanted + unit[TABLES.seed[user]].mean(0) * IALS.rationale_weight**0.5 @ loadings
        np.testing.assert_allclose(vectors.users[user], np.linalg.solve(matrix, wanted), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(vectors.items[1:], params["items"])
    assert not np.asarray(vectors.items[0]).any()
    assert result.history[0]["ndcg@10"] == evaluator.metrics(result.params, "valid")["ndcg@10"] > 0
    shapes = jax.tree.map(lambda leaf: leaf.shape, param_shapes(task, CONFIG))
    assert shapes == jax.tree.map(np.shape, result.params)


def test_variants_differ_and_weights_of_zero_read_nothing() -> None:
    without = dataclasses.replace(IALS, text_weight=0.0, rationale_weight=0.0)
    plain, texts, both, nothing = (
        np.asarray(fitted(task)[0].params["items"])
        for task in (task_of("id"), task_of("f_item"), task_of("reland"), task_of("reland", without))
    )
    np.testing.assert_array_equal(plain, nothing)
    assert np.abs(plain - texts).max() > 1e-3 and np.abs(texts - both).max() > 1e-3


def test_the_seed_draws_the_first_factors() -> None:
    first, again, other = (np.asarray(fitted(task_of("id"), s)[0].params["items"]) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_eight_devices_equal_one() -> None:
    alone, evaluator = fitted(task_of("reland"))
    expected = evaluator.ranks(alone.params, "test")
    with use_mesh(MeshConfig(data=2, model=4)):
        together, evaluator = fitted(task_of("reland"))
        np.testing.assert_allclose(together.params["items"], alone.params["items"], atol=1e-4)
        found = evaluator.ranks(together.params, "test").rank
    assert np.mean(found == expected.rank) > 0.95  # of equal factors but for the rounding


def test_other_settings_and_seeds_compile_nothing() -> None:
    fitted(task_of("reland"))
    compiled = []

    def count(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        fitted(task_of("reland", dataclasses.replace(IALS, regularisation=0.05, unobserved=0.01)), seed=3)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert not compiled


def test_validation_items_are_read_for_the_test_part_where_asked() -> None:
    """As if they were training items of the same factors."""
    model, known = task_of("id").model, SPLITS.train.joined(SPLITS.valid)
    task = create_task(model, TABLES, SPLITS, CONFIG, 50, "known")
    params = fit(task, Evaluator(task, SPLITS, EvalConfig()), CONFIG).params
    later = create_task(model, TABLES, SPLITS._replace(train=known), CONFIG, 50)
    users = task.vectors(params, "test").users
    np.testing.assert_allclose(users, later.vectors(params, "valid").users, atol=1e-5)
    assert np.abs(users - task.vectors(params, "valid").users).max() > 0.01
