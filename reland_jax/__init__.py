"""ReLand in JAX: LLM-enhanced recommendation that asks the LLM about one user in ten.

The names here are the settings of a run and the contracts between its stages; importing them costs
no more than numpy. The work is done by the stages in `reland_jax.stages`, which `reland_jax.flow` runs, and
`experiments.run` starts it from the command line, `Reland` from Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reland_jax.config import Config
from reland_jax.types import (
    Assignment,
    IdMap,
    Interactions,
    Ragged,
    Rationale,
    ReasoningPool,
    RelandError,
    SeedSet,
    Splits,
    TargetRanks,
)

if TYPE_CHECKING:
    from reland_jax.serve import Reland

__version__ = "0.1.0"

__all__ = [
    "Assignment",
    "Config",
    "IdMap",
    "Interactions",
    "Ragged",
    "Rationale",
    "ReasoningPool",
    "Reland",
    "RelandError",
    "SeedSet",
    "Splits",
    "TargetRanks",
]


def __getattr__(name: str) -> Any:
    """`Reland`, imported when it is asked for, since jax comes with it."""
    if name == "Reland":
        from reland_jax.serve import Reland

        return Reland
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
