"""From behaviour representations to the seed set, by the settings of `SeedsConfig`."""

from __future__ import annotations

import jax
import numpy as np

from reland_jax.config import SeedsConfig
from reland_jax.seeds.kmeans import KMeansResult, kmeans
from reland_jax.seeds.sampling import sample_seeds
from reland_jax.types import SeedSet


def choose_seeds(
    vectors: np.ndarray, activity: np.ndarray, config: SeedsConfig
) -> tuple[SeedSet, KMeansResult]:
    """Clusters all users and samples the seed users (paper, section 3.1.1).

    S = round(fraction U), at least 1; K = config.clusters, or S / 2 where that is 0 (the paper's
    numbers of clusters are half its numbers of seed users), at least 1.

    Args:
        vectors: ``<float32>[U, D]``, behaviour representations M.
        activity: ``<int>[U]``, training interactions of every user.
        config: the settings.

    Raises:
        RelandError: see `kmeans` and `sample_seeds`.
    """
    num_seeds = max(1, round(config.fraction * len(vectors)))
    clustering = kmeans(
        vectors,
        config.clusters or max(1, num_seeds // 2),
        jax.random.key(config.seed),
        iterations=config.iterations,
        tolerance=config.tolerance,
    )
    seeds = sample_seeds(
        clustering.cluster,
        clustering.distance,
        activity,
        num_seeds,
        rounds=config.rounds,
        seed=config.seed,
    )
    return seeds, clustering
