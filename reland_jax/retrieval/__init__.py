"""Retrieval: every user gets the seed users most similar to it (paper, section 3.2.1, Eq. 3).

`search` finds the nearest keys by cosine with one of `ENGINES`; `assign` matches all users to seeds,
and `assign_with_cold` also those without training items.
"""

from reland_jax.retrieval.assign import assign
from reland_jax.retrieval.cold import assign_with_cold, most_voted, profile_weights, profiles
from reland_jax.retrieval.exact import exact_top_k, nearest
from reland_jax.retrieval.index import ENGINES, recall_at_k, search
from reland_jax.retrieval.inductive import (
    FoldIn,
    Matching,
    behaviour_of,
    distinct,
    fold_in,
    fold_in_all,
    learn_fold_in,
    learn_matching,
)
from reland_jax.retrieval.scann import import_scann, scann_top_k

__all__ = [
    "ENGINES",
    "FoldIn",
    "Matching",
    "behaviour_of",
    "assign",
    "assign_with_cold",
    "distinct",
    "exact_top_k",
    "fold_in",
    "fold_in_all",
    "import_scann",
    "learn_fold_in",
    "learn_matching",
    "most_voted",
    "nearest",
    "profile_weights",
    "profiles",
    "recall_at_k",
    "scann_top_k",
    "search",
]
