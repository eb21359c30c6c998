"""Content and files of one version of a pool store, with all checks.

A version is a folder: `POOL_FILE` and `MANIFEST_FILE` (see `store`), `ASSIGNMENT_FILE` (user_id,
seed_user_id, cosine, and rank if users have several), `ORIGIN_FILE` (the interactions behind each rationale)
and `VERSION_FILE`, which has the checksums of all of them and its own. Its users are in a file of the store
that versions share, named by its checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reland_jax.files import write_bytes
from reland_jax.pool.folder import (
    MANIFEST_FILE,
    POOL_FILE,
    load_pool,
    read_described,
    read_table,
    write_pool,
    write_table,
)
from reland_jax.strings import as_strings, packed, unpacked
from reland_jax.types import Assignment, IdMap, ReasoningPool, RelandError

if TYPE_CHECKING:
    import pyarrow

FORMAT = "reland-pool-version"
FORMAT_VERSION = 3
_READABLE = (2, 3)
VERSION_FILE = "version.json"
ASSIGNMENT_FILE = "assignment.parquet"
ORIGIN_FILE = "origin.parquet"
BEHAVIOUR_FOLDER = "behaviour"

_FILES = (POOL_FILE, MANIFEST_FILE, ASSIGNMENT_FILE, ORIGIN_FILE)
OWN_FILES = (*_FILES, VERSION_FILE)
"""All files of a version."""
_ADVICE = "restore it from a copy, or write the number of an intact version into CURRENT"


class Population(NamedTuple):
    """The users of a store, with their behaviour vectors.

    Attributes:
        user_ids: ``<str>[U]``, external ids.
        behaviour: ``<float32>[U, D]``, M of Eq. 1.
        seen: ``<int32>[U]``, number of training interactions.
        held_out: ``<int32>[U]``, number of validation and test interactions.
        history: ``<uint64>[U]``, code of the training interactions (`histories.history_codes`).
        profile: ``<int32>[U, F]``, numbers for the values of their profiles (`retrieval.profiles`).
    """

    user_ids: np.ndarray
    behaviour: np.ndarray
    seen: np.ndarray
    held_out: np.ndarray
    history: np.ndarray
    profile: np.ndarray


class Origin(NamedTuple):
    """The interactions that the writer of each rationale may have seen, one row per seed user.

    Attributes:
        seen: ``<int32>[S]``, number of first training interactions.
        history: ``<uint64>[S]``, code of them.
    """

    seen: np.ndarray
    history: np.ndarray


class Content(NamedTuple):
    """The content of a version.

    Attributes:
        population: its users.
        pool: the reasoning pool; dense ids are rows of the population.
        origin: aligned with the pool.
        assignment: every user's seed users.
        settings: "retrieval" (engine, neighbours, cold_mismatch, tile), "protocol" and "provenance".
    """

    population: Population
    pool: ReasoningPool
    origin: Origin
    assignment: Assignment
    settings: Mapping[str, Any]


def write_content(
    folder: Path, store: Path, content: Content, number: int, change: Mapping[str, Any]
) -> None:
    """Writes a version into a new, empty folder, and its population into the store if it is new.

    Raises:
        RelandError: see `save_pool`, or a user without a seed user.
    """
    check_assignment(content.assignment, len(content.population.user_ids), len(content.pool.rationales))
    behaviour = _packed(content.population)
    name = f"{hashlib.sha256(behaviour).hexdigest()[:24]}.npz"
    shared = store / BEHAVIOUR_FOLDER / name
    shared.parent.mkdir(parents=True, exist_ok=True)
    if not shared.exists():
        write_bytes(shared, behaviour, private=True)
    provenance = {**content.settings["provenance"], "store_version": number}
    write_pool(content.pool, content.population.user_ids, folder, provenance=provenance)
    for file, table in _tables(content).items():
        write_table(table, folder / file)
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "number": number,
        "files": {file: _checksum((folder / file).read_bytes()) for file in _FILES},
        "behaviour": {"name": name} | _checksum(behaviour),
        "settings": dict(content.settings),
        "change": dict(change),
    }
    record["sha256"] = _own_checksum(record)
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / VERSION_FILE).write_text(text + "\n", "utf-8")


def read_content(folder: Path, store: Path) -> Content:
    """Reads a version after checking all its bytes.

    Raises:
        RelandError: a file is missing, truncated, edited, inconsistent or of a newer format; the message
            names it.
    """
    record = read_record(folder)
    found = {file: _verified(folder / file, record["files"].get(file)) for file in _FILES}
    behaviour = store / BEHAVIOUR_FOLDER / str(record["behaviour"].get("name"))
    population = _unpacked(_verified(behaviour, record["behaviour"]), behaviour)
    pool = load_pool(folder, IdMap(population.user_ids, as_strings([""])))
    assignment = _assignment(read_table(found[ASSIGNMENT_FILE]), population, pool, folder)
    origin = _origin(read_table(found[ORIGIN_FILE]), population, pool, folder)
    return Content(population, pool, origin, assignment, record["settings"])


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `VERSION_FILE`, after checking its format and its own checksum.

    Raises:
        RelandError: it is missing, edited, or of a format that this program cannot read.
    """
    path = folder / VERSION_FILE
    said = "cannot be read", "truncated or edited", "not a version of a pool store"
    record = read_described(path, FORMAT, said, _ADVICE)
    version = record.get("format_version")
    if version not in _READABLE:
        older = isinstance(version, int) and version < FORMAT_VERSION
        advice = "build the pool again in this store; answers in its journal are reused" if older else ""
        raise RelandError(
            f"{path}: format version {version!r}, this program reads {_READABLE[0]} to {FORMAT_VERSION}; "
            f"{advice or 'update the program'}"
        )
    if record.get("sha256") != _own_checksum(record):
        raise RelandError(f"{path}: edited: its checksum is not that of its content; {_ADVICE}")
    return record


def check_assignment(assignment: Assignment, num_users: int, num_seeds: int) -> None:
    """Raises `RelandError` unless every user has seed users of the pool, and cosines in [-1, 1]."""
    seed, cosine = assignment
    fits = seed.shape == cosine.shape and seed.ndim == 2 and len(seed) == num_users and seed.shape[1] > 0
    if not fits:
        raise RelandError(f"the assignment has shape {seed.shape}, for {num_users} users")
    outside = (seed < 0) | (seed >= num_seeds)
    if outside.any():
        raise RelandError(f"{int(outside.any(1).sum())} users are not assigned to a seed user of the pool")
    if not (np.abs(cosine) <= 1 + 1e-5).all():
        raise RelandError("the assignment has cosines outside [-1, 1]")


def _checksum(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _own_checksum(record: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def _verified(path: Path, expected: Mapping[str, Any] | None) -> bytes:
    """The bytes of a file, after checking size and checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RelandError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from error
    found = _checksum(content)
    if expected is None or found["sha256"] != expected.get("sha256"):
        size = f"{found['bytes']} bytes instead of {(expected or {}).get('bytes')}"
        raise RelandError(f"{path}: truncated or edited ({size}, another SHA-256); {_ADVICE}")
    return content


# --- population -----------------------------------------------------------------------------------


def _packed(population: Population) -> bytes:
    """Uncompressed, with ids in UTF-8, so that a plain search of the bytes finds every user."""
    content, starts = packed(as_strings(population.user_ids))
    arrays = {
        "user_ids": content,
        "user_id_starts": starts,
        "behaviour": np.asarray(population.behaviour, np.float32),
        "seen": np.asarray(population.seen, np.int32),
        "held_out": np.asarray(population.held_out, np.int32),
        "history": np.asarray(population.history, np.uint64),
        "profile": np.asarray(population.profile, np.int32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(content: bytes, path: Path) -> Population:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in Population._fields}
            arrays["user_ids"] = _user_ids(stored)
    except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise RelandError(f"{path}: not the population file of a pool store ({error}); {_ADVICE}") from error
    if len({len(array) for array in arrays.values()}) != 1:
        raise RelandError(f"{path}: its arrays differ in length; {_ADVICE}")
    return Population(**arrays)


def _user_ids(stored: Mapping[str, np.ndarray]) -> np.ndarray:
    if "user_id_starts" in stored:
        return unpacked(stored["user_ids"], stored["user_id_starts"])
    # Stores of earlier versions have a column of fixed width.
    return as_strings([name.decode() for name in stored["user_ids"].tolist()])


# --- tables ---------------------------------------------------------------------------------------


def _tables(content: Content) -> dict[str, pyarrow.Table]:
    import pyarrow as pa

    users = as_strings(content.population.user_ids)
    seeds = users[content.pool.seeds.user]
    seed, cosine = content.assignment
    k = seed.shape[1]
    columns: dict[str, Any] = {"user_id": np.repeat(users, k).tolist()}
    if k > 1:
        columns["rank"] = pa.array(np.tile(np.arange(k, dtype=np.int32), len(seed)))
    columns["seed_user_id"] = seeds[seed.ravel()].tolist()
    columns["cosine"] = np.asarray(cosine, np.float32).ravel()
    origin = {
        "user_id": seeds.tolist(),
        "seen": np.asarray(content.origin.seen, np.int32),
        "history": np.asarray(content.origin.history, np.uint64),
    }
    return {ASSIGNMENT_FILE: pa.table(columns), ORIGIN_FILE: pa.table(origin)}


def _need(table: pyarrow.Table, names: tuple[str, ...], path: Path) -> dict[str, list[Any]]:
    if not set(names) <= set(table.schema.names):
        raise RelandError(f"{path}: its columns {table.schema.names} are not {list(names)}")
    return table.to_pydict()


def _assignment(
    table: pyarrow.Table, population: Population, pool: ReasoningPool, folder: Path
) -> Assignment:
    path = folder / ASSIGNMENT_FILE
    columns = _need(table, ("user_id", "seed_user_id", "cosine"), path)
    users = as_strings(population.user_ids)
    k = len(columns["user_id"]) // max(len(users), 1)
    if columns["user_id"] != np.repeat(users, k).tolist():
        raise RelandError(f"{path}: its users are not those of the population")
    row = {user_id: row for row, user_id in enumerate(users[pool.seeds.user].tolist())}
    seed = np.asarray([row.get(seed_id, -1) for seed_id in columns["seed_user_id"]], np.int32)
    cosine = np.asarray(columns["cosine"], np.float32)
    assignment = Assignment(seed.reshape(len(users), k), cosine.reshape(len(users), k))
    try:
        check_assignment(assignment, len(users), len(pool.rationales))
    except RelandError as error:
        raise RelandError(f"{path}: {error}") from error
    return assignment


def _origin(table: pyarrow.Table, population: Population, pool: ReasoningPool, folder: Path) -> Origin:
    path = folder / ORIGIN_FILE
    columns = _need(table, ("user_id", "seen", "history"), path)
    if columns["user_id"] != as_strings(population.user_ids)[pool.seeds.user].tolist():
        raise RelandError(f"{path}: its seed users are not those of the pool")
    return Origin(np.asarray(columns["seen"], np.int32), np.asarray(columns["history"], np.uint64))
