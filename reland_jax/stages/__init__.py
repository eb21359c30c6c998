"""The stages of ReLand in order, from raw interactions to trained variants (paper, Figure 2).

`FLOW` is the table of the stages before training; `training` makes the stage that trains one variant with one
seed.
"""

from __future__ import annotations

from reland_jax.artefacts import fingerprint
from reland_jax.flow import Flow, Made
from reland_jax.stages.assign import ASSIGN, given
from reland_jax.stages.behaviour import ENCODE_USERS
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.recommender import id_task
from reland_jax.stages.seeds import SAMPLE_SEEDS
from reland_jax.stages.split import SPLIT, WHOLE
from reland_jax.stages.texts import (
    BY_COUNTS,
    ITEMS,
    PHRASES,
    PHRASES_BY_COUNTS,
    RATIONALES,
    rationale_stage,
)
from reland_jax.stages.train import (
    LINEAR_WEIGHTS,
    linear_weights,
    lists_to_show,
    rationales_of,
    recommender_of,
    trained_params,
    trained_recommender,
    training,
    users_to_show,
)
from reland_jax.storage import Inputs, Seeding, Texts, seed_set

__all__ = [
    "ASSIGN",
    "BY_COUNTS",
    "BUILD_POOL",
    "ENCODE_USERS",
    "FLOW",
    "ITEMS",
    "LINEAR_WEIGHTS",
    "LOAD",
    "RATIONALES",
    "SAMPLE_SEEDS",
    "SPLIT",
    "WHOLE",
    "id_task",
    "inputs_of",
    "linear_weights",
    "lists_to_show",
    "rationale_stage",
    "rationales_of",
    "recommender_of",
    "seeding_of",
    "trained_params",
    "trained_recommender",
    "training",
    "users_to_show",
]

FLOW = Flow(
    (
        LOAD,
        SPLIT,
        ENCODE_USERS,
        SAMPLE_SEEDS,
        BUILD_POOL,
        ITEMS,
        RATIONALES,
        BY_COUNTS,
        PHRASES,
        PHRASES_BY_COUNTS,
        ASSIGN,
    ),
    after=("train", "report"),
)
"""The stages from raw interactions to the inputs of training."""


def seeding_of(made: Made) -> Seeding:
    """The inputs of a pool, from a run that includes the seed users."""
    seeds, stamp = made[SAMPLE_SEEDS], made.artefacts[SAMPLE_SEEDS.name].fingerprint
    return Seeding(
        made[LOAD], made[SPLIT], made[ENCODE_USERS], seed_set(seeds), seeds["cluster_of_user"], stamp
    )


def inputs_of(made: Made) -> Inputs:
    """The inputs of results and report, from a run that includes the assignment."""
    stamp = fingerprint(*(made.artefacts[each.name].fingerprint for each in (ITEMS, RATIONALES, ASSIGN)))
    return Inputs(
        made[LOAD],
        made[SPLIT],
        made[SAMPLE_SEEDS]["cluster_of_user"],
        made[BUILD_POOL],
        Texts(made[ITEMS], made[RATIONALES]),
        given(made[ASSIGN], made.config),
        stamp,
    )
