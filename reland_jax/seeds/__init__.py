"""Seeds: whom the LLM is asked about (paper, section 3.1.1).

Users are clustered by their behaviour representations (`kmeans`), then representativeness-aware and
importance-aware sampling alternate until exactly S seed users are chosen (`sample_seeds`).
`choose_seeds` does both from a `SeedsConfig`.
"""

from reland_jax.seeds.choose import choose_seeds
from reland_jax.seeds.kmeans import KMeansResult, kmeans, lloyd
from reland_jax.seeds.sampling import sample_seeds

__all__ = ["KMeansResult", "choose_seeds", "kmeans", "lloyd", "sample_seeds"]
