"""What others put into a store stays, what killed processes left is swept, and only its owner reads it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reland_jax.pool.folder import save_pool
from reland_jax.pool_store.asking_lock import asking
from reland_jax.pool_store.purging import purge
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError
from tests.pool_store.toys import CHANGE, content


def tree(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.parametrize(
    "names",
    [
        ["versions/thesis.txt"],
        ["versions/000001/thesis.txt"],
        ["versions/000001/pool.parquet"],
        ["behaviour/" + "a" * 24 + ".npz"],
        ["CURRENT.tmp-12"],
        ["asking/letters.txt"],
        ["store.json"],
        ["audit.jsonl"],
        ["lock", "thesis.txt"],
    ],
)
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text('{"mine": 1}\n')
    before = tree(tmp_path)
    for use in (PoolStore(tmp_path).locked(), asking(PoolStore(tmp_path))):
        with pytest.raises(RelandError, match="not a pool store, and not empty|not the mark of a pool store"):
            use.__enter__()
    with pytest.raises(RelandError):
        PoolStore(tmp_path).seal({})
    assert tree(tmp_path) == before


def test_a_file_in_place_of_a_store_is_reported(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(RelandError, match="store: a file, not the folder of a pool store"):
        PoolStore(tmp_path / "store").locked().__enter__()


FOREIGN = [
    "versions/photos/cat.png",
    "versions/000009/thesis.txt",
    "versions/7/thesis.txt",
    "versions/000004.tmp-12/thesis.txt",
    "versions/000001/notes.txt",
    "behaviour/mine.npz",
    "behaviour/mine.npz.tmp-12",
    "letters.tmp-12",
    "removed.json.tmp-backup",
    ".letters.tmp-mine",
    "asking/batch_notes.jsonl",
    "asking/batch_requests-mine.jsonl",
    "asking/batch_requests-2.jsonl",
    "asking/batch_sent/mine.txt",
]


def test_what_others_put_into_a_store_stays(tmp_path: Path) -> None:
    store = PoolStore(tmp_path)
    for seed in range(2):
        with store.locked():
            store.publish(content(seed=seed), CHANGE)
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("mine")
    with store.locked():
        assert store.publish(content(seed=2), CHANGE) == 10, "no number that stands for something else"
        done = purge(store)
    assert done.versions == (1, 2) and done.foreign == (tmp_path / "versions" / "000001",)
    assert [name for name in FOREIGN if not (tmp_path / name).is_file()] == []
    assert sorted(path.name for path in (tmp_path / "versions" / "000001").iterdir()) == ["notes.txt"]
    assert store.numbers() == [10] and not (tmp_path / "versions" / "000002").exists()


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    """By the names of today, and by those of earlier versions of this program."""
    store = PoolStore(tmp_path)
    with store.locked():
        store.publish(content(), CHANGE)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True)
    with store.locked():
        pass
    from reland_jax import files

    mine = files._machine()
    left = [
        f".CURRENT.tmp-{mine}-{int(dead.stdout)}",
        f"versions/.000002.tmp-{mine}-{int(dead.stdout)}/pool.parquet",
        f"behaviour/.{'a' * 24}.npz.tmp-{mine}-{int(dead.stdout)}",
        f"asking/.asked.jsonl.tmp-{mine}-{int(dead.stdout)}",
        "CURRENT.tmp-12",
        "removed.json.tmp-12",
        f"behaviour/{'a' * 24}.npz.tmp-12",
        f"behaviour/{'b' * 24}.npz",
        "asking/asked.jsonl.tmp-12",
        "versions/000002.tmp-12/pool.parquet",
        "versions/000002.tmp-12.tmp-12/manifest.json",
    ]
    for name in left:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("about bob")
    with store.locked():
        pass
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [path for path in tmp_path.rglob("*tmp-*")] == []


def test_only_the_owner_reads_what_holds_ids_and_texts(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = PoolStore(tmp_path / "store")
        with store.locked():
            store.publish(content(), CHANGE)
            store.remember(users=["bob"], patterns=["spam"])
        whole = content()
        save_pool(whole.pool, whole.population.user_ids, tmp_path / "pool", provenance={})
    finally:
        os.umask(before)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    assert len(found) > 10
    assert [path for path in found if stat.S_IMODE(path.stat().st_mode) != 0o600] == []


def test_a_pool_does_not_take_the_place_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "thesis.txt").write_text("mine")
    whole = content()
    with pytest.raises(RelandError, match="was not made by this program"):
        save_pool(whole.pool, whole.population.user_ids, tmp_path / "pool", provenance={})
    assert tree(tmp_path) == {"pool": None, "pool/thesis.txt": b"mine"}
