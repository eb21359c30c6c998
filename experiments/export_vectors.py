"""Writes the behaviour vectors of a run as Parquet shards, for `experiments.attach`.

    python -m experiments.export_vectors --workdir=DIR --out=OUT [--rows=1000000]

Reads what the stages up to `build_pool` left in the workdir. OUT/users has a shard for every --rows users
with the columns user_id and vector, OUT/seeds.parquet the seed users of the reasoning pool. Users without
training items are left out: no training has touched their vectors. So are seed users whose vector is zero,
which is like no user's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path
from reland_jax.artefacts import stored
from reland_jax.files import written_aside
from reland_jax.scale import write_shard
from reland_jax.storage import load_array, load_built_pool, load_interactions, load_splits
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa


def export(workdir: Path, out: Path, rows: int) -> tuple[int, int]:
    """Writes the shards.

    Args:
        workdir: of `experiments.run`.
        out: folder of the outputs, which is made as a whole; it must not exist yet, or be empty.
        rows: users of a shard.

    Returns:
        How many users and how many seed users.

    Raises:
        RelandError: a stage has not been run, or there are shards already.
    """
    ids = stored(workdir / "load", load_interactions).value.ids
    activity = stored(workdir / "split", load_splits).value.train.lengths()
    vectors = stored(workdir / "encode_users", load_array).value
    built = stored(workdir / "build_pool", partial(load_built_pool, ids))
    seeds, made_from, shards = built.value.pool.seeds.user, built.fingerprint, out / "users"
    if shards.exists() and any(shards.iterdir()):
        raise RelandError(f"--out: {shards} is not empty; choose another folder")
    warm = np.flatnonzero(activity)
    seeds = seeds[(activity[seeds] > 0) & np.asarray(vectors[seeds]).any(axis=1)]
    with written_aside(out, private=True) as aside:
        for part, start in enumerate(range(0, len(warm), rows)):
            chosen = warm[start : start + rows]
            table = _table(ids.users[chosen], vectors[chosen])
            write_shard(aside / "users" / f"part-{part:05d}.parquet", iter([table]), made_from)
        write_shard(aside / "seeds.parquet", iter([_table(ids.users[seeds], vectors[seeds])]), made_from)
    return len(warm), len(seeds)


def _table(users: np.ndarray, vectors: np.ndarray) -> pa.Table:
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table({"user_id": pa.array(users.tolist(), pa.string()), "vector": lists})


def main() -> None:
    """Exports and says what there is."""
    given = flags.FLAGS
    users, seeds = export(Path(given.workdir), Path(given.out), given.rows)
    print(f"{users:,} users in {given.out}/users, {seeds:,} seed users in {given.out}/seeds.parquet")


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    required_path("workdir", "Workdir of a run.")
    required_path("out", "Folder of the outputs.")
    flags.DEFINE_integer("rows", 1_000_000, "Users of a shard.", lower_bound=1)


if __name__ == "__main__":
    command_line.run(main, define_flags)
