"""The linear models with their data: what is counted, what is ranked, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from reland_jax.config import EaseConfig, EvalConfig, FusionConfig, MeshConfig, ModelConfig, TrainConfig
from reland_jax.mesh import use_mesh
from reland_jax.models import Tables, create_recommender
from reland_jax.train import ClosedForm, Evaluator, FitResult, create_task, fit, param_shapes
from reland_jax.train import closed_form as module
from reland_jax.types import Ragged, RelandError, Splits, TargetRanks
from reland_jax.variants import find_variant
from tests.toys import ragged, random_ragged

USERS, ITEMS, SEEDS, TEXT, GIVEN = 53, 41, 7, 6, 2
RNG = np.random.default_rng(0)
SPLITS = Splits(
    random_ragged(RNG.integers(3, 9, USERS).tolist(), ITEMS, 1),
    random_ragged([1] * USERS, ITEMS, 2), random_ragged([2] * USERS, ITEMS, 3), ITEMS, "ratio",
)  # fmt: skip
TABLES = Tables(
    item_text=np.concatenate([np.zeros((1, TEXT)), RNG.normal(size=(ITEMS, TEXT))]).astype(np.float32),
    rationale=RNG.normal(size=(SEEDS, TEXT)).astype(np.float32),
    seed=RNG.integers(0, SEEDS, (USERS, 4)).astype(np.int32),
)
EASE = EaseConfig(regularisation=2.0, text_weight=5.0, rationale_weight=3.0, half_life=1.5)
CONFIG = TrainConfig(objective="closed_form")


def task_of(
    variant: str, backbone: str = "ease", splits: Splits = SPLITS, ease: EaseConfig = EASE, length: int = 50,
    tables: Tables[np.ndarray] = TABLES,
) -> ClosedForm:
    """A linear model on random data."""
    model = create_recommender(
        ModelConfig(backbone=backbone), FusionConfig(), find_variant(variant), num_users=splits.num_users,
        num_items=splits.num_items, max_length=length, embedding_l2=0.0, rationales=GIVEN, linear=ease,
    )  # fmt: skip
    return create_task(model, tables, splits, CONFIG, length)


def fitted(task: ClosedForm, masked: bool = True) -> tuple[FitResult, Evaluator]:
    evaluator = Evaluator(task, SPLITS, EvalConfig(mask_history=masked, cutoffs=(10,)))
    return fit(task, evaluator, CONFIG), evaluator


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scores_by_numpy(variant: str, history: Ragged, recency: bool) -> np.ndarray:
    """``[U, I]``: everything dense, with NumPy's inverse."""
    had = np.zeros((USERS, ITEMS))
    for user in range(USERS):
        had[user, SPLITS.train.row(user) - 1] = 1
    given = unit(np.float64(TABLES.rationale))[TABLES.seed[:, :GIVEN]].mean(1) * EASE.rationale_weight**0.5
    whole = np.concatenate([had, given], 1) if variant == "reland" else had
    gram = whole.T @ whole + EASE.regularisation * np.eye(whole.shape[1])
    if variant != "id":
        texts = unit(np.float64(TABLES.item_text[1:]))
        gram[:ITEMS, :ITEMS] += EASE.text_weight * texts @ texts.T
    inverse = np.linalg.inv(gram)
    weights = (-inverse / np.diag(inverse))[:, :ITEMS]
    np.fill_diagonal(weights, 0.0)
    read = np.zeros((USERS, ITEMS))
    for user in range(USERS):
        for age, item in enumerate(history.row(user)[::-1]):
            weight = 0.5 ** (age / EASE.half_life) if recency else 1.0
            read[user, item - 1] = max(read[user, item - 1], weight)
    return np.concatenate([read, given], 1) @ weights if variant == "reland" else read @ weights


def assert_ranked_by(ranks: TargetRanks, scores: np.ndarray, masked: Ragged | None) -> None:
    """Every rank is the number of better items that are not masked."""
    for user, item, rank in zip(ranks.user, ranks.item, ranks.rank, strict=True):
        mine = scores[user].copy()
        if masked is not None:
            mine[[other - 1 for other in masked.row(user) if other != item]] = -np.inf
        close = np.abs(mine - mine[item - 1]) < 1e-5  # float32 beside float64
        better = int((mine > mine[item - 1])[~close].sum())
        assert better <= rank < better + close.sum(), (user, item)


@pytest.mark.parametrize("variant", ["id", "f_item", "reland"])
@pytest.mark.parametrize("backbone", ["ease", "ease_recency"])
@pytest.mark.parametrize("masked", [True, False])
def test_ranks_equal_brute_force(variant: str, backbone: str, masked: bool) -> None:
    """Sets are read up to the training part; sequences go on to what was seen before the test."""
    task = task_of(variant, backbone)
    result, evaluator = fitted(task, masked)
    recency, known = backbone == "ease_recency", SPLITS.train.joined(SPLITS.valid)
    for part, seen in (("valid", SPLITS.train), ("test", known)):
        read = seen if recency else SPLITS.train
        ranks = evaluator.ranks(result.params, part)
        assert_ranked_by(ranks, scores_by_numpy(variant, read, recency), seen if masked else None)
    assert result.history[0]["ndcg@10"] == evaluator.metrics(result.params, "valid")["ndcg@10"] > 0
    assert result.best_epoch == len(result.history) == 1
    shapes = jax.tree.map(lambda leaf: leaf.shape, param_shapes(task, CONFIG))
    assert shapes == jax.tree.map(np.shape, result.params)


PHRASES = RNG.normal(size=(SEEDS, 3, TEXT)).astype(np.float32)
PHRASES[2, 1:] = PHRASES[5] = 0


def phrase_scores_by_numpy(weight: float) -> np.ndarray:
    """``[U, I]``: the largest cosine with a phrase of a user's rationales, without its mean over users."""
    texts, cosine = unit(np.float64(TABLES.item_text[1:])), np.zeros((USERS, ITEMS))
    for user, given in enumerate(TABLES.seed[:, :GIVEN]):
        phrases = PHRASES[given].reshape(-1, TEXT)
        if len(used := phrases[phrases.any(1)]):
            cosine[user] = (unit(np.float64(used)) @ texts.T).max(0)
    return np.where(cosine.any(1)[:, None], weight * (cosine - cosine.mean(0)), 0)


@pytest.mark.parametrize("form", ["exact", "sparse"])
def test_phrases_add_their_likeness_to_the_scores(form: str) -> None:
    """On one device, and with the exact weights shared out on eight."""
    ease = dataclasses.replace(
        EASE, reading="phrases", phrase_weight=0.7, form=form, neighbours=ITEMS - 1, half_life=1.0
    )
    base = scores_by_numpy("f_item", SPLITS.train, False)
    for mesh in (MeshConfig(), MeshConfig(data=2, model=4)):
        with use_mesh(mesh):
            task = task_of("reland", ease=ease, tables=TABLES._replace(rationale=PHRASES))
            result, evaluator = fitted(task)
            ranks = evaluator.ranks(result.params, "valid")
            assert_ranked_by(ranks, base + phrase_scores_by_numpy(0.7), SPLITS.train)
            shapes = jax.tree.map(lambda leaf: leaf.shape, param_shapes(task, CONFIG))
            assert shapes == jax.tree.map(np.shape, result.params)
    with pytest.raises(AssertionError):
        assert_ranked_by(ranks, base, SPLITS.train)


def test_no_text_weight_is_no_texts() -> None:
    without = dataclasses.replace(EASE, text_weight=0.0)
    found = [fitted(task_of(v, ease=without))[0].params["weights"] for v in ("id", "f_item")]
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - fitted(task_of("f_item"))[0].params["weights"]).max() > 0.01


def test_no_rationale_weight_is_no_rationales() -> None:
    without = dataclasses.replace(EASE, rationale_weight=0.0)
    texts, both = (fitted(task_of(v, ease=without))[0].params["weights"] for v in ("f_item", "reland"))
    np.testing.assert_allclose(both[: ITEMS + 1], texts, atol=1e-7)
    assert not np.asarray(both[ITEMS + 1 :]).any() and len(both) == ITEMS + 1 + SEEDS


def test_nothing_in_it_is_random_and_another_seed_compiles_nothing() -> None:
    first, second = task_of("reland"), task_of("reland")
    once = fitted(first)[0]
    misses = module._compiled.cache_info().misses
    again = fit(second, Evaluator(second, SPLITS, EvalConfig()), dataclasses.replace(CONFIG, seed=5))
    np.testing.assert_array_equal(once.params["weights"], again.params["weights"])
    assert module._compiled.cache_info().misses == misses


def test_eight_devices_equal_one() -> None:
    alone, evaluator = fitted(task_of("reland", "ease_recency"))
    expected = evaluator.ranks(alone.params, "test")
    for mesh in (MeshConfig(data=2, model=4), MeshConfig(data=8, model=1)):
        with use_mesh(mesh):
            task = task_of("reland", "ease_recency")
            together, evaluator = fitted(task)
            weights = together.params["weights"]
            np.testing.assert_allclose(weights[:, : ITEMS + 1], alone.params["weights"], atol=1e-6)
            np.testing.assert_array_equal(evaluator.ranks(together.params, "test").rank, expected.rank)
            assert jax.typeof(weights).shape == param_shapes(task, CONFIG)["weights"].shape
            assert weights.sharding == param_shapes(task, CONFIG)["weights"].sharding
            (share,) = {shard.data.shape for shard in weights.addressable_shards}
            assert share == (len(weights), weights.shape[1] // mesh.model)


@pytest.mark.parametrize("form", ["exact", "sparse"])
def test_validation_items_are_read_for_the_test_part_where_asked(form: str) -> None:
    ease = dataclasses.replace(EASE, form=form, neighbours=ITEMS - 1)
    model, known = task_of("f_item", ease=ease).model, SPLITS.train.joined(SPLITS.valid)
    task = create_task(model, TABLES, SPLITS, CONFIG, 50, "known")
    result, evaluator = fitted(task)
    for part, read in (("valid", SPLITS.train), ("test", known)):
        ranks = evaluator.ranks(result.params, part)
        assert_ranked_by(ranks, scores_by_numpy("f_item", read, False), read)
    with pytest.raises(AssertionError):
        assert_ranked_by(ranks, scores_by_numpy("f_item", SPLITS.train, False), known)


def test_an_item_is_counted_once_a_user() -> None:
    """Of 3, 1, 3 only the newest 3 is read, and the pair of 1 and 3 is one pair."""
    model = task_of("id").model
    gram = module.normal_equations(model, TABLES, ragged([[3, 1, 3], [3]]), 3)
    found = np.zeros((3, 3))
    found[gram.row, gram.column] = gram.users
    np.testing.assert_array_equal(found, [[1, 0, 1], [0, 0, 0], [1, 0, 2]])


def test_histories_newest_first() -> None:
    history = ragged([[3, 1, 3], [], [4, 2, 7, 5]])
    np.testing.assert_array_equal(
        module.newest_first(history, None), [[3, 1, 0, 0], [0, 0, 0, 0], [5, 7, 2, 4]]
    )
    np.testing.assert_array_equal(module.newest_first(history, 2), [[3, 1], [0, 0], [5, 7]])


def test_users_without_training_items_are_refused() -> None:
    cold = SPLITS._replace(train=ragged([[1, 2], *([[3]] * (USERS - 2)), []]))
    with pytest.raises(RelandError, match="1 users have no training items"):
        task_of("id", splits=cold)


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_memory", lambda: 10_000)
    message = r"invert 41 x 41 in float64, .* 1e-05 GB are free: .*precision=float32"
    task = task_of("id")  # what was solved before can still be ranked
    with pytest.raises(RelandError, match=message):
        task.equations()
    monkeypatch.setattr(module, "_free_memory", lambda: None)
    task.equations()


def test_free_memory_is_known_here() -> None:
    assert module._free_memory() is None or module._free_memory() > 1e6


def test_no_finite_solution_is_an_error() -> None:
    """In float32 such a lambda adds nothing, and items that are always together are singular."""
    together = ragged([[1, 2, 3]] * USERS)
    tiny = dataclasses.replace(EASE, precision="float32", regularisation=1e-12)
    task = task_of("id", splits=SPLITS._replace(train=together), ease=tiny)
    with pytest.raises(RelandError, match="has no finite solution in float32"):
        task.solve(task.equations(), 0)


def test_histories_with_repeats_are_left_as_they_are() -> None:
    """They are summed in place, in a copy: the split is read again for masks and lists."""
    history = ragged([[1, 2, 3, 1], [2, 2], [4]])
    had = module.who_had_what(history, 4)
    assert had.toarray().tolist() == [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert [history.row(row).tolist() for row in range(3)] == [[1, 2, 3, 1], [2, 2], [4]]
