"""The fields of a batch against loops over its rows, value by value, in float64."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from reland_jax.rankers import ARMS, Arm, arm_texts
from reland_jax.rankers.embedding import (
    OUTSIDE,
    SEED_USERS,
    FieldEmbedding,
    init_table,
    look_up,
    slots,
    table_index,
    table_rows,
)
from tests.rankers import oracles
from tests.rankers.toys import (
    LOOKUPS,
    SCHEMA,
    TABLE_ROWS,
    USERS,
    in_float64,
    random_like,
    toy_batch,
    toy_texts,
)
from tests.rankers.toys import SEED_USERS as S

WIDTH = 3
BATCH, OWN = toy_batch(), np.random.default_rng(5).normal(size=(USERS, 5)).astype(np.float32)
FIRST = {"user": 0, "item": 8, "topics": 18, "history": 8, SEED_USERS: TABLE_ROWS}
"""First row of the table: the history reads those of the items."""


def embedded(arm: Arm, attention: tuple[int, ...] = ()) -> tuple[Any, np.ndarray, np.ndarray]:
    """Random parameters, a random table, and the fields of the batch."""
    texts, seeds = arm_texts(arm, toy_texts(), OWN), S if arm.reads_seed_ids else 0
    module = FieldEmbedding(SCHEMA, arm, WIDTH, 0.01, attention, seeds)
    index = table_index(SCHEMA, BATCH, texts, seeds)
    table = np.random.default_rng(3).normal(size=(TABLE_ROWS + seeds, WIDTH))
    shapes = jax.eval_shape(module.init, jax.random.key(0), look_up(np_to_jax(table), index), BATCH, texts)
    params = random_like(shapes)
    with jax.enable_x64(True):
        rows = look_up(np_to_jax(table), index)
        fields = module.apply(params, rows, in_float64(BATCH), in_float64(texts))
    return params.get("params", {}), table, np.asarray(fields)


def np_to_jax(array: np.ndarray) -> jax.Array:
    return jax.numpy.asarray(array)


def declared(params: Any, table: np.ndarray, row: int) -> list[np.ndarray]:
    """The fields of the schema, with the mean of every list."""

    def mean_of(name: str) -> np.ndarray:
        values = [value for value in BATCH[name][row] if value > 0]
        return sum((table[FIRST[name] + value] for value in values), np.zeros(WIDTH)) / max(len(values), 1)

    return [
        table[FIRST["user"] + BATCH["user"][row]] * (BATCH["user"][row] > 0),
        table[FIRST["item"] + BATCH["item"][row]],
        float(BATCH["age"][row]) * params["numeric_age"],
        mean_of("topics"),
        mean_of("history"),
        float(BATCH["price"][row]) * params["numeric_price"],
    ]


def text(params: Any, vectors: np.ndarray, row: int) -> np.ndarray:
    """The projection of a vector; what is learned for none where there is none."""
    if row < 0 or not vectors[row].any():
        return params["absent"]
    return oracles.linear(params["projection"], vectors[row].astype(np.float64))


def texts_of(params: Any, table: np.ndarray, arm: Arm, row: int) -> list[np.ndarray]:
    """The fields of the arm's texts."""
    texts, user = arm_texts(arm, toy_texts(), OWN), BATCH["user_row"][row]
    found = [text(params["item_text"], texts.items, BATCH["item_row"][row])] if arm.reads_items else []
    if texts.seed is None:
        return found
    seed = texts.seed[user] if user >= 0 else -1
    if arm.reads_rationales:
        found.append(text(params["rationale"], texts.rationales, seed))
    else:
        found.append(table[FIRST[SEED_USERS] + seed] if seed >= 0 else np.zeros(WIDTH))
    numbers = [float(texts.cosine[user]) if user >= 0 else 0.0]
    if arm.reads_rationales:
        numbers.append(alike(texts.rationales, seed, texts.items, BATCH["item_row"][row]))
    return [*found, np.array(numbers) @ params["match"]["vectors"]["kernel"]]


def alike(said: np.ndarray, seed: int, items: np.ndarray, item: int) -> float:
    """Cosine of a rationale with a text of an item, 0 without either."""
    if min(seed, item) < 0 or not (said[seed].any() and items[item].any()):
        return 0.0
    one, other = said[seed].astype(np.float64), items[item].astype(np.float64)
    return float(one @ other / np.sqrt(one @ one * (other @ other)))


@pytest.mark.parametrize("arm", ARMS.values(), ids=list(ARMS))
def test_fields_are_those_of_the_loops(arm: Arm) -> None:
    params, table, found = embedded(arm)
    expected = [[*declared(params, table, row), *texts_of(params, table, arm, row)] for row in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert found.shape[1] == len(SCHEMA.features) + arm.fields


def test_a_sequence_is_attended_to_by_the_candidate() -> None:
    params, table, found = embedded(ARMS["id"], attention=(4,))
    own = params["attention_history"]
    for row in range(6):
        candidate, expected = table[8 + BATCH["item"][row]], np.zeros(WIDTH)
        for value in BATCH["history"][row]:
            if value > 0:
                item = table[8 + value]
                pair = np.concatenate([item, candidate, item - candidate, item * candidate])
                hidden = oracles.sigmoid(oracles.linear(own["layer_0"], pair))
                expected += oracles.linear(own["weight"], hidden)[0] * item
        np.testing.assert_allclose(found[row, 4], expected, rtol=1e-10, atol=1e-12)


def test_rows_of_the_table() -> None:
    index = np.asarray(table_index(SCHEMA, BATCH, toy_texts(), S))
    assert index.shape == (6, LOOKUPS + 1) and table_rows(SCHEMA, S) == TABLE_ROWS + S
    for name, slot in slots(SCHEMA, S).items():
        assert slot.first == FIRST[name] - (name == SEED_USERS)
    history = np.where(BATCH["history"] > 0, 8 + BATCH["history"], OUTSIDE)
    np.testing.assert_array_equal(index[:, 5:9], history)


def test_seed_users_start_at_zero_and_the_rest_does_not() -> None:
    table = np.asarray(init_table(jax.random.key(0), SCHEMA, 16, 0.5, S))
    assert not table[TABLE_ROWS:].any() and len(table) == TABLE_ROWS + S
    assert table[:TABLE_ROWS].std() == pytest.approx(0.5, rel=0.2)


def test_texts_start_at_zero() -> None:
    arm, texts = ARMS["reland"], toy_texts()
    module = FieldEmbedding(SCHEMA, arm, WIDTH, 0.01)
    rows = look_up(
        jax.random.normal(jax.random.key(1), (TABLE_ROWS, WIDTH)), table_index(SCHEMA, BATCH, texts)
    )
    fields = module.apply(module.init(jax.random.key(0), rows, BATCH, texts), rows, BATCH, texts)
    assert not np.asarray(fields)[:, -arm.fields :].any() and np.asarray(fields)[:, :2].any()
