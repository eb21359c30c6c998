"""Steps of training: which rows they touch, what they make small, and where they begin."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from reland_jax.config import MeshConfig
from reland_jax.mesh import pad_to_axis, use_mesh
from reland_jax.rankers import ARMS, Field, FieldSchema, RankerConfig, Texts, arm_texts, create_ranker
from reland_jax.rankers.embedding import look_up
from reland_jax.rankers.ranker import Ranker, table_index
from reland_jax.rankers.row_optimizers import lazy_adam, row_wise_adagrad
from reland_jax.rankers.step import (
    Parameters,
    RankerState,
    init_params,
    init_state,
    loss_of,
    parameter_counts,
    predict,
    train_step,
    warm_started,
)
from reland_jax.types import RelandError
from tests.rankers.toys import FUNNEL, TABLE_ROWS, random_like, toy_batch, toy_ranker, toy_texts

TEXTS, BATCH = toy_texts(), toy_batch()
KEY = jax.random.key(0)
compiled_scores = jax.jit(predict, static_argnums=0)
compiled_loss = jax.jit(loss_of, static_argnums=0)


def fresh_by_flax(ranker: Ranker, texts: Texts = TEXTS) -> Parameters:
    """Parameters as training starts with them."""
    return jax.jit(init_params, static_argnums=0)(ranker, KEY, BATCH, texts)


def fresh(ranker: Ranker, texts: Texts = TEXTS, seed: int = 2) -> Parameters:
    """Random parameters in place of fresh ones: nothing is zero."""
    shapes = jax.eval_shape(lambda: init_params(ranker, KEY, BATCH, texts))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), random_like(shapes, seed, scale=0.4))


def test_a_step_moves_the_rows_that_count_alone() -> None:
    """The last row of the batch has weight 0, and rows without a click are not trained on."""
    ranker = toy_ranker(ARMS["reland"], labels=("conversion",), trained_on="click")
    rows, dense = lazy_adam(0.1), optax.adam(0.1)
    before = init_state(fresh(ranker), rows, dense)
    other = toy_batch(seed=9) | {"click": np.ones(6, np.float32)}
    step = jax.jit(partial(train_step, ranker, rows, dense))
    between, _ = step(before, other, TEXTS, KEY)
    after, _ = step(between, BATCH, TEXTS, KEY)
    index = np.asarray(table_index(ranker, BATCH, TEXTS))[(BATCH["weight"] * BATCH["click"]) > 0]
    touched = np.isin(np.arange(TABLE_ROWS), index)
    moved = np.any(np.asarray(after.params.table) != np.asarray(between.params.table), axis=1)
    np.testing.assert_array_equal(moved, touched)
    assert 0 < touched.sum() < TABLE_ROWS


def test_the_gradient_of_the_rows_is_that_of_the_table() -> None:
    """One step of Adagrad on the rows, against the gradient by the whole table through the lookups."""
    ranker = toy_ranker(ARMS["seed_id"], task="esmm", labels=FUNNEL, embedding_l2=0.1)
    texts, optimizer, dense = arm_texts(ARMS["seed_id"], TEXTS), row_wise_adagrad(0.1), optax.sgd(0.1)
    params = fresh(ranker, texts)

    def loss(table: jax.Array) -> jax.Array:
        index = table_index(ranker, BATCH, texts)
        return loss_of(ranker, params.dense, look_up(table, index), BATCH, texts)

    gradient = np.asarray(jax.jit(jax.grad(loss))(params.table), np.float64)
    size = np.sqrt(np.mean(gradient**2, 1, keepdims=True))
    expected = np.asarray(params.table) - 0.1 * gradient / (size + 1e-8)
    step = jax.jit(partial(train_step, ranker, optimizer, dense))
    state, _ = step(init_state(params, optimizer, dense), BATCH, texts, KEY)
    np.testing.assert_allclose(state.params.table, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["single", "esmm", "aitm"])
def test_the_loss_is_log_loss_and_penalties(task: str) -> None:
    labels = ("click",) if task == "single" else FUNNEL
    penalties = {"embedding_l2": 0.2, "text_l2": 0.3, "calibration": 0.4}
    ranker = toy_ranker(ARMS["reland"], task=task, labels=labels, **penalties)
    params = fresh(ranker)
    looked_up = look_up(params.table, table_index(ranker, BATCH, TEXTS))
    found = float(compiled_loss(ranker, params.dense, looked_up, BATCH, TEXTS))
    p = np.asarray(compiled_scores(ranker, params, BATCH, TEXTS).reached, np.float64)
    y = np.cumprod(np.stack([BATCH[name] for name in labels], 1), 1)
    w = BATCH["weight"] / BATCH["weight"].sum()
    per_row = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)
    per_row += 0.2 * (np.asarray(looked_up, np.float64) ** 2).sum((1, 2))
    if task == "aitm":
        assert (w * np.maximum(p[:, 1] - p[:, 0], 0)).max() > 0.01
        per_row += 0.4 * np.maximum(p[:, 1] - p[:, 0], 0)
    embedding = params.dense["params"]["embedding"]
    texts = sum(
        (np.asarray(embedding[name]["projection"]["kernel"]) ** 2).sum()
        for name in ("item_text", "rationale")
    )
    assert found == pytest.approx((w * per_row).sum() + 0.3 * texts, rel=1e-4)


EVERY = [
    ("logistic", "single"),
    ("masknet_parallel", "single"),
    *(
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in (
            ("dnn", "shared_bottom"), ("dcn_v2", "ple"), ("din", "mmoe"), ("dcn_v2", "aitm"),
            ("masknet_serial", "esmm"), ("masknet_parallel", "ple"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "reland",
        pytest.param("f_item", marks=pytest.mark.slow),
        pytest.param("seed_id", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("network", "task"), EVERY)
def test_a_ranker_with_texts_begins_at_the_one_without(network: str, task: str, name: str) -> None:
    settings = {"network": network, "task": task, "labels": ("click",) if task == "single" else FUNNEL}
    plain, ranker = toy_ranker(ARMS["id"], **settings), toy_ranker(ARMS[name], **settings)
    earlier, texts = fresh(plain), arm_texts(ARMS[name], TEXTS)
    started = warm_started(fresh_by_flax(ranker, texts), earlier)
    expected = compiled_scores(plain, earlier, BATCH, Texts())
    for found, wanted in zip(compiled_scores(ranker, started, BATCH, texts), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_texts_are_learned_from_a_warm_start() -> None:
    """Zero is not a place where the gradient of a projection vanishes."""
    settings: dict[str, Any] = {"text_l2": 0.0, "layers": (32,), "block_width": 16}
    ranker = toy_ranker(ARMS["reland"], **settings)
    started = warm_started(fresh_by_flax(ranker), fresh(toy_ranker(ARMS["id"], **settings)))
    looked_up = look_up(started.table, table_index(ranker, BATCH, TEXTS))
    gradient = jax.jit(jax.grad(loss_of, argnums=1), static_argnums=0)(
        ranker, started.dense, looked_up, BATCH, TEXTS
    )["params"]["embedding"]
    assert np.abs(gradient["rationale"]["projection"]["kernel"]).max() > 1e-5
    assert np.abs(gradient["item_text"]["projection"]["kernel"]).max() > 1e-5
    # Both numbers of the match: the cosine to the seed user, and the likeness of its words to the item.
    assert (np.abs(gradient["match"]["vectors"]["kernel"]).max(1) > 1e-5).all()


def test_an_earlier_ranker_of_another_kind_is_refused() -> None:
    later = fresh_by_flax(toy_ranker(ARMS["reland"]))
    serial = {"network": "masknet_serial"}
    with pytest.raises(
        RelandError, match="its parameter dense/params/task/network/block_2/.* here it is none"
    ):
        later_serial = fresh_by_flax(toy_ranker(ARMS["reland"], **serial))
        warm_started(later_serial, fresh(toy_ranker(ARMS["id"], **serial, blocks=3)))
    with pytest.raises(RelandError, match="network, task, sizes and schema must be equal"):
        warm_started(later, fresh(toy_ranker(ARMS["id"], width=5)))


def test_dropout_depends_on_the_key_alone() -> None:
    ranker = toy_ranker(ARMS["id"], dropout=0.5)
    params = fresh(ranker)
    looked_up = look_up(params.table, table_index(ranker, BATCH, TEXTS))
    keys = (KEY, KEY, jax.random.key(1))
    losses = [float(compiled_loss(ranker, params.dense, looked_up, BATCH, TEXTS, key)) for key in keys]
    assert losses[0] == losses[1] != losses[2]


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Share of pairs of a positive and a negative that are in order, all scores distinct."""
    rank = np.empty(len(score))
    rank[np.argsort(score)] = np.arange(1, len(score) + 1)
    positives = int(label.sum())
    return float(
        (rank[label > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives))
    )


def crossed_log(size: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Clicks whose logit has a product of two fields, and their true probabilities."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(1, 11, size, dtype=np.int32) for _ in range(2))
    signs = np.where(np.arange(22).reshape(2, 11) % 2, 1.0, -1.0)
    p = 1 / (1 + np.exp(-(2.0 * signs[0, first] * signs[1, second] + 0.5 * signs[0, first] - 0.3)))
    batch = {"first": first, "second": second, "click": (rng.random(size) < p).astype(np.float32)}
    rows = np.full(size, -1, np.int32)
    return batch | {"weight": np.ones(size, np.float32), "user_row": rows, "item_row": rows}, p


def trained_auc(network: str) -> tuple[float, float]:
    """AUC of a trained ranker on new rows, and of the true probabilities."""
    schema = FieldSchema((Field("first", "categorical", 11), Field("second", "categorical", 11)), ("click",))
    sizes: dict[str, Any] = {
        "layers": (16,),
        "block_width": 16,
        "blocks": 2,
        "width": 8,
        "embedding_scale": 0.1,
    }
    ranker = create_ranker(RankerConfig(network=network, **sizes), schema, ARMS["id"])
    rows, dense = lazy_adam(0.02), optax.adam(0.005)
    step = jax.jit(partial(train_step, ranker, rows, dense), donate_argnums=0)
    log, _ = crossed_log(40 * 512, 1)
    parts = [{name: column[at : at + 512] for name, column in log.items()} for at in range(0, 40 * 512, 512)]
    state: RankerState = init_state(init_params(ranker, KEY, parts[0], Texts()), rows, dense)
    for epoch in range(4):
        for number, part in enumerate(parts):
            state, _ = step(state, part, Texts(), jax.random.fold_in(KEY, 40 * epoch + number))
    new, p = crossed_log(20_000, 2)
    noise = 1e-9 * np.random.default_rng(3).random(len(p))
    found = np.asarray(predict(ranker, state.params, new, Texts()).reached[:, 0], np.float64)
    return auc(found + noise, new["click"]), auc(p + noise, new["click"])


@pytest.mark.parametrize(
    "network",
    [
        "masknet_parallel",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("masknet_serial", "dnn", "dcn_v2")),
    ],
)
def test_a_product_of_two_fields_is_learned(network: str) -> None:
    found, best = trained_auc(network)
    assert found > best - 0.005


def test_logistic_regression_cannot_learn_a_product() -> None:
    found, best = trained_auc("logistic")
    assert 0.5 < found < best - 0.1


@pytest.mark.slow
def test_a_mesh_changes_no_number() -> None:
    """The table by rows over four devices, the batch over two; there is a padding row."""
    ranker = toy_ranker(ARMS["seed_id"], task="esmm", labels=FUNNEL)
    texts, rows, dense = arm_texts(ARMS["seed_id"], TEXTS), lazy_adam(0.1), optax.sgd(0.1)
    params, step = fresh(ranker, texts), partial(train_step, ranker, rows, dense)
    expected, loss = jax.jit(step)(init_state(params, rows, dense), BATCH, texts, KEY)
    with use_mesh(MeshConfig(data=2, model=4)):
        padded = jnp.pad(params.table, ((0, pad_to_axis(len(params.table)) - len(params.table)), (0, 0)))
        state = init_state(params._replace(table=padded), rows, dense)
        found, same = jax.jit(step)(state, BATCH, texts, KEY)
        found, again = jax.jit(step)(found, BATCH, texts, KEY)
        assert len(found.params.table.sharding.device_set) == 8
        shard = found.params.table.addressable_shards[0].data
    assert float(same) == pytest.approx(float(loss), rel=1e-5)
    assert len(padded) > len(params.table) and len(shard) == len(padded) / 4
    expected, other = jax.jit(step)(expected, BATCH, texts, KEY)
    assert float(again) == pytest.approx(float(other), rel=1e-5)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one = np.asarray(one)[: len(two)] if np.ndim(two) else np.asarray(one)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_arms_differ_by_what_stands_in_for_the_rationale() -> None:
    counts = {}
    for name in ("f_item", "reland", "permuted", "noise", "own", "seed_id"):
        ranker, own = toy_ranker(ARMS[name]), np.ones((7, 5), np.float32)
        texts = arm_texts(ARMS[name], TEXTS, own)
        counts[name] = parameter_counts(
            jax.eval_shape(lambda r=ranker, t=texts: init_params(r, KEY, BATCH, t))
        )
    assert counts["reland"] == counts["permuted"] == counts["noise"] == counts["own"]
    width, projection = 3, 5 * 3 + 3
    assert counts["seed_id"]["table"] == counts["reland"]["table"] + 3 * width
    # Without words there is no projection, and no number for their likeness to the item.
    assert counts["seed_id"]["dense"] == counts["reland"]["dense"] - projection - width
    assert counts["f_item"]["dense"] < counts["seed_id"]["dense"]
