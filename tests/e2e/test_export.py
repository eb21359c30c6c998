"""What is exported of a run: bundles, vectors, and the input of the streaming assignment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.export import provenance_of
from experiments.serving.behaviour import export_behaviour
from experiments.serving.vectors import export_vectors
from reland_jax.scale.stream import AttachJob, StreamAssigner, attach_all
from reland_jax.storage import load_assignment, load_built_pool, load_interactions
from reland_jax.types import RelandError
from tests.e2e.conftest import Finished
from tests.serve.toys import model_of, toy_bundle


def test_attach_finds_what_the_run_found(finished: Callable[[str], Finished], tmp_path: Path) -> None:
    workdir = finished("lightgcn").workdir
    users, seeds = export_behaviour(workdir, tmp_path / "out", rows=25)
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
    export_behaviour(finished("lightgcn").workdir, tmp_path / "out", rows=1000)
    with pytest.raises(RelandError, match="out is not empty; choose another folder"):
        export_behaviour(finished("lightgcn").workdir, tmp_path / "out", rows=1000)
    shutil.copytree(finished("lightgcn").workdir, tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / "encode_users")
    with pytest.raises(RelandError, match="stage 'encode_users' does not exist; add 'encode_users'"):
        export_behaviour(tmp_path / "work", tmp_path / "other", rows=1000)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("variant", ["id", "reland"])
def test_vectors_give_the_scores_of_the_lists(variant: str, tmp_path: Path) -> None:
    model = model_of(toy_bundle(tmp_path / "made", "lightgcn", variant))
    counts = export_vectors(model.vectors(), tmp_path / "parquet", "parquet")
    assert counts == {"users": 4, "items": 6} | ({"rationales": 2} if variant == "reland" else {})
    tables = {path.stem: pq.read_table(path) for path in (tmp_path / "parquet").iterdir()}
    users, items = (np.array(tables[name]["vector"].to_pylist(), np.float32) for name in ("users", "items"))
    lists = model.recommend(k=1).to_pydict()
    for row, (item, score) in enumerate(zip(lists["item"], lists["score"], strict=True)):
        column = tables["items"]["item_id"].to_pylist().index(item)
        np.testing.assert_allclose(users[row] @ items[column], score, rtol=1e-5)
    export_vectors(model.vectors(), tmp_path / "numpy", "numpy")
    np.testing.assert_array_equal(np.load(tmp_path / "numpy" / "users.npy"), users)
    ids = np.load(tmp_path / "numpy" / "user_ids.npy").tolist()
    assert ids == tables["users"]["user_id"].to_pylist() == model.user_ids
    if variant == "reland":
        seeds = tables["rationales"]["seed_user_id"].to_pylist()
        nearest = [seeds[row] for row in tables["users"]["rationale"].to_pylist()]
        assert nearest == [model.explain(user).seeds[0].user_id for user in ids]
        assert (np.load(tmp_path / "numpy" / "rationales.npy") == model.vectors().rationales).all()


def test_remarks_on_provenance_have_names() -> None:
    assert provenance_of(["shop=Bern", "rights=a=b"]) == {"shop": "Bern", "rights": "a=b"}
    with pytest.raises(RelandError, match="--provenance=Bern: expected NAME=REMARK"):
        provenance_of(["Bern"])
