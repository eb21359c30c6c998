"""Tables of a day: stored, mapped, and refused to rows of an earlier time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.deployment.tables import Table, load_table, save_table, without_texts
from reland_jax.types import RelandError

TABLE = Table(
    1000, np.array([1, -1, 0], np.int32), np.array([0.5, 0.0, 1.0], np.float32),
    np.arange(6, dtype=np.float32).reshape(3, 2), np.array([2, 0, -1], np.int32),
)  # fmt: skip
ITEMS = np.ones((4, 2), np.float32)


def test_a_table_comes_back_mapped(tmp_path: Path) -> None:
    save_table(TABLE, tmp_path)
    found = load_table(tmp_path)
    assert found.until == 1000
    for mine, given in zip(found[1:], TABLE[1:], strict=True):
        np.testing.assert_array_equal(mine, given)
        assert isinstance(np.asarray(mine).base, np.memmap)


def test_rows_before_its_time_cannot_read_it() -> None:
    texts = TABLE.texts(ITEMS, 1000)
    assert texts.seed is TABLE.seed and texts.rationales is TABLE.rationales and texts.items is ITEMS
    with pytest.raises(
        RelandError, match=r"may know behaviour until 1970-01-01T00:00:01.000 UTC.*earlier day"
    ):
        TABLE.texts(ITEMS, 999)


def test_before_the_first_pool_nobody_has_a_text() -> None:
    found = without_texts(3, 2, 5)
    assert (found.seed == -1).all() and not found.rationales.any() and found.rationales.shape == (2, 5)
    found.texts(ITEMS, 0)
