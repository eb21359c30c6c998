"""From a run to the streaming assignment: it finds the seed users that the run found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.export_vectors import export
from reland_jax.scale.stream import AttachJob, StreamAssigner, attach_all
from reland_jax.storage import load_assignment, load_built_pool, load_interactions
from reland_jax.types import RelandError
from tests.e2e.conftest import Finished


def test_attach_finds_what_the_run_found(finished: Callable[[str], Finished], tmp_path: Path) -> None:
    workdir = finished("lightgcn").workdir
    users, seeds = export(workdir, tmp_path / "out", rows=25)
    shards = sorted((tmp_path / "out" / "users").iterdir())
    ids = load_interactions(workdir / "load").ids
    pool = load_built_pool(ids, workdir / "build_pool").pool
    assert len(shards) == -(-users // 25) and seeds == len(pool.seeds.user)

    folders = (tmp_path / "out" / "users", tmp_path / "out" / "seeds.parquet", tmp_path / "matched")
    job = AttachJob(*folders, engine="exact", k=1, recall=0.99, batch=64, sample=100)
    attach_all(StreamAssigner(job), lambda progress: None, 0, 1)
    matched = pq.read_table(tmp_path / "matched").to_pydict()
    expected = load_assignment(len(ids.users), seeds, workdir / "assign")
    number = {name: row for row, name in enumerate(ids.users)}
    rows = np.array([number[name] for name in matched["user_id"]])
    assert len(rows) == users
    found = [number[name] for name in matched["seed_user_id"]]
    assert found == pool.seeds.user[expected.seed[rows, 0]].tolist()
    np.testing.assert_allclose(matched["cosine"], expected.cosine[rows, 0], atol=1e-6)


def test_what_is_missing_or_in_the_way_is_reported(
    finished: Callable[[str], Finished], tmp_path: Path
) -> None:
    export(finished("lightgcn").workdir, tmp_path / "out", rows=1000)
    with pytest.raises(RelandError, match="users is not empty; choose another folder"):
        export(finished("lightgcn").workdir, tmp_path / "out", rows=1000)
    shutil.copytree(finished("lightgcn").workdir, tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / "encode_users")
    with pytest.raises(RelandError, match="stage 'encode_users' does not exist; add 'encode_users'"):
        export(tmp_path / "work", tmp_path / "other", rows=1000)
    assert not (tmp_path / "other").exists()
