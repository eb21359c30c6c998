"""The pool store: versions that never change, a switch that is whole or not at all, one writer at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.pool_store import version_files
from reland_jax.pool_store.store import PoolStore
from reland_jax.pool_store.version_files import read_record
from reland_jax.strings import as_strings
from reland_jax.types import Assignment, RelandError
from tests.pool_store.toys import CHANGE, content, same


def publish(folder: Path, *versions: Any) -> PoolStore:
    store = PoolStore(folder)
    for each in versions or (content(),):
        with store.locked():
            store.publish(each, CHANGE)
    return store


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("k", [1, 3])
def test_round_trip(tmp_path: Path, k: int) -> None:
    store = publish(tmp_path / "store", content(k=k))
    assert store.current() == 1 and same(store.read_as_written(), content(k=k))
    assert store.read_as_written().assignment.cosine.dtype == np.float32


def test_users_keep_the_ids_that_they_have(tmp_path: Path) -> None:
    """Ids that differ by a NUL stay apart, and a long one costs its own length."""
    toy = content()
    ids = as_strings(["bob", "bob\0", "bob\0\0", "x" * 100_000, *(f"é-{row}" for row in range(8))])
    store = publish(tmp_path / "store", toy._replace(population=toy.population._replace(user_ids=ids)))
    found = store.read_as_written()
    assert found.population.user_ids.tolist() == ids.tolist()
    assert found.pool.seeds.user.tolist() == toy.pool.seeds.user.tolist()
    kept = next((tmp_path / "store" / "behaviour").iterdir()).read_bytes()
    assert len(kept) < 200_000 and "é-7".encode() in kept


def test_users_that_an_earlier_program_stored_are_read(tmp_path: Path) -> None:
    population = content().population
    arrays = population._asdict() | {"user_ids": np.char.encode(population.user_ids, "utf-8")}
    np.savez(tmp_path / "old.npz", **arrays)
    found = version_files._unpacked((tmp_path / "old.npz").read_bytes(), tmp_path / "old.npz")
    assert found.user_ids.tolist() == population.user_ids.tolist()


def test_a_new_version_leaves_the_old_ones_alone(tmp_path: Path) -> None:
    store = publish(tmp_path)
    before = files_of(store.path_of(1))
    publish(tmp_path, content(seed=1))
    assert files_of(store.path_of(1)) == before
    assert (tmp_path / "CURRENT").read_text() == "000002\n"
    assert store.numbers() == [1, 2]
    assert same(store.read_as_written(1), content()) and same(store.read_as_written(), content(seed=1))
    assert [record["version"] for record in store.audit()] == [1, 2]
    assert {name: store.audit()[1][name] for name in CHANGE} == CHANGE
    assert not [path for path in tmp_path.rglob("*tmp-*")]


def test_versions_with_the_same_users_share_them(tmp_path: Path) -> None:
    publish(tmp_path, content(), content(seeds=3))
    assert len(list((tmp_path / "behaviour").iterdir())) == 1


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="not a pool store; create one with: python -m experiments.pool"):
        PoolStore(tmp_path / "none").read_as_written()
    with pytest.raises(RelandError, match="version 7 does not exist; existing versions: 1"):
        publish(tmp_path).read_as_written(7)


FILES = ("pool.parquet", "manifest.json", "assignment.parquet", "origin.parquet", "version.json", "behaviour")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "empty"])
def test_damage_is_refused(tmp_path: Path, name: str, fault: str) -> None:
    store = publish(tmp_path)
    behaviour = next((tmp_path / "behaviour").iterdir())
    path = behaviour if name == "behaviour" else store.path_of() / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.unlink()
    if fault != "missing":
        path.write_bytes({"truncated": whole[: len(whole) // 3], "flipped": flipped, "empty": b""}[fault])
    with pytest.raises(RelandError, match=f"{path.name}.*(truncated|edited|cannot be read)"):
        store.read_as_written()


def test_every_flipped_bit_of_the_record_is_noticed(tmp_path: Path) -> None:
    store = publish(tmp_path)
    path = store.path_of() / "version.json"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(whole))[:100].tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = read_record(store.path_of())
        except RelandError:
            continue
        assert found == json.loads(whole), "not an edit that changes nothing, such as of a blank"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 4}, "format version 4, this program reads 2 to 3; update the program"),
        (
            {"format_version": 1},
            "format version 1, this program reads 2 to 3; build the pool again in this store",
        ),
        ({"format_version": "x"}, "format version 'x', this program reads 2 to 3; update"),
        ({"format": "other"}, "not a version of a pool store"),
        ({"number": 9}, "version.json: edited"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    store = publish(tmp_path)
    path = store.path_of() / "version.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(RelandError, match=message):
        store.read_as_written()


def test_an_assignment_to_nobody_is_not_published(tmp_path: Path) -> None:
    store, whole = publish(tmp_path), content()
    faults = {
        "12 users are not assigned to a seed user": whole.assignment.seed + 4,
        "the assignment has shape .* for 12 users": whole.assignment.seed[1:],
    }
    for message, seed in faults.items():
        bad = whole._replace(assignment=Assignment(seed, whole.assignment.cosine[: len(seed)]))
        with store.locked(), pytest.raises(RelandError, match=message):
            store.publish(bad, CHANGE)
    assert store.numbers() == [1] and store.current() == 1 and len(store.audit()) == 1


def test_nobody_who_was_removed_is_published(tmp_path: Path) -> None:
    """Whatever a command works out: neither somebody who left, nor a seed user that is barred."""
    store, whole = publish(tmp_path), content()
    seed = whole.population.user_ids[whole.pool.seeds.user].tolist()[0]
    for listed in ({"users": ["user-1"]}, {"seeds": [seed]}):
        with store.locked():
            store.remember(**listed)
            with pytest.raises(RelandError, match="would have removed users"):
                store.publish(whole, CHANGE)
            store.forget(users=["user-1", seed])
    assert store.numbers() == [1] and store.current() == 1


def test_a_damaged_current_file(tmp_path: Path) -> None:
    store = publish(tmp_path, content(), content())
    (tmp_path / "CURRENT").write_text("newest")
    with pytest.raises(RelandError, match="CURRENT: contains 'newest'; it must be the number of a version"):
        store.read_as_written()
    (tmp_path / "CURRENT").write_text("9" * 5000)
    with pytest.raises(RelandError, match="CURRENT: contains '9+'; it must be the number of a version"):
        store.read_as_written()
    (tmp_path / "CURRENT").unlink()
    for use in (store.read_as_written, store.locked().__enter__):
        with pytest.raises(RelandError, match="CURRENT: missing, though version 2 was published"):
            use()
    assert store.numbers() == [1, 2], "nothing is cleared where it is not clear what is current"


def test_going_back_by_hand_and_on(tmp_path: Path) -> None:
    """A person writes an older number into CURRENT; the next change does not write over what came after."""
    store = publish(tmp_path, content(), content(seed=1))
    second = files_of(store.path_of(2))
    (tmp_path / "CURRENT").write_text("1\n")
    publish(tmp_path, content(seed=2))
    assert store.current() == 3 and files_of(store.path_of(2)) == second


def test_two_writers(tmp_path: Path) -> None:
    store, other = publish(tmp_path), PoolStore(tmp_path)
    with store.locked():
        with pytest.raises(RelandError, match=f"process {os.getpid()} is changing this store"):
            with other.locked(wait=0.1):
                pass
        assert other.current() == 1, "reading needs no lock"
    with other.locked(wait=0.1):
        other.publish(content(), CHANGE)
    assert store.current() == 2


WRITERS = """
    import sys
    sys.path.insert(0, {repository!r})
    from pathlib import Path
    from reland_jax.pool_store.store import PoolStore
    from tests.pool_store.toys import CHANGE, content
    store = PoolStore({folder!r})
    for turn in range(5):
        with store.locked(wait=60):
            found = store.read_as_written()
            count = int(found.settings["provenance"].get("count", 0)) + 1
            settings = found.settings | {{"provenance": found.settings["provenance"] | {{"count": count}}}}
            store.publish(found._replace(settings=settings), CHANGE)
"""


def test_writers_at_once_lose_nothing(tmp_path: Path, repository: Path) -> None:
    """Three processes count up five times each, reading and publishing under the lock."""
    store = publish(tmp_path)
    program = textwrap.dedent(WRITERS).format(repository=str(repository), folder=str(tmp_path))
    writers = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        _, said = writer.communicate(timeout=300)
        assert writer.returncode == 0, said.decode()
    assert store.read_as_written().settings["provenance"]["count"] == 15
    assert [record["version"] for record in store.audit()] == list(range(1, 17))


# Every call that changes the disk counts; the child is killed before the n-th. One fork per moment, from
# a process of its own without threads.
KILLED = """
    import os, shutil, signal, sys, tempfile
    sys.path.insert(0, {repository!r})
    from pathlib import Path
    from reland_jax.pool_store.store import PoolStore
    from tests.pool_store.toys import CHANGE, content, same

    os.fsync = lambda descriptor: None  # a kill loses nothing that the system was given

    def watch(kill_at):
        left = [kill_at]
        def counted(function):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)
            return call
        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        for name in ("write_bytes", "write_text", "mkdir"):
            setattr(Path, name, counted(getattr(Path, name)))

    moment, outcomes = 0, []
    while True:
        folder = tempfile.mkdtemp(dir={folder!r})
        store = PoolStore(folder)
        if {first}:
            with store.locked():
                store.publish(content(), CHANGE)
        child = os.fork()
        if not child:
            watch(moment)
            with store.locked():
                store.publish(content(seed=1), CHANGE)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        number = store.current()
        expected = content(seed=1) if number == {first} + 1 else content()
        assert number in ({first} or None, {first} + 1), (moment, number)
        assert number is None or same(store.read_as_written(), expected), moment
        with store.locked():  # the next command works
            after = store.publish(content(seed=2), CHANGE)
        assert same(store.read_as_written(), content(seed=2)), moment
        assert after == (number or 0) + 1, (moment, number, after)
        assert [record["version"] for record in store.audit()] == list(range(1, after + 1)), moment
        names = {{path.name for path in Path(folder).rglob("*")}}
        assert not [name for name in names if "tmp-" in name], (moment, names)
        assert len(list(Path(folder, "behaviour").iterdir())) == after, moment
        outcomes.append(number)
        shutil.rmtree(folder)
        if status == 0:
            break
        moment += 1
    print(outcomes)
"""


@pytest.mark.parametrize("first", [0, 1])
def test_killed_at_any_moment_of_a_publish(tmp_path: Path, repository: Path, first: int) -> None:
    """kill -9 before every write, rename and sync: one version is current, whole, and audited once."""
    program = textwrap.dedent(KILLED).format(repository=str(repository), folder=str(tmp_path), first=first)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout.replace("None", "null"))
    assert len(outcomes) > 15
    switched = outcomes.index(first + 1)
    assert set(outcomes[:switched]) == {first or None} and set(outcomes[switched:]) == {first + 1}
    assert len(outcomes) - switched > 2, "no kill between the switch and its end was tried"


def test_an_audit_line_that_was_cut_off(tmp_path: Path) -> None:
    store = publish(tmp_path, content(), content(seed=1))
    path, mark = tmp_path / "audit.jsonl", tmp_path / "store.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(RelandError, match="audit.jsonl: lines are missing or edited: store.json records 2"):
        store.audit()
    first = whole[: whole.index(b"\n") + 1]
    values = json.loads(mark.read_text())
    values["audit"] = {"lines": 1, "sha256": hashlib.sha256(first).hexdigest()}
    mark.write_text(json.dumps(values))  # as it was when the line was being written
    assert [record["version"] for record in store.audit()] == [1]
    with store.locked():
        assert [record["version"] for record in store.audit()] == [1, 2]
    assert path.read_bytes() == whole
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(RelandError, match="audit.jsonl:1: not a line of the audit log"):
        store.audit()


def test_older_versions_go_with_what_only_they_need(tmp_path: Path) -> None:
    store = publish(tmp_path, content(), content(seed=1), content(seed=1))
    with store.locked():
        assert store.drop_older() == (2, [])
    assert store.numbers() == [3] and same(store.read_as_written(), content(seed=1))
    assert len(list((tmp_path / "behaviour").iterdir())) == 1 and len(store.audit()) == 3


def test_the_state_changes_with_the_version_and_with_the_lists(tmp_path: Path) -> None:
    store = publish(tmp_path)
    states = [store.state()]
    publish(tmp_path, content(seed=1))
    states.append(store.state())
    with store.locked():
        store.remember(patterns=["spam"])
    states.append(store.state())
    with store.locked():
        store.remember(users=["user-1"])
    states.append(store.state())
    assert len({tuple(state) for state in states}) == 4
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert PoolStore(tmp_path / "copy").state() == states[-1], "the same content, wherever it lies"
