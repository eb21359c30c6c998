"""Vectors of knowledge from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.events import shop
from reland_jax.knowledge import read_vectors
from reland_jax.types import RelandError

EVENTS = shop.generate(shop.ShopSettings(users=5, items=9, rows=40)).events
NAMES = EVENTS.scenario.name


def test_rows_are_found_by_id(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "v.npz", scenario=np.eye(3), scenario_id=["cart", "search", "home"],
        user=np.arange(4.0).reshape(2, 2), user_id=["U000003", "U000000"],
    )  # fmt: skip
    found = read_vectors(tmp_path / "v.npz", EVENTS, NAMES)
    assert found.scenarios is not None and found.users is not None
    np.testing.assert_array_equal(found.scenarios, np.eye(3)[::-1])
    assert found.row.tolist() == [1, -1, -1, 0, -1] and found.users.dtype == np.float32


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"other": np.zeros(2)}, "user and user_id, are"),
        ({"scenario": np.zeros((2, 3)), "scenario_id": ["home", "cart"]}, "scenario 'search' has no vector"),
        ({"scenario": np.zeros((2, 3)), "scenario_id": ["home"]}, "a row for each of distinct"),
        ({"user": np.full((1, 3), np.nan), "user_id": ["U000001"]}, "user U000001 is not finite"),
        ({"user": np.zeros((1, 0)), "user_id": ["U000001"]}, "rows of numbers are needed"),
        ({"user": np.array([["a"]]), "user_id": ["U000001"]}, "rows of numbers are needed"),
        ({"user": np.zeros((1, 3)), "user_id": ["nobody"]}, "none of its 1 users"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, held: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "v.npz", **held)
    with pytest.raises(RelandError, match=message):
        read_vectors(tmp_path / "v.npz", EVENTS, NAMES)


@pytest.mark.parametrize("content", [b"", b"no arrays", b"PK\x03\x04 cut off"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(RelandError, match=r"v\.npz: cannot be read"):
        read_vectors(tmp_path / "v.npz", EVENTS, NAMES)
