"""The sparse form of EASE with its data: against the exact form, and what is refused."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

from reland_jax.device import sizes, use_sizes
from reland_jax.mesh import use_mesh
from reland_jax.train import closed_form, param_shapes, sparse_ease
from reland_jax.types import RelandError
from tests.train.test_closed_form import CONFIG, EASE, ITEMS, MeshConfig, fitted, task_of

WHOLE = dataclasses.replace(EASE, form="sparse", neighbours=1000)
CUT = dataclasses.replace(WHOLE, neighbours=5)


@pytest.mark.parametrize(
    ("variant", "backbone"),
    [
        ("f_item", "ease"),
        ("reland", "ease_recency"),
        *(pytest.param(v, "ease", marks=pytest.mark.slow) for v in ("id", "reland")),
        *(pytest.param(v, "ease_recency", marks=pytest.mark.slow) for v in ("id", "f_item")),
    ],
)
def test_ranks_of_the_exact_form_where_nothing_is_cut(variant: str, backbone: str) -> None:
    exact, evaluator = fitted(task_of(variant, backbone))
    task = task_of(variant, backbone, ease=WHOLE)
    with use_sizes(dataclasses.replace(sizes(), sparse_bytes=10 * 4 * 10**4)):
        found, sparse = fitted(task)
    for part in ("valid", "test"):
        ranks, expected = (
            each.ranks(one.params, part) for each, one in ((sparse, found), (evaluator, exact))
        )
        assert np.mean(ranks.rank == expected.rank) > 0.98  # of equal scores but for the rounding
    shapes = jax.tree.map(lambda leaf: leaf.shape, param_shapes(task, CONFIG))
    assert shapes == jax.tree.map(np.shape, found.params)
    assert found.params["nearest"].shape == (ITEMS + 1, ITEMS - 1)
    np.testing.assert_array_equal(
        found.history[0]["ndcg@10"], sparse.metrics(found.params, "valid")["ndcg@10"]
    )


def test_eight_devices_equal_one() -> None:
    alone, evaluator = fitted(task_of("reland", ease=CUT))
    with use_mesh(MeshConfig(data=2, model=4)):
        together, evaluators = fitted(task_of("reland", ease=CUT))
        np.testing.assert_allclose(together.params["weight"], alone.params["weight"], atol=1e-6)
        ranks = evaluators.ranks(together.params, "test").rank
    np.testing.assert_array_equal(ranks, evaluator.ranks(alone.params, "test").rank)


def test_every_item_is_in_one_tile() -> None:
    lengths = np.random.default_rng(0).integers(0, 3000, 500)
    groups, widths = sparse_ease._tiles(lengths, 7)
    assert widths == (64, 1024, lengths.max())
    real = [group[group < 500] for group in groups]
    np.testing.assert_array_equal(np.sort(np.concatenate(real)), np.arange(500))
    for group, width in zip(real, widths, strict=True):
        assert lengths[group].max() <= width
    assert all(group.shape[1] <= 7 * jax.device_count() for group in groups)


def test_memory_is_told_and_what_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        task_of("id", ease=CUT).equations()
    assert "to predict each of 41 items from 5 others in float64: at most" in caplog.text
    monkeypatch.setattr(closed_form, "_free_memory", lambda: 10_000)
    with pytest.raises(RelandError, match=r"predict each of 41 items .* GB are free: take fewer neighbours"):
        task_of("id", ease=CUT).equations()


def test_equations_without_a_solution_are_an_error() -> None:
    """In float32 such a lambda adds nothing to texts of such a weight, which are fewer than the items."""
    tiny = dataclasses.replace(WHOLE, precision="float32", regularisation=1e-12, text_weight=1e8)
    task = task_of("f_item", ease=tiny)
    with pytest.raises(RelandError, match="solved to a relative error of .* in float32; raise it"):
        task.solve(task.equations(), 0)
