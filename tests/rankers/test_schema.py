"""Declarations that cannot be true, and batches that are not as declared."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reland_jax.rankers.schema import Field, FieldSchema, check_batch
from reland_jax.types import RelandError
from tests.rankers.toys import SCHEMA, toy_batch

ITEM = Field("item", "categorical", 5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((ITEM, ITEM), "'item' is declared twice"),
        ((Field("click", "numeric"),), "'click' has the name of a label"),
        ((Field("weight", "numeric"),), "'weight' has the name of a label or of another column"),
        ((Field("item", "categoric", 5),), "did you mean 'categorical'?"),
        ((Field("item", "categorical"),), "(categorical) has 0 values"),
        ((Field("age", "numeric", 5),), "(numeric) has 5 values"),
        ((Field("tags", "multi", 5),), "has length 0; lists alone have one"),
        ((Field("age", "numeric", length=2),), "has length 2; lists alone have one"),
        ((ITEM, Field("history", "sequence", 5, length=3)), "must share the embeddings of the candidate"),
        ((ITEM, Field("history", "sequence", length=3, shares="itm")), "did you mean 'item'?"),
        ((ITEM, Field("tags", "multi", 5, length=3, shares="item")), "must have no size of its own"),
    ],
)
def test_a_wrong_declaration(features: tuple[Field, ...], message: str) -> None:
    with pytest.raises(RelandError, match=re.escape(message)):
        FieldSchema(features, ("click",))


def test_a_batch_as_declared() -> None:
    check_batch(SCHEMA, toy_batch())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("age", None, "no column 'age'"),
        ("user", np.zeros(6, np.int64), "column 'user' is int64[6], and must be int32[6]"),
        ("history", np.zeros((6, 5), np.int32), "column 'history' is int32[6, 5], and must be int32[6, 4]"),
        ("item", np.full(6, 10, np.int32), "column 'item', row 0 of the batch: 10 is not in [0, 9]"),
        ("item", np.full(6, -1, np.int32), "-1 is not in [0, 9]"),
        ("history", np.full((6, 4), 10, np.int32), "10 is not in [0, 9]"),
        ("age", np.full(6, np.nan, np.float32), "nan is not in"),
        ("click", np.full(6, 2, np.float32), "2.0 is not in [0, 1]"),
    ],
)
def test_a_batch_that_is_not_as_declared(name: str, value: np.ndarray | None, message: str) -> None:
    batch = toy_batch() | {name: value}
    if value is None:
        del batch[name]
    with pytest.raises(RelandError, match=re.escape(message)):
        check_batch(SCHEMA, batch)
