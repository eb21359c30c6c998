"""DuoRec's contrast against a double loop, and that its two views are what they are said to be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import FusionConfig, ModelConfig
from reland_jax.models import SequenceBatch, SequentialRecommender, Tables, Views, create_recommender
from reland_jax.models.duorec import DuoRec, info_nce
from reland_jax.variants import ID

COUNT, DIM, NUM_ITEMS = 6, 4, 9
RNG = np.random.default_rng(0)
FIRST, SECOND = (RNG.normal(size=(COUNT, DIM)).astype(np.float32) for _ in range(2))
TARGET = np.array([1, 2, 1, 3, 4, 2], np.int32)
WEIGHT = np.array([1, 1, 1, 1, 0, 1], np.float32)
nce = jax.jit(info_nce, static_argnums=4)


def double_loop(
    first: np.ndarray, second: np.ndarray, target: np.ndarray, weight: np.ndarray, temperature: float
) -> float:
    """Every used view against its other half and the used views of sequences with another next item."""
    losses = []
    for one, two in ((first, second), (second, first)):
        for i in range(len(target)):
            if not weight[i]:
                continue
            positive = np.exp(one[i] @ two[i] / temperature)
            negatives = 0.0
            for j in range(len(target)):
                if weight[j] and target[j] != target[i]:
                    negatives += np.exp(one[i] @ one[j] / temperature)
                    negatives += np.exp(one[i] @ two[j] / temperature)
            losses.append(-np.log(positive / (positive + negatives)))
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("weight", [WEIGHT, np.ones_like(WEIGHT)], ids=["unused", "all"])
def test_info_nce_is_a_double_loop(weight: np.ndarray, temperature: float) -> None:
    found = nce(FIRST, SECOND, TARGET, weight, temperature)
    assert float(found) == pytest.approx(double_loop(FIRST, SECOND, TARGET, weight, temperature), rel=1e-5)


def test_an_unused_entry_has_no_part_in_it() -> None:
    """Neither its vectors nor its target."""
    expected = float(nce(FIRST, SECOND, TARGET, WEIGHT, 1.0))
    first, second, target = FIRST.copy(), SECOND.copy(), TARGET.copy()
    first[4], second[4], target[4] = 7.0, -7.0, 1
    assert float(nce(first, second, target, WEIGHT, 1.0)) == pytest.approx(expected, rel=1e-6)


def test_sequences_with_the_same_target_do_not_repel() -> None:
    """If all have it there is no negative: the loss is 0, and so is its gradient, and neither is NaN."""
    same, gradient = np.full(COUNT, 3, np.int32), jax.jit(jax.grad(info_nce), static_argnums=4)
    for weight in (WEIGHT, np.zeros_like(WEIGHT)):
        assert float(nce(FIRST, SECOND, same, weight, 1.0)) == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(gradient(FIRST, SECOND, same, weight, 1.0), 0.0, atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(gradient(FIRST, SECOND, TARGET, WEIGHT, 1.0)), True)


def test_the_loss_falls_where_the_views_come_together() -> None:
    """On the sphere, from random pairs over views halfway to identical ones."""
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (FIRST, SECOND))
    losses = []
    for share in (0.0, 0.5, 1.0):
        mixed = (1 - share) * second + share * first
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        losses.append(float(nce(first, mixed, TARGET, WEIGHT, 0.1)))
    assert losses[0] > losses[1] > losses[2]
    apart = np.eye(COUNT, dtype=np.float32)
    assert float(nce(apart, apart, np.arange(COUNT), np.ones(COUNT), 0.02)) < 1e-3


def test_the_contrast_weighs_both_views() -> None:
    module = DuoRec(ModelConfig(dim=DIM, contrast=0.3, temperature=0.7), 5)
    found = module.apply({}, FIRST, SECOND, FIRST[::-1], TARGET, WEIGHT, method="contrast")
    both = [double_loop(FIRST, other, TARGET, WEIGHT, 0.7) for other in (SECOND, FIRST[::-1])]
    assert float(found) == pytest.approx(0.3 * sum(both), rel=1e-5)


# --- the views of a batch --------------------------------------------------------------------------

VIEWS = Views(
    place=jnp.array([2, 4, 0], jnp.int32),
    target=jnp.array([5, 6, 1], jnp.int32),
    weight=jnp.array([1.0, 1.0, 0.0]),
    items=jnp.array([[7, 5, 0], [1, 2, 3], [0, 0, 0]], jnp.int32),
    position=jnp.array([[0, 1, 0], [0, 1, 2], [0, 0, 0]], jnp.int32),
    segment=jnp.array([[1, 1, 0], [2, 2, 2], [0, 0, 0]], jnp.int32),
    last=jnp.array([1, 5, 6], jnp.int32),
)
BATCH = SequenceBatch(
    items=jnp.array([[3, 1, 4, 7, 2]], jnp.int32),
    position=jnp.array([[0, 1, 2, 0, 1]], jnp.int32),
    segment=jnp.array([[1, 1, 1, 2, 2]], jnp.int32),
    place=jnp.array([2, 4], jnp.int32),
    user=jnp.array([0, 1], jnp.int32),
    target=jnp.array([5, 6], jnp.int32),
    weight=jnp.array([1.0, 1.0]),
    views=VIEWS,
)


def recommender(dropout: float, contrast: float, backbone: str = "duorec") -> SequentialRecommender:
    config = ModelConfig(
        backbone=backbone, dim=DIM, layers=1, heads=2, inner=6, dropout=dropout, contrast=contrast
    )
    sizes = {"num_users": 2, "num_items": NUM_ITEMS, "max_length": 5, "embedding_l2": 0.0}
    model = create_recommender(config, FusionConfig(), ID, **sizes)
    assert isinstance(model, SequentialRecommender)
    return model


@pytest.fixture(scope="module")
def params() -> Any:
    model, rngs = recommender(0.0, 0.1), {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(rngs, Tables(), BATCH, method="loss"))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.6, leaf.shape), jnp.float32), shapes)


def contrasted(
    monkeypatch: pytest.MonkeyPatch, params: Any, dropout: float, key: int = 0
) -> tuple[np.ndarray, ...]:
    """What the loss hands to the contrast: hidden, again, other."""
    seen: list[Any] = []

    def contrast(module: DuoRec, *arguments: jax.Array) -> jax.Array:
        seen.extend(arguments)
        return jnp.zeros(())

    monkeypatch.setattr(DuoRec, "contrast", contrast)
    model, rngs = recommender(dropout, 0.1), {"dropout": jax.random.key(key)}

    @jax.jit
    def run(params: Any) -> list[jax.Array]:
        seen.clear()
        model.apply(params, Tables(), BATCH, method="loss", rngs=rngs)
        return seen

    hidden, again, other, target, weight = map(np.asarray, run(params))
    np.testing.assert_array_equal(target, VIEWS.target)
    np.testing.assert_array_equal(weight, VIEWS.weight)
    return hidden, again, other


def test_without_dropout_the_second_view_is_the_first(monkeypatch: pytest.MonkeyPatch, params: Any) -> None:
    """And the third is the other sequence, encoded alone."""
    hidden, again, other = contrasted(monkeypatch, params, 0.0)
    np.testing.assert_array_equal(hidden, again)
    model = recommender(0.0, 0.1)
    for entry, length in ((0, 2), (1, 3)):
        rows = (array[entry : entry + 1, :length] for array in (VIEWS.items, VIEWS.position, VIEWS.segment))
        ones = (jnp.array([value]) for value in (length - 1, 0, 1, 1.0))
        batch = SequenceBatch(*rows, *ones)
        alone = jax.jit(lambda *a: model.apply(*a, method="user_vectors"))(params, Tables(), batch)
        np.testing.assert_allclose(other[entry], alone[0], rtol=1e-4, atol=1e-5)


def test_with_dropout_the_two_views_of_a_sequence_differ(
    monkeypatch: pytest.MonkeyPatch, params: Any
) -> None:
    hidden, again, _ = contrasted(monkeypatch, params, 0.5)
    assert np.abs(hidden - again).max(1).min() > 0.05
    repeated, _, _ = contrasted(monkeypatch, params, 0.5)
    np.testing.assert_array_equal(hidden, repeated)


def test_without_weight_it_is_sasrec_without_contrast(params: Any) -> None:
    """The rest of the loss is the same; the contrast adds what it is worth."""

    def loss(model: SequentialRecommender) -> float:
        rngs = {"dropout": jax.random.key(0)}
        return float(jax.jit(lambda p: model.apply(p, Tables(), BATCH, method="loss", rngs=rngs))(params))

    sasrec = loss(recommender(0.0, 0.0, "sasrec"))
    none, half, whole = (loss(recommender(0.0, weight)) for weight in (0.0, 0.5, 1.0))
    assert none == pytest.approx(sasrec, rel=1e-5)
    assert half > none and whole - half == pytest.approx(half - none, rel=1e-3)
