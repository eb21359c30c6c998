"""Tiles of near centres: all centres in them, small, of one neighbourhood, and other ones each time."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.seeds import centre_tiles
from reland_jax.seeds.centre_tiles import near_tiles


@pytest.mark.parametrize("clusters", [1, 2, 47, 95, 96, 100, 1000, 1537])
def test_every_centre_is_at_home(clusters: int) -> None:
    centres = np.random.default_rng(0).normal(size=(clusters, 6)).astype(np.float32)
    tiles = near_tiles(centres, np.random.default_rng(1))
    assert (tiles.number[tiles.home] == np.arange(clusters)[:, None]).any(axis=1).all()
    assert set(tiles.number.reshape(-1)) == set(range(clusters))
    assert tiles.number.shape[1] <= 2 * centre_tiles._SMALLEST
    assert tiles.number.size < clusters + 2 * len(tiles.number), "few centres stand twice"
    np.testing.assert_array_equal(tiles.near[:, 0], np.arange(len(tiles.number)))


def test_near_tiles_are_those_of_the_nearest_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centre_tiles, "_NEAR", 5)
    centres = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
    tiles = near_tiles(centres, np.random.default_rng(1))
    means = centres[tiles.number].mean(axis=1)
    oracle = ((means[:, None] - means[None]) ** 2).sum(axis=2).argsort(axis=1)[:, :5]
    np.testing.assert_array_equal(tiles.near, oracle)


def test_neighbourhoods_stay_together() -> None:
    """Eight groups of 64 centres far apart: no tile has centres of two."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(8), 64))
    centres = (50.0 * np.eye(8)[group] + rng.normal(size=(512, 8))).astype(np.float32)
    tiles = near_tiles(centres, rng)
    groups = group[tiles.number]
    assert len(groups) == 8
    mixed = (groups != groups[:, :1]).any(axis=1).mean()
    assert mixed <= 0.5
    assert (groups == groups[:, :1]).mean() > 0.7


def test_borders_run_elsewhere_each_time() -> None:
    centres = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    rng = np.random.default_rng(1)
    first, other = near_tiles(centres, rng), near_tiles(centres, rng)
    again = near_tiles(centres, np.random.default_rng(1))
    np.testing.assert_array_equal(first.number, again.number)
    together = [tiles.home[:, None] == tiles.home[None] for tiles in (first, other)]
    assert 0.1 < (together[0] & together[1]).sum() / together[0].sum() < 0.9
