"""EASE shared out over a mesh, against NumPy's closed form."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import MeshConfig
from reland_jax.mesh import device_put_rows, use_mesh
from reland_jax.models import sharded_ease
from reland_jax.models.sharded_ease import rows_of_device, score_by_columns, sharded_table
from tests.models.test_ease import HAD, ITEMS, PARTS, RATIONALES, RNG, TEXTS, by_numpy, gram_of

GIVEN = RNG.normal(size=(4, TEXTS.shape[1])).astype(np.float32)
ROWS = MeshConfig(data=1, model=8)


@PARTS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_eight_devices_equal_the_closed_form_of_numpy(
    texts: np.ndarray | None, rationales: np.ndarray | None, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 3 rows, so that every device has several; the table itself is of float32."""
    monkeypatch.setattr(sharded_ease, "BLOCK", 3)
    expected = by_numpy(HAD, 3.0, texts, rationales)
    with use_mesh(ROWS), jax.enable_x64(True):
        assert rows_of_device(ITEMS) == (6, 3)
        gram = jax.tree.map(device_put_rows, gram_of(HAD, texts, rationales, dtype))
        given = None if rationales is None else GIVEN
        table = np.asarray(sharded_table(gram, dtype(3.0), given, ITEMS))
    np.testing.assert_allclose(table[1 : ITEMS + 1, 1 : ITEMS + 1], expected[:ITEMS], rtol=0, atol=1e-6)
    assert not table[0].any() and not table[:, 0].any() and not table[:, ITEMS + 1 :].any()
    if rationales is not None:
        of_rationales = table[ITEMS + 1 :, 1 : ITEMS + 1]
        np.testing.assert_allclose(of_rationales, GIVEN @ expected[ITEMS:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_the_inverse_equals_that_of_numpy(dtype: type, error: float) -> None:
    """Before it is rounded to the float32 of a table."""
    matrix = HAD.T @ HAD + 30 * TEXTS @ TEXTS.T + 3 * np.eye(ITEMS)
    matrix = np.pad(matrix, (0, 3)) + np.diag(np.arange(ITEMS + 3) >= ITEMS)
    spec = jax.sharding.PartitionSpec("model")
    with use_mesh(ROWS), jax.enable_x64(True):
        solve = jax.shard_map(
            lambda rows: sharded_ease._inverse(rows, 5), in_specs=spec, out_specs=spec, check_vma=False
        )
        found = jax.jit(solve)(device_put_rows(matrix.astype(dtype), "model"))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.linalg.inv(matrix), rtol=0, atol=error)


def test_no_device_ever_holds_the_whole_matrix() -> None:
    """The largest array of the program of a device has its rows alone, and nothing is gathered."""
    with use_mesh(ROWS):
        gram = jax.tree.map(device_put_rows, gram_of(HAD, TEXTS, RATIONALES, np.float32))
        program = sharded_table.lower(gram, np.float32(1), GIVEN, ITEMS).compile().as_text()
        rows = rows_of_device(ITEMS)[0]
    shapes = re.findall(r"f32\[(\d+),(\d+)\]", program)
    assert max(int(a) * int(b) for a, b in shapes) <= max(rows * 8 * rows, ITEMS * (ITEMS + 1))
    assert (str(rows * 8), str(rows * 8)) not in shapes
    assert "all-gather" not in program and "all-reduce" in program


def test_scores_are_sums_of_rows_of_the_table() -> None:
    table = RNG.normal(size=(12, 9)).astype(np.float32)
    table[0] = 0
    lists, weight = np.array([[3, 0, 11], [0, 0, 0]]), np.array([1, 0.5, 0.25], np.float32)
    expected = sum(weight[e] * table[lists[:, e]] for e in range(3))
    users = jnp.asarray(lists, jnp.float32)
    columns = np.concatenate([table.T, np.arange(9, dtype=np.float32)[:, None]], 1)
    np.testing.assert_allclose(score_by_columns(weight, users, columns), expected, atol=1e-6)
    own = np.array([[1, 2], [8, 3]])
    found = score_by_columns(weight, users, jnp.asarray(columns[own]))
    np.testing.assert_allclose(found, np.take_along_axis(expected, own, 1), atol=1e-6)
