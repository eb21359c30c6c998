"""Seed users: those the LLM is asked about (paper, section 3.1.1).

`add_texts` appends the texts of a user's items to its behaviour vector. Users are clustered by these vectors
(`kmeans`), then representativeness-aware and importance-aware sampling alternate until exactly S seed users
are chosen (`sample_seeds`). `choose_seeds` does both from a `SeedsConfig`, and clusters in passes over tiles
(`kmeans_large`) if there are many users and clusters.
"""

from reland_jax.seeds.behaviour import add_texts
from reland_jax.seeds.choose import choose_seeds
from reland_jax.seeds.kmeans import KMeansResult, kmeans
from reland_jax.seeds.sampling import sample_seeds

__all__ = ["KMeansResult", "add_texts", "choose_seeds", "kmeans", "sample_seeds"]
