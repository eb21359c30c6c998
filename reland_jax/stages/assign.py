"""Stage `assign`: every user's nearest seed users (Eq. 3).

Two settings count neighbours. A user is given `retrieval.neighbours` rationales; in training they are drawn
among the `fusion.neighbours` nearest ones, if that is more. The artefact has enough for both, and `given` and
`drawn_among` select from it.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from pathlib import Path

import numpy as np

from reland_jax.config import Config, RetrievalConfig
from reland_jax.flow import Codec, Job, Stage
from reland_jax.retrieval import assign_with_cold, import_scann, profiles
from reland_jax.stages.behaviour import ENCODE_USERS
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_assignment, save_assignment
from reland_jax.types import Assignment

_log = logging.getLogger(__name__)


def _retrieval(config: Config) -> RetrievalConfig:
    """Settings of the search, with the number of seed users per user in the artefact."""
    wanted = max(config.retrieval.neighbours, config.fusion.neighbours)
    return dataclasses.replace(config.retrieval, neighbours=wanted)


def given(assignment: Assignment, config: Config) -> Assignment:
    """The k seed users whose rationales a user is given, or all if there are fewer."""
    return _nearest(assignment, config.retrieval.neighbours)


def drawn_among(assignment: Assignment, config: Config) -> Assignment:
    """The seed users among which training draws, at least as many as are given."""
    return _nearest(assignment, _retrieval(config).neighbours)


def _nearest(assignment: Assignment, count: int) -> Assignment:
    return Assignment(assignment.seed[:, :count], assignment.cosine[:, :count])


def _assign(job: Job) -> Assignment:
    config, pool, activity = job.config, job[BUILD_POOL].pool, job[SPLIT].train.lengths()
    # A pool file may have seed users without training items; no user can be assigned to them.
    rows = np.flatnonzero(activity[pool.seeds.user])
    if (wanted := config.retrieval.neighbours) > len(rows):
        _log.warning("assign: config.retrieval.neighbours=%d exceeds the %d seed users", wanted, len(rows))
    search = _retrieval(config)
    profile = profiles(job[LOAD].user_features, len(activity))
    found = assign_with_cold(
        job[ENCODE_USERS],
        pool.seeds.user[rows],
        activity,
        profile,
        dataclasses.replace(search, neighbours=max(wanted, min(search.neighbours, len(rows)))),
    )
    return found._replace(seed=rows[found.seed].astype(np.int32))


def _ready(config: Config, workdir: Path) -> None:
    del workdir
    if config.retrieval.engine == "scann":
        import_scann()  # tells what to install


def _codec(job: Job) -> Codec[Assignment]:
    users, seeds = job[SPLIT].num_users, len(job[BUILD_POOL].pool.rationales)
    return Codec(save_assignment, partial(load_assignment, users, seeds))


ASSIGN: Stage[Assignment] = Stage(
    "assign",
    reads=(LOAD, SPLIT, ENCODE_USERS, BUILD_POOL),
    settings=lambda config: [_retrieval(config)],
    run=_assign,
    codec=_codec,
    ready=_ready,
)
