"""What the streaming assignment does with damaged, changed and foreign files, and with unusual users."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reland_jax.config import RetrievalConfig
from reland_jax.files import checksum
from reland_jax.retrieval import assign
from reland_jax.scale import repeats
from reland_jax.scale.outputs import MANIFEST, Outputs
from reland_jax.scale.repeats import find_repeats
from reland_jax.scale.shards import list_shards
from reland_jax.scale.stream import AttachJob, StreamAssigner, attach_all
from reland_jax.types import RelandError
from tests.scale.test_stream import REPOSITORY, changed, example, outputs, result, run, write


def made(job: AttachJob, **options: int) -> list[str]:
    """The names of the shards that a run made."""
    return [progress.shard.relative_to(job.users).as_posix() for progress in run(job, **options)]


def flip(path: Path, place: float = 0.5) -> None:
    """Changes one bit; size and time stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    """Leaves the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    """Leaves nothing."""
    path.write_bytes(b"")


def pipe(path: Path) -> None:
    """Puts a pipe in the place of a file: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def nest(path: Path) -> None:
    """Leaves JSON that is nested deeper than it can be read."""
    path.write_text("[" * 200_000)


DAMAGES = [flip, cut, empty, Path.unlink, pipe, nest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_output_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    job, *_ = example(tmp_path)
    run(job)
    whole = outputs(job)
    damage(job.out / "part-1.parquet")
    assert made(job) == ["part-1.parquet"] and outputs(job) == whole and made(job) == []


def test_every_byte_of_an_output_is_looked_at(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    run(job)
    whole = outputs(job)
    for place in np.linspace(0, 0.999, 12):
        flip(job.out / "part-1.parquet", place)
        assert made(job) == ["part-1.parquet"] and outputs(job) == whole


def test_exchanged_outputs_are_made_again(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    write(job.users / "part-2.parquet", names[250:259] + 10**6, behaviour[250:259])  # as many rows as part-1
    run(job)
    whole = outputs(job)
    one, two = job.out / "part-1.parquet", job.out / "part-2.parquet"
    one.write_bytes(whole["part-2.parquet"])
    two.write_bytes(whole["part-1.parquet"])
    assert made(job) == ["part-1.parquet", "part-2.parquet"] and outputs(job) == whole


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_record_costs_its_output_only(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    job, *_ = example(tmp_path)
    run(job)
    whole = outputs(job)
    damage(job.out / "_made" / "part-0.parquet.json")
    assert made(job) == ["part-0.parquet"] and outputs(job) == whole


NUMBERS = '{"job": null, "made_from": 1, "rows": 1, "unmatched": 1, "checksum": 1}'


@pytest.mark.parametrize("content", ["null", "[]", "1", '{"job": 1}', NUMBERS])
def test_a_record_of_something_else_costs_its_output_only(tmp_path: Path, content: str) -> None:
    job, *_ = example(tmp_path)
    run(job)
    (job.out / "_made" / "part-0.parquet.json").write_text(content)
    assert made(job) == ["part-0.parquet"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_heals_where_all_is_of_this_job(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    job, *_ = example(tmp_path)
    run(job)
    content = (job.out / MANIFEST).read_text()
    if damage is flip:  # into something that is no JSON
        (job.out / MANIFEST).write_text(content.replace("{", "[", 1))
    else:
        damage(job.out / MANIFEST)
    with pytest.raises(
        RelandError, match="is missing or damaged, and part-0.parquet was not made with these"
    ):
        StreamAssigner(changed(job, k=2))
    assert made(job) == [] and (job.out / MANIFEST).read_text() == content


def rewritten(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Writes a shard again with other vectors of the same size, without statistics or compression."""
    table, size = pq.read_table(path), path.stat()
    vectors = np.stack(table["vector"].to_numpy(zero_copy_only=False))
    column = pa.FixedSizeListArray.from_arrays(pa.array(change(vectors).reshape(-1)), vectors.shape[1])
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"user_id": table["user_id"], "vector": column}), path, **options)
    os.utime(path, ns=(size.st_atime_ns, size.st_mtime_ns))


@pytest.mark.parametrize("change", [lambda v: v[::-1], lambda v: np.roll(v, 1, 0), lambda v: -v])
def test_a_shard_is_known_by_its_content(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    job, *_ = example(tmp_path)
    part = job.users / "part-2.parquet"
    rewritten(part, lambda vectors: vectors)
    run(job)
    before, size = result(job), part.stat().st_size
    rewritten(part, change)
    assert part.stat().st_size == size, "else the test would not tell size from content"
    assert made(job) == ["part-2.parquet"] and not result(job).equals(before)


def test_a_shard_that_changes_while_it_is_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, *_ = example(tmp_path)
    attacher, part = StreamAssigner(job), job.users / "part-0.parquet"
    real = attacher._table

    def table(ids: pa.Array, vectors: np.ndarray) -> pa.Table:
        part.touch()
        return real(ids, vectors)

    monkeypatch.setattr(attacher, "_table", table)
    with pytest.raises(RelandError, match=r"part-0.parquet was changed while it was read"):
        attach_all(attacher, print)
    assert outputs(job) == {}


def test_files_that_are_not_ours_are_never_replaced(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    theirs = write(job.out / "part-1.parquet", names[:3], behaviour[:3])
    content = theirs.read_bytes()
    with pytest.raises(
        RelandError, match=r"part-1.parquet was not made by this program, so it is not replaced"
    ):
        run(job)
    assert outputs(job) == {"part-1.parquet": content}


@pytest.mark.parametrize("name", ["cell.npy", "effort.json", "checksums.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_built_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    job = changed(example(tmp_path)[0], engine="ivf", recall=0.9)
    run(job)
    whole = outputs(job)
    (index,) = (path for path in job.out.glob("_index-*") if path.is_dir())
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    damage(index / name)
    assert made(job) == [] and outputs(job) == whole, "the same index comes out, so all outputs are its"
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before
    assert "it is built again" in caplog.text


def test_an_edited_index_is_never_used_beside_the_right_one(tmp_path: Path) -> None:
    """Also where somebody makes the checksums fit: no output of the right index stays beside one of it."""
    job = changed(example(tmp_path)[0], engine="ivf", recall=0.9)
    run(job)
    (index,) = (path for path in job.out.glob("_index-*") if path.is_dir())
    effort = json.loads((index / "effort.json").read_text()) | {"margin": -1.0}
    (index / "effort.json").write_text(json.dumps(effort))
    assert made(job) == [] and json.loads((index / "effort.json").read_text())["margin"] != -1.0
    (index / "effort.json").write_text(json.dumps(effort))
    sums = json.loads((index / "checksums.json").read_text())
    sums["effort.json"] = checksum(index / "effort.json")
    (index / "checksums.json").write_text(json.dumps(sums))
    assert len(made(job)) == 3


def test_two_at_once_share_the_work(tmp_path: Path) -> None:
    """Both end well, every shard is made once, and the outputs are those of one."""
    job, behaviour, _, names = example(tmp_path)
    for number in range(12):
        write(job.users / f"part-{number + 3}.parquet", names + 10**6 * (number + 1), behaviour)
    run(changed(job, out=tmp_path / "alone"))
    counts: list[list[str]] = [[], []]
    attachers = [StreamAssigner(job), StreamAssigner(job)]
    threads = [
        threading.Thread(
            target=attach_all, args=(attachers[i], lambda p, i=i: counts[i].append(p.shard.name))
        )
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts[0] + counts[1]) == sorted(path.name for path in list_shards(job.users))
    assert outputs(job) == outputs(changed(job, out=tmp_path / "alone")) and not list(job.out.glob(".*"))


@pytest.mark.slow
def test_two_processes_at_once_end_well(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    for number in range(6):
        write(job.users / f"part-{number + 3}.parquet", names + 10**6 * (number + 1), behaviour)
    flags = [f"--users={job.users}", f"--seeds={job.seeds}", f"--out={job.out}", "--batch=20"]
    command = [sys.executable, "-m", "experiments.attach", *flags]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum(out.count("users/s") for out, _ in said) == 9
    assert (
        "1 users have a vector of zeros" not in said[0][0] and "7 users have a vector of zeros" in said[0][0]
    )


def test_repeated_users_are_refused_unless_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job, behaviour, _, names = example(tmp_path)
    write(job.users / "part-3.parquet", [5, int(names[300]), int(names[7]), 5], behaviour[:4] + 1)
    message = r"user \d+ is listed 2 times: .*part-\d.parquet, row \d+; .*part-3.parquet, row \d; 3 users are"
    with pytest.raises(RelandError, match=message):
        run(job)
    assert outputs(job) == {}
    with caplog.at_level(logging.WARNING):
        run(changed(job, repeated_users=True))
    assert "3 users are listed more than once" in caplog.text
    assert result(job)["user_id"].to_pylist().count(5) == 2


@pytest.mark.parametrize("text", [False, True])
def test_repeats_are_found_in_several_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool
) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(-50, 60, 120)
    given = [f"u{each}\0" for each in ids] if text else ids
    for number in range(4):
        write(tmp_path / f"{number}.parquet", given[30 * number : 30 * number + 30], np.ones((30, 1)))
    values, count = np.unique(ids, return_counts=True)
    for at_once in (1 << 25, 13):
        monkeypatch.setattr(repeats, "_AT_ONCE", at_once)
        found = find_repeats(list_shards(tmp_path), 120)
        assert found is not None and found.users == (count > 1).sum()
        user = next(n for n, each in enumerate(given) if repr(str(each) if text else int(each)) == found.user)
        rows = [n for n, each in enumerate(ids) if each == ids[user]]
        assert found.places == [f"{tmp_path / f'{n // 30}.parquet'}, row {n % 30}" for n in rows]
    assert find_repeats([], 0) is None
    write(tmp_path / "distinct" / "a.parquet", sorted(set(given)), np.ones((len(values), 1)))
    assert find_repeats([tmp_path / "distinct" / "a.parquet"], len(values)) is None


def test_users_without_a_direction_have_no_seed_user_and_are_counted(tmp_path: Path) -> None:
    job, behaviour, seed_users, names = example(tmp_path)
    behaviour[[260, 300]] = 0.0
    seed_users = seed_users[~np.isin(seed_users, [260, 300])]
    write(job.seeds, names[seed_users], behaviour[seed_users])
    own = max(seed_users)  # a seed user, which is its own nearest whatever its vector
    behaviour[own] = 0.0
    write(job.users / "part-2.parquet", names[259:], behaviour[259:])
    for k in (1, 2):
        each = changed(job, k=k, out=tmp_path / f"out{k}")
        run(each)
        found = result(each).to_pandas().set_index("user_id")
        assert found.loc[[names[own]], "seed_user_id"].isna().tolist() == [False] + [True] * (k - 1)
        found = found.drop(names[own])
        missing = found["seed_user_id"].isna()
        assert sorted(set(found.index[missing])) == sorted(names[[3, 260, 300]]) and missing.sum() == 3 * k
        assert (found["cosine"].isna() == missing).all()
        assert Outputs(each.out, "").unmatched() == 3


def test_a_seed_user_without_a_direction_is_refused(tmp_path: Path) -> None:
    job, behaviour, seed_users, names = example(tmp_path)
    write(
        job.seeds, names[seed_users], np.where(seed_users[:, None] == seed_users[4], 0, behaviour[seed_users])
    )
    with pytest.raises(RelandError, match=f"the vector of seed user {names[seed_users[4]]} is zero"):
        StreamAssigner(job)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float64(), pa.int8(), pa.int64()])
def test_vectors_of_other_numbers_are_taken(tmp_path: Path, kind: pa.DataType) -> None:
    job, behaviour, seed_users, names = example(tmp_path)
    whole = (
        np.round(behaviour * 20) if pa.types.is_integer(kind) else behaviour.astype(kind.to_pandas_dtype())
    )
    shutil.rmtree(job.users)
    column = pa.array(whole.astype(kind.to_pandas_dtype()).tolist(), pa.list_(kind, 8))
    job.users.mkdir()
    pq.write_table(pa.table({"user_id": names, "vector": column}), job.users / "a.parquet")
    run(job)
    oracle = assign(np.concatenate([whole, behaviour[seed_users]]).astype(np.float32),
                    500 + np.arange(40), RetrievalConfig())  # fmt: skip
    others = np.setdiff1d(np.arange(500), [*seed_users, 3])
    found = result(job)
    assert (
        np.array(found["seed_user_id"])[others].tolist() == names[seed_users][oracle.seed[others, 0]].tolist()
    )
    np.testing.assert_allclose(np.array(found["cosine"])[others], oracle.cosine[others, 0], atol=1e-6)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 3e38, 1e-44])
def test_the_length_of_a_vector_does_not_matter(tmp_path: Path, scale: float) -> None:
    job, behaviour, _, names = example(tmp_path)
    run(changed(job, out=tmp_path / "plain"))
    rows = behaviour[259:].astype(np.float64)
    rows *= scale / np.abs(rows).max(axis=1, keepdims=True)
    flat = pa.array(rows.reshape(-1))
    table = pa.table({"user_id": names[259:], "vector": pa.FixedSizeListArray.from_arrays(flat, 8)})
    pq.write_table(table, job.users / "part-2.parquet")
    run(job)
    plain, found = result(changed(job, out=tmp_path / "plain")), result(job)
    assert found["seed_user_id"].to_pylist() == plain["seed_user_id"].to_pylist()
    np.testing.assert_allclose(found["cosine"], plain["cosine"], atol=1e-5)


def test_the_largest_float32_are_taken(tmp_path: Path) -> None:
    job, behaviour, _, names = example(tmp_path)
    run(changed(job, out=tmp_path / "plain"))
    rows = behaviour[259:] / np.abs(behaviour[259:]).max(axis=1, keepdims=True) * np.float32(3e38)
    write(job.users / "part-2.parquet", names[259:], rows)
    run(job)
    plain = result(changed(job, out=tmp_path / "plain"))
    assert result(job)["seed_user_id"].to_pylist() == plain["seed_user_id"].to_pylist()


@pytest.mark.parametrize("index", [pa.int8(), pa.int32()])
def test_ids_may_be_categories_and_hold_anything(tmp_path: Path, index: pa.DataType) -> None:
    job, behaviour, _, _ = example(tmp_path)
    names = ["bob", "bob\0", "bob\0\0", "a\nb", "ä", "", " ", "007"]
    shutil.rmtree(job.users)
    dictionary = pa.array(names).dictionary_encode().cast(pa.dictionary(index, pa.string()))
    write(job.users / "a.parquet", dictionary, behaviour[10:18])
    write(job.seeds, dictionary, behaviour[10:18])
    run(job)
    assert result(job)["user_id"].to_pylist() == result(job)["seed_user_id"].to_pylist() == names


def test_seeds_differ_where_their_ids_only_look_alike(tmp_path: Path) -> None:
    job, behaviour, *_ = example(tmp_path)
    write(job.seeds, ["a\nb", "c"], behaviour[10:12])
    first = StreamAssigner(job).seeds.checksum
    write(job.seeds, ["a", "b\nc"], behaviour[10:12])
    with pytest.raises(RelandError, match=rf"made with seeds {first}"):
        StreamAssigner(job)


def test_folders_of_folders_are_read_and_written_alike(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job, behaviour, _, names = example(tmp_path)
    run(changed(job, out=tmp_path / "flat"))
    (job.users / "day=1").mkdir()
    (job.users / "part-1.parquet").rename(job.users / "day=1" / "part-0.PARQUET")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (job.users / "part-2.parquet").rename(elsewhere / "part-0.parquet")
    (job.users / "day=2").symlink_to(elsewhere)
    (job.users / "day=2" / "round").symlink_to(job.users)
    for hidden in ("_tmp", ".tmp"):
        write(job.users / hidden / "x.parquet", names[:2], behaviour[:2])
    (job.users / "notes.txt").write_text("mine")
    with caplog.at_level(logging.WARNING):
        assert sorted(made(job)) == ["day=1/part-0.PARQUET", "day=2/part-0.parquet", "part-0.parquet"]
    assert "1 files are not *.parquet and left out" in caplog.text and "notes.txt" in caplog.text
    flat = {each["user_id"]: each for each in result(changed(job, out=tmp_path / "flat")).to_pylist()}
    nested = [pq.ParquetFile(path).read().to_pylist() for path in list_shards(job.out)]
    assert {each["user_id"]: each for each in sum(nested, [])} == flat
    assert made(job) == []


def test_one_file_of_users_is_enough(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    one = changed(job, users=job.users / "part-1.parquet")
    assert len(run(one)) == 1 and list(outputs(one)) == ["part-1.parquet"] and run(one) == []


def test_outputs_without_their_input_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job, *_ = example(tmp_path)
    run(job)
    (job.users / "part-1.parquet").unlink()
    with caplog.at_level(logging.WARNING):
        assert made(job) == []
    assert "1 outputs belong to shards that are no longer among the users, such as part-1" in caplog.text


def test_outputs_never_lie_among_the_users(tmp_path: Path) -> None:
    job, *_ = example(tmp_path)
    with pytest.raises(RelandError, match="the outputs need a folder of their own"):
        StreamAssigner(changed(job, out=job.users / "matched"))
    with pytest.raises(RelandError, match="nowhere: there is no such folder"):
        run(changed(job, users=tmp_path / "nowhere"))


def test_a_shard_that_is_a_pipe_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(RelandError, match="a.parquet: no file but a pipe or a device"):
        list_shards(tmp_path)
