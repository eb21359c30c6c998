"""Recommendations that people use: a Python API over the stages, and its bundle.

A wing: the method does without it. `reland_jax.Reland` is its door, too.

A server or a command that asks for batches takes `Reland.load(folder).predictor`, a `Predictor`: rows of
users or histories of item numbers in, item numbers and scores out, by programs of a few `BATCH_SIZES` users
that `warm` compiles; afterwards nothing is compiled.
"""

from reland_jax.serve.api import Reland
from reland_jax.serve.explaining import (
    BORROWED,
    Contribution,
    Explanation,
    ItemEvidence,
    MatchedSeed,
    sentence,
    shown,
)
from reland_jax.serve.listing import BATCH_SIZES, Ranked
from reland_jax.serve.model import ModelVectors
from reland_jax.serve.predicting import Predictor
from reland_jax.serve.programs import Form, Known, users_of
from reland_jax.serve.stablehlo import Exported, read_exported

__all__ = [
    "BATCH_SIZES",
    "BORROWED",
    "Contribution",
    "Explanation",
    "Exported",
    "Form",
    "ItemEvidence",
    "Known",
    "MatchedSeed",
    "ModelVectors",
    "Predictor",
    "Ranked",
    "Reland",
    "read_exported",
    "sentence",
    "shown",
    "users_of",
]
