"""Stage `sample_seeds`: clusters of users, and the seed users that the pool is about."""

from __future__ import annotations

from functools import partial

import numpy as np

from reland_jax.artefacts import save_arrays
from reland_jax.flow import Codec, Job, Stage
from reland_jax.mesh import own_devices
from reland_jax.seeds import choose_seeds
from reland_jax.stages.behaviour import ENCODE_USERS
from reland_jax.stages.split import SPLIT
from reland_jax.storage import load_seeding

NO_CLUSTER = -1
"""Cluster of a user without training items."""


def _sample_seeds(job: Job) -> dict[str, np.ndarray]:
    behaviour, activity = job[ENCODE_USERS], job[SPLIT].train.lengths()
    # A user without training items has nothing for a prompt, and an untrained vector.
    warm = np.flatnonzero(activity)
    devices = own_devices(job.config.mesh)
    seeds, clustering = choose_seeds(behaviour[warm], activity[warm], job.config.seeds, devices)
    cluster_of_user = np.full(len(activity), NO_CLUSTER, np.int32)
    cluster_of_user[warm] = clustering.cluster
    user = warm[seeds.user].astype(np.int32)
    return {**seeds._asdict(), "user": user, "cluster_of_user": cluster_of_user}


SAMPLE_SEEDS: Stage[dict[str, np.ndarray]] = Stage(
    "sample_seeds",
    reads=(SPLIT, ENCODE_USERS),
    settings=lambda config: [config.seeds],
    run=_sample_seeds,
    codec=lambda job: Codec(save_arrays, partial(load_seeding, job[SPLIT].num_users)),
)
"""The arrays of a `SeedSet`, and "cluster_of_user" ``<int32>[U]``, -1 for a user without training items."""
