"""Stage `assign`: every user's nearest seed users (Eq. 3).

There are two settings of neighbours. A user is given `retrieval.neighbours` rationales; in training they are
drawn among the `fusion.neighbours` nearest, if those are more. The artefact has as many as both of them need,
and `given` and `drawn_among` say which of them is meant.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial

import numpy as np

from reland_jax.config import Config, RetrievalConfig
from reland_jax.flow import Codec, Job, Stage
from reland_jax.retrieval import assign_with_cold, profiles
from reland_jax.stages.behaviour import ENCODE_USERS
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_assignment, save_assignment
from reland_jax.types import Assignment

_log = logging.getLogger(__name__)


def _retrieval(config: Config) -> RetrievalConfig:
    """How the artefact is searched, with the number of seed users that it has of every user."""
    wanted = max(config.retrieval.neighbours, config.fusion.neighbours)
    return dataclasses.replace(config.retrieval, neighbours=wanted)


def given(assignment: Assignment, config: Config) -> Assignment:
    """The seed users whose rationales a user is given, k of them, or all where there are fewer."""
    return _nearest(assignment, config.retrieval.neighbours)


def drawn_among(assignment: Assignment, config: Config) -> Assignment:
    """The seed users among whom training draws, and no fewer than are given."""
    return _nearest(assignment, _retrieval(config).neighbours)


def _nearest(assignment: Assignment, count: int) -> Assignment:
    return Assignment(assignment.seed[:, :count], assignment.cosine[:, :count])


def _assign(job: Job) -> Assignment:
    config, pool, activity = job.config, job[BUILD_POOL].pool, job[SPLIT].train.lengths()
    # A file may bring seed users without training items; none can be like them.
    rows = np.flatnonzero(activity[pool.seeds.user])
    if (wanted := config.retrieval.neighbours) > len(rows):
        _log.warning("assign: config.retrieval.neighbours=%d, and there are %d seed users", wanted, len(rows))
    search = _retrieval(config)
    profile = profiles(job[LOAD].user_features, len(activity))
    found = assign_with_cold(
        job[ENCODE_USERS], pool.seeds.user[rows], activity, profile,
        dataclasses.replace(search, neighbours=max(wanted, min(search.neighbours, len(rows)))),
    )  # fmt: skip
    return found._replace(seed=rows[found.seed].astype(np.int32))


def _codec(job: Job) -> Codec[Assignment]:
    users, seeds = job[SPLIT].num_users, len(job[BUILD_POOL].pool.rationales)
    return Codec(save_assignment, partial(load_assignment, users, seeds))


ASSIGN: Stage[Assignment] = Stage(
    "assign",
    reads=(LOAD, SPLIT, ENCODE_USERS, BUILD_POOL),
    settings=lambda config: [_retrieval(config)],
    run=_assign,
    codec=_codec,
)
