"""Whole rankers: every network with every task, and what does not go together."""

from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import numpy as np
import pytest

from reland_jax.ranker_settings import NETWORKS as NETWORK_NAMES
from reland_jax.ranker_settings import TASKS as TASK_NAMES
from reland_jax.rankers import ARMS, NETWORKS, TASKS, Field, FieldSchema, RankerConfig, create_ranker, predict
from reland_jax.rankers.step import Parameters, init_params
from reland_jax.types import RelandError
from tests.rankers import oracles
from tests.rankers.toys import FUNNEL, SCHEMA, in_float64, random_like, toy_batch, toy_ranker, toy_texts

TEXTS, BATCH = toy_texts(), toy_batch()
compiled_scores = jax.jit(predict, static_argnums=0)
OFTEN = {
    ("logistic", "single"), ("dnn", "shared_bottom"), ("dcn_v2", "esmm"), ("din", "mmoe"),
    ("masknet_serial", "ple"), ("masknet_parallel", "aitm"),
}  # fmt: skip
COMBINED = [
    pytest.param(*pair, marks=[] if pair in OFTEN else [pytest.mark.slow])
    for pair in itertools.product(NETWORKS, TASKS)
    if pair[0] != "logistic" or pair[1] == "single"
]


def labels_of(task: str) -> tuple[str, ...]:
    return ("click",) if task == "single" else FUNNEL


def test_the_tables_are_those_of_the_settings() -> None:
    assert tuple(NETWORKS) == NETWORK_NAMES and tuple(TASKS) == TASK_NAMES


@pytest.mark.parametrize(("network", "task"), COMBINED)
def test_a_row_does_not_depend_on_the_others(network: str, task: str) -> None:
    """Rows in another order give the same scores in that order, and one row alone its own."""
    ranker = toy_ranker(ARMS["reland"], network=network, task=task, labels=labels_of(task))
    shapes = jax.eval_shape(lambda: init_params(ranker, jax.random.key(0), BATCH, TEXTS))
    params = random_like(shapes, scale=0.4)
    order = np.array([4, 2, 0, 5, 1, 3])
    with jax.enable_x64(True):
        batch, texts = in_float64(BATCH), in_float64(TEXTS)
        params = jax.tree.map(jax.numpy.asarray, params)
        found = compiled_scores(ranker, params, batch, texts)
        moved = compiled_scores(
            ranker, params, {name: column[order] for name, column in batch.items()}, texts
        )
        alone = compiled_scores(ranker, params, {name: column[3:4] for name, column in batch.items()}, texts)
    assert found.reached.shape == (6, len(labels_of(task)))
    assert np.asarray(found.reached).std(0).min() > 1e-6
    for one, two, three in zip(found, moved, alone, strict=True):
        np.testing.assert_allclose(two, np.asarray(one)[order], rtol=1e-10)
        np.testing.assert_allclose(three, np.asarray(one)[3:4], rtol=1e-10)


def test_logistic_regression_is_one_sum_over_its_weights() -> None:
    """Every value has a weight, a number times one, lists the mean of theirs; no hidden layer at all."""
    ranker = toy_ranker(ARMS["id"], network="logistic")
    params: Any = random_like(jax.eval_shape(lambda: init_params(ranker, jax.random.key(0), BATCH, TEXTS)))
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, params)
        found = compiled_scores(ranker, params, in_float64(BATCH), TEXTS)
    table, dense = np.asarray(params.table)[:, 0], jax.tree.map(np.asarray, params.dense["params"])
    for row in range(6):
        logit = (
            table[BATCH["user"][row]] * (BATCH["user"][row] > 0)
            + table[8 + BATCH["item"][row]]
            + dense["task"]["network"]["bias"][0]
        )
        for name in ("age", "price"):
            logit += float(BATCH[name][row]) * dense["embedding"][f"numeric_{name}"][0]
        for name, first in (("topics", 18), ("history", 8)):
            values = [value for value in BATCH[name][row] if value > 0]
            logit += sum(table[first + value] for value in values) / max(len(values), 1)
        np.testing.assert_allclose(found.reached[row], [oracles.sigmoid(logit)], rtol=1e-10)


def test_din_attends_whatever_the_settings_say() -> None:
    for network, history, expected in (
        ("din", "mean", True),
        ("dnn", "mean", False),
        ("dnn", "attention", True),
    ):
        ranker = toy_ranker(ARMS["id"], network=network, history=history)
        params: Parameters = jax.eval_shape(lambda r=ranker: init_params(r, jax.random.key(0), BATCH, TEXTS))
        assert ("attention_history" in params.dense["params"]["embedding"]) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network": "masknet"}, "did you mean 'masknet_"),
        ({"task": "moe", "labels": FUNNEL}, "did you mean 'mmoe'?"),
        ({"labels": ("clicks",)}, "label 'clicks' is not declared; did you mean 'click'?"),
        ({"trained_on": "clicks"}, "label 'clicks' is not declared"),
        ({"labels": FUNNEL}, "task 'single' needs one label, and labels is click,conversion"),
        ({"task": "esmm"}, "task 'esmm' needs two labels or more, and labels is click"),
        ({"task": "mmoe", "labels": FUNNEL, "network": "logistic"}, "has nothing that labels could share"),
        ({"task": "ple", "labels": FUNNEL, "trained_on": "click"}, "trained_on=click is for task=single"),
    ],
)
def test_what_does_not_go_together(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RelandError, match=re.escape(message)):
        toy_ranker(ARMS["id"], **changed)


def test_what_the_schema_or_the_pool_lacks() -> None:
    plain = FieldSchema((Field("item", "categorical", 5),), ("click",))
    with pytest.raises(RelandError, match="'din' reads a sequence, and the schema declares none"):
        create_ranker(RankerConfig(network="din"), plain, ARMS["id"])
    with pytest.raises(RelandError, match="'seed_id' embeds seed users: say how many"):
        create_ranker(RankerConfig(), SCHEMA, ARMS["seed_id"])
