"""The streaming assignment: equal to `assign`, restartable, bounded, and clear about faulty files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import RetrievalConfig
from reland_jax.retrieval import assign
from reland_jax.retrieval.exact import ExactIndex, exact_top_k
from reland_jax.scale import shards, stream
from reland_jax.scale.stream import AttachJob, Progress, StreamAssigner, attach_all
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, ids: object, vectors: np.ndarray, *, group: int = 64, fixed: bool = True) -> Path:
    flat = pa.array(np.asarray(vectors, np.float32).reshape(-1))
    if fixed:
        column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    else:
        column = pa.ListArray.from_arrays(np.arange(len(vectors) + 1) * vectors.shape[1], flat)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user_id": pa.array(ids), "vector": column}), path, row_group_size=group)
    return path


def example(folder: Path, num_users: int = 500, num_seeds: int = 40, text: bool = False) -> tuple:
    """A job in a folder, with its behaviour vectors and seed users; three shards of unlike lengths."""
    rng = np.random.default_rng(0)
    behaviour = rng.normal(size=(num_users, 8)).astype(np.float32)
    behaviour[3] = 0.0
    seed_users = rng.choice(np.delete(np.arange(num_users), 3), num_seeds, replace=False)
    ids = 1000 + 7 * np.arange(num_users)
    names = np.array([f"user-{number}" for number in ids]) if text else ids
    for number, rows in enumerate(np.split(np.arange(num_users), [num_users // 2, num_users // 2 + 9])):
        write(folder / "users" / f"part-{number}.parquet", names[rows], behaviour[rows])
    write(folder / "seeds.parquet", names[seed_users], behaviour[seed_users])
    job = AttachJob(folder / "users", folder / "seeds.parquet", folder / "out", batch=50)
    return job, behaviour, seed_users, names


def changed(job: AttachJob, **values: object) -> AttachJob:
    return stream.dataclasses.replace(job, **values)


def run(job: AttachJob, **options: int) -> list[Progress]:
    made: list[Progress] = []
    attach_all(StreamAssigner(job), made.append, **options)
    return made


def outputs(job: AttachJob) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(job.out.glob("[!_.]*.parquet"))}


def result(job: AttachJob) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(job.out.glob("[!_.]*.parquet"))])


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(("engine", "k"), [("exact", 1), ("exact", 3), ("approx", 1), ("approx", 3)])
def test_equals_assign(tmp_path: Path, engine: str, k: int, text: bool) -> None:
    job, behaviour, seed_users, names = example(tmp_path, text=text)
    job = changed(job, engine=engine, k=k)
    if engine == "approx":  # it breaks the tie of the vector of zeros in its own way
        behaviour[3] = 1.0
        write(job.users / "part-0.parquet", names[:250], behaviour[:250])
        write(job.seeds, names[seed_users], behaviour[seed_users])
    run(job)
    found, oracle = result(job), assign(behaviour, seed_users, RetrievalConfig(neighbours=k))
    expected, cosine = names[seed_users][oracle.seed].tolist(), oracle.cosine.copy()
    if engine == "exact":  # the vector of zeros has no nearest seed user
        expected[3], cosine[3] = [None] * k, np.nan
    assert found.column_names == ["user_id", "seed_user_id", "cosine"] + ["rank"] * (k > 1)
    assert found["user_id"].to_pylist() == np.repeat(names, k).tolist()
    assert found["seed_user_id"].to_pylist() == sum(expected, [])
    np.testing.assert_allclose(found["cosine"].to_numpy(), cosine.reshape(-1), atol=1e-6)
    if k > 1:
        assert found["rank"].to_pylist() == [1, 2, 3] * len(behaviour)


@pytest.mark.optional("scann")
@pytest.mark.parametrize("k", [1, 2])
def test_scann_equals_exact_on_a_small_set(tmp_path: Path, k: int) -> None:
    job, behaviour, seed_users, names = example(tmp_path)
    job = changed(job, engine="scann", k=k)
    run(job)
    oracle = assign(behaviour, seed_users, RetrievalConfig(neighbours=k))
    expected = names[seed_users][oracle.seed].tolist()
    expected[3] = [None] * k  # a vector of zeros
    assert result(job)["seed_user_id"].to_pylist() == sum(expected, [])


@given(st.integers(0, 10_000), st.sampled_from([1, 5]), st.sampled_from([1, 700]), st.sampled_from([5, 1100]))
def test_index_equals_exact_top_k_with_ties(seed: int, k: int, num_queries: int, num_keys: int) -> None:
    """Integer vectors tie often, and some are zero; both sides of the tile's 512 rows and keys."""
    rng = np.random.default_rng(seed)
    queries, keys = (rng.integers(-2, 3, size=(n, 2)).astype(np.float32) for n in (num_queries, num_keys))
    index, cosine = ExactIndex(keys).search(queries, k)
    oracle_index, oracle_cosine = exact_top_k(queries, keys, k)
    np.testing.assert_allclose(cosine, oracle_cosine, atol=3e-7)
    unit_queries, unit_keys = (x / np.maximum(np.linalg.norm(x, axis=1)[:, None], 1) for x in (queries, keys))
    true = np.einsum("qd,qkd->qk", unit_queries, unit_keys[index])
    np.testing.assert_allclose(cosine, true, atol=3e-7)
    # Of equal keys the first wins, and of all of them with a query of zeros.
    first = (keys[:, None] == keys).all(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(index[:, 0], first[index[:, 0]])
    zero = ~queries.any(axis=1)
    np.testing.assert_array_equal(index[zero], oracle_index[zero])
    assert index.dtype == np.int32 and cosine.dtype == np.float32


@pytest.mark.parametrize("batch", [1, 7, 64, 10_000])
def test_the_bytes_do_not_depend_on_the_batch(tmp_path: Path, batch: int) -> None:
    job, *_ = example(tmp_path, num_users=120)
    run(changed(job, out=tmp_path / "whole", batch=1000))
    run(changed(job, out=tmp_path / "cut", batch=batch))
    assert outputs(changed(job, out=tmp_path / "cut")) == outputs(changed(job, out=tmp_path / "whole"))


@pytest.mark.parametrize("lengths", [[0], [0, 3, 5], [8], [9, 1, 20, 0, 2]])
def test_row_groups_have_a_fixed_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int]
) -> None:
    monkeypatch.setattr(shards, "_ROW_GROUP", 4)
    rows = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    shards.write_shard(tmp_path / "a.parquet", iter([pa.table({"n": part}) for part in rows]), "x")
    found = pq.ParquetFile(tmp_path / "a.parquet")
    groups = [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert found.read()["n"].to_pylist() == list(range(sum(lengths)))
    assert groups[:-1] == [4] * (len(groups) - 1) and all(0 < n <= 4 for n in groups)


def test_memory_is_bounded_by_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row group of 400 users: no more than 50 are read, searched or written at a time."""
    job, behaviour, _, names = example(tmp_path)
    write(job.users / "part-0.parquet", names[:400], behaviour[:400], group=400)
    seen: list[int] = []
    read = shards.batches

    def counted(reader: object, *arguments: Any) -> Iterator[tuple]:
        for ids, vectors in read(*arguments):
            seen.append(len(vectors))
            assert len(ids) == len(vectors) and vectors.base is None or len(vectors) <= 50
            yield ids, vectors

    monkeypatch.setattr(shards.VectorShards, "batches", counted)
    run(changed(job, repeated_users=True))
    assert max(seen) == 50 and sum(seen) == 400 + 9 + 241


def test_finished_shards_are_not_made_again(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    assert [progress.done for progress in run(job)] == [250, 259, 500]
    before = {path: path.stat().st_mtime_ns for path in job.out.glob("*.parquet")}
    assert run(job) == []
    assert {path: path.stat().st_mtime_ns for path in job.out.glob("*.parquet")} == before


@pytest.mark.parametrize("engine", ["exact", "ivf"])
def test_goes_on_after_a_kill_between_and_within_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    job = changed(example(tmp_path)[0], engine=engine)
    run(changed(job, out=tmp_path / "whole"))
    real, calls = StreamAssigner._table, []

    def killed(self: StreamAssigner, ids: pa.Array, vectors: np.ndarray) -> pa.Table:
        calls.append(len(ids))
        if len(calls) == 11:  # the first shard takes 1 + 8 calls, so this is within the second or third
            raise KeyboardInterrupt
        return real(self, ids, vectors)

    monkeypatch.setattr(StreamAssigner, "_table", killed)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    monkeypatch.undo()
    assert list(outputs(job)) == ["part-0.parquet"] and not list(job.out.glob("*.tmp-*"))
    again = run(job)
    assert [progress.shard.name for progress in again] == ["part-1.parquet", "part-2.parquet"]
    assert again[-1].done == again[-1].total == 500 and again[-1].assigned == 250
    assert outputs(job) == outputs(changed(job, out=tmp_path / "whole"))


@pytest.mark.optional("scann")
@pytest.mark.slow
def test_scann_goes_on_with_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ScaNN trains another index every time; the kept one gives the outputs of a run that was not killed."""
    job = changed(example(tmp_path, 7000, 6000)[0], engine="scann", recall=0.5)
    attacher = StreamAssigner(job)
    real, calls = attacher._table, []

    def table(ids: pa.Array, vectors: np.ndarray) -> pa.Table:
        calls.append(len(ids))
        if len(calls) == 150:  # within the third shard
            raise KeyboardInterrupt
        return real(ids, vectors)

    monkeypatch.setattr(attacher, "_table", table)
    with pytest.raises(KeyboardInterrupt):
        attach_all(attacher, print)
    assert list(outputs(job)) == ["part-0.parquet", "part-1.parquet"]
    shutil.copytree(job.out, tmp_path / "whole", ignore=shutil.ignore_patterns("*.parquet"))
    run(job)
    run(changed(job, out=tmp_path / "whole"))
    assert outputs(job) == outputs(changed(job, out=tmp_path / "whole"))


def test_ivf_finds_what_its_tuning_says_and_is_kept(tmp_path: Path) -> None:
    job, behaviour, seed_users, _ = example(tmp_path, 2000, 300)
    job = changed(job, engine="ivf", recall=0.9, k=2)
    attacher = StreamAssigner(job)
    attach_all(attacher, print)
    oracle = assign(behaviour, seed_users, RetrievalConfig(neighbours=2))
    own = 1000 + 7 * seed_users
    found = result(job)["seed_user_id"].to_numpy().reshape(-1, 2)
    recall = (own[oracle.seed][:, :, None] == found[:, None]).any(axis=2).mean()
    assert 0.87 < recall < 1.0 and attacher.effort.recall >= 0.9
    np.testing.assert_array_equal(found[seed_users, 0], own)
    (kept,) = (path for path in job.out.glob("_index-*") if path.is_dir())
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert StreamAssigner(job).effort == attacher.effort
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_a_killed_process_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """SIGKILL in the middle of a shard: what it wrote is not an output, and the next run clears it away."""
    job, *_ = example(tmp_path)
    run(changed(job, out=tmp_path / "whole"))
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom reland_jax.scale.stream import *\n"
        "real, calls = StreamAssigner._table, []\n"
        "def slow(self, ids, vectors):\n    calls.append(1)\n"
        "    time.sleep(600 * (len(calls) > 4))\n    return real(self, ids, vectors)\n"
        "StreamAssigner._table = slow\nusers, seeds, out = map(Path, sys.argv[1:])\n"
        "attach_all(StreamAssigner(AttachJob(users, seeds, out, batch=50)), print)"
    )
    folders = [str(job.users), str(job.seeds), str(job.out)]
    process = subprocess.Popen([sys.executable, "-c", program, *folders], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 120
        while not list(job.out.glob(".part-0.parquet.tmp-*")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert list(job.out.glob(".part-0.parquet.tmp-*")) and outputs(job) == {}
    run(job)
    assert outputs(job) == outputs(changed(job, out=tmp_path / "whole"))
    assert not list(job.out.glob(".*"))


def test_a_damaged_or_outdated_output_is_made_again(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    run(job)
    whole = outputs(job)
    (job.out / "part-0.parquet").write_bytes(whole["part-0.parquet"][:-20])
    write(job.users / "part-2.parquet", names[300:], behaviour[300:])
    assert [progress.shard.name for progress in run(job)] == ["part-0.parquet", "part-2.parquet"]
    assert outputs(job)["part-0.parquet"] == whole["part-0.parquet"]
    assert pq.read_metadata(job.out / "part-2.parquet").num_rows == 200


def test_outputs_of_other_seeds_or_settings_never_mix(tmp_path: Path) -> None:
    job, behaviour, seed_users, names = example(tmp_path)
    run(job)
    with pytest.raises(RelandError, match=r"out holds outputs made with k 1 \(now 2\); choose another --out"):
        StreamAssigner(changed(job, k=2))
    with pytest.raises(RelandError, match=r"engine exact \(now approx\), recall None \(now 0.9\)"):
        StreamAssigner(changed(job, engine="approx", recall=0.9))
    StreamAssigner(changed(job, recall=0.5, batch=3))  # neither decides what the exact engine finds
    write(job.seeds, names[seed_users], behaviour[seed_users] + np.float32(1e-3))
    with pytest.raises(RelandError, match=r"made with seeds [0-9a-f]{16} \(now [0-9a-f]{16}\)"):
        StreamAssigner(job)


def test_parts_divide_the_shards(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    assert [p.shard.name for p in run(job, part=1, parts=2)] == ["part-1.parquet"]
    assert [p.shard.name for p in run(job, part=0, parts=2)] == ["part-0.parquet", "part-2.parquet"]
    with pytest.raises(RelandError, match="--part=2 must be between 0 and --parts=2"):
        run(job, part=2, parts=2)


def test_lists_of_variable_length_and_small_integers_are_taken(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    run(changed(job, out=tmp_path / "whole"))
    write(job.users / "part-0.parquet", names[:250].astype(np.int16), behaviour[:250], fixed=False)
    run(job)
    assert result(job).equals(result(changed(job, out=tmp_path / "whole")))


def test_an_empty_shard_gives_an_empty_output(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    write(job.users / "part-1.parquet", names[:0], behaviour[:0])
    run(job)
    assert pq.read_table(job.out / "part-1.parquet").num_rows == 0 and run(job) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    job, behaviour, _, names = example(tmp_path)
    behaviour[130, 2] = value
    write(job.users / "part-0.parquet", names[:250], behaviour[:250])
    message = rf"{re.escape('part-0.parquet')}: row group 2, row 2: the vector holds NaN or infinity"
    with pytest.raises(RelandError, match=message):
        run(job)
    assert outputs(job) == {} and not list(job.out.glob(".*"))


def test_wrong_columns_and_widths_are_named(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    part = job.users / "part-2.parquet"
    write(part, names[:9], behaviour[:9, :7])
    with pytest.raises(RelandError, match=r"part-2.parquet: vectors of width 7; those of .* have 8"):
        run(job)
    assert outputs(job) == {}, "nothing is made before all shards were looked over"
    pq.write_table(pa.table({"user": names[:2], "vector": [[1.0], [2.0]]}), part)
    with pytest.raises(RelandError, match=r"no column 'user_id'; it has user, vector"):
        run(job)
    pq.write_table(pa.table({"user_id": names[:2], "vector": [["1.0"], ["2.0"]]}), part)
    with pytest.raises(RelandError, match=r"column 'vector' is list<.*string>; expected lists of numbers"):
        run(job)
    mixed = pa.array([[1.0] * 8, [1.0] * 8, [1.0] * 6], pa.list_(pa.float32()))
    pq.write_table(pa.table({"user_id": names[-3:], "vector": mixed}), part)
    with pytest.raises(RelandError, match=r"row group 0, row 2: a vector of width 6; expected 8"):
        run(job)
    write(part, [f"u{n}" for n in range(3)], behaviour[:3])
    with pytest.raises(RelandError, match=r"user_id is string, that of the seed users is int64"):
        run(job)


def test_missing_values_are_named(tmp_path: Path) -> None:
    job, behaviour, _, _ = example(tmp_path)
    part = job.users / "part-1.parquet"
    write(part, pa.array([1, None, 3]), behaviour[:3])
    with pytest.raises(RelandError, match="row group 0, row 1: user_id is missing"):
        run(job)
    vectors = pa.array([[1.0] * 8, None], pa.list_(pa.float32(), 8))
    pq.write_table(pa.table({"user_id": [1, 2], "vector": vectors}), part)
    with pytest.raises(RelandError, match="row group 0, row 1: the vector is missing"):
        run(job)


def test_damaged_inputs_are_named(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    part = job.users / "part-0.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-20])
    with pytest.raises(RelandError, match="part-0.parquet: not a readable Parquet file"):
        run(job)
    part.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(RelandError, match="part-0.parquet: row group 0 is damaged"):
        run(job)


def test_faulty_seeds_and_settings_are_named(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    with pytest.raises(RelandError, match=r"--k=41 must be between 1 and the 40 seed users"):
        StreamAssigner(changed(job, k=41))
    with pytest.raises(RelandError, match=r"--engine='exakt' is not known"):
        StreamAssigner(changed(job, engine="exakt"))
    with pytest.raises(RelandError, match="--recall=1.0 must be between"):
        StreamAssigner(changed(job, engine="scann", recall=1.0))
    with pytest.raises(RelandError, match="need a folder of their own"):
        StreamAssigner(changed(job, out=job.users))
    with pytest.raises(RelandError, match="there is no such file"):
        StreamAssigner(changed(job, seeds=tmp_path / "none.parquet"))
    write(job.seeds, [5, 6, 5], behaviour[:3])
    with pytest.raises(RelandError, match="seed user 5 is listed more than once"):
        StreamAssigner(job)
    write(job.seeds, names[:0], behaviour[:0])
    with pytest.raises(RelandError, match="no seed users"):
        StreamAssigner(job)


def test_outputs_are_read_as_one_data_set(tmp_path: Path) -> None:
    """Readers of a folder skip names that start with "_" or ".", so only outputs are found."""
    job, behaviour, *_ = example(tmp_path)
    run(job)
    table = pq.read_table(job.out)
    assert len(table) == len(behaviour) and pc.min(table["cosine"]).as_py() > -1.0
