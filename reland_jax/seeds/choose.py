"""From behaviour representations to the seed set, by the settings of `SeedsConfig`."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from reland_jax.config import SeedsConfig
from reland_jax.device import random_key
from reland_jax.seeds.kmeans import KMeansResult, kmeans
from reland_jax.seeds.kmeans_large import kmeans_large
from reland_jax.seeds.sampling import sample_seeds, uniform_seeds
from reland_jax.types import SeedSet

LARGE = 1_000_000_000
"""Users times clusters from which on `kmeans_large` clusters: with the default settings, 141,000 users."""


def choose_seeds(
    vectors: np.ndarray, activity: np.ndarray, config: SeedsConfig, mesh: Mesh | None = None
) -> tuple[SeedSet, KMeansResult]:
    """Clusters all users and samples the seed users (paper, section 3.1.1).

    S = round(fraction U), at least 1. K = config.clusters; if that is None, S / 2 as in the paper, at
    least 1. With config.sampling "random" all seed users are drawn uniformly.

    Args:
        vectors: ``<float32>[U, D]``, behaviour representations M.
        activity: ``<int>[U]``, training interactions of every user.
        config: the settings.
        mesh: devices over which users are split if there are many (`LARGE`), see `kmeans_large`.

    Raises:
        RelandError: see `kmeans` and `sample_seeds`.
    """
    num_seeds = max(1, round(config.fraction * len(vectors)))
    num_clusters = config.clusters or max(1, num_seeds // 2)
    key = random_key(config.seed)
    if len(vectors) * num_clusters < LARGE:
        clustering = kmeans(
            vectors, num_clusters, key, iterations=config.iterations, tolerance=config.tolerance
        )
    else:
        clustering = kmeans_large(
            vectors, num_clusters, key,
            iterations=config.iterations, tolerance=config.tolerance, mesh=mesh,
        )  # fmt: skip
    if config.sampling == "random":
        return uniform_seeds(clustering.cluster, num_seeds, config.seed), clustering
    seeds = sample_seeds(
        clustering.cluster,
        clustering.distance,
        activity,
        num_seeds,
        rounds=config.rounds,
        seed=config.seed,
    )
    return seeds, clustering
