"""Behaviour vectors of a run as Parquet shards, the input of `experiments.attach`.

OUT/users has a shard for every so many users with the columns user_id and vector, OUT/seeds.parquet the seed
users of the reasoning pool. Users without training items are left out: no training has touched their vectors.
So are seed users whose vector is zero, which is like no user's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from experiments.serving.vectors import check_free, vector_table
from reland_jax.artefacts import stored
from reland_jax.files import written_aside
from reland_jax.scale import write_shard
from reland_jax.storage import load_array, load_built_pool, load_interactions, load_splits


def export_behaviour(workdir: Path, out: Path, rows: int) -> tuple[int, int]:
    """Writes the shards.

    Args:
        workdir: of `experiments.run`.
        out: folder of the outputs, which is made as a whole; it must not exist yet, or be empty.
        rows: users of a shard.

    Returns:
        How many users and how many seed users.

    Raises:
        RelandError: a stage has not been run, or the folder holds something.
    """
    ids = stored(workdir / "load", load_interactions).value.ids
    activity = stored(workdir / "split", load_splits).value.train.lengths()
    vectors = stored(workdir / "encode_users", load_array).value
    built = stored(workdir / "build_pool", partial(load_built_pool, ids))
    seeds, made_from = built.value.pool.seeds.user, built.fingerprint
    check_free(out)
    warm = np.flatnonzero(activity)
    seeds = seeds[(activity[seeds] > 0) & np.asarray(vectors[seeds]).any(axis=1)]
    with written_aside(out, private=True) as aside:
        for part, start in enumerate(range(0, len(warm), rows)):
            chosen = warm[start : start + rows]
            table = vector_table("user_id", ids.users[chosen], vectors[chosen])
            write_shard(aside / "users" / f"part-{part:05d}.parquet", iter([table]), made_from)
        write_shard(
            aside / "seeds.parquet",
            iter([vector_table("user_id", ids.users[seeds], vectors[seeds])]),
            made_from,
        )
    return len(warm), len(seeds)
