"""Recommendations that people use: a Python API over the stages, and its bundle.

A wing: the method does without it. `reland_jax.Reland` is its door, too.
"""

from reland_jax.serve.api import ModelVectors, Reland
from reland_jax.serve.explaining import Explanation, ItemEvidence, MatchedSeed

__all__ = ["Explanation", "ItemEvidence", "MatchedSeed", "ModelVectors", "Reland"]
