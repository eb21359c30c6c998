"""The reasoning pool as a versioned artefact: one Parquet file and a manifest, in one folder.

The manifest holds the checksum of the Parquet file; the folder appears under its name only when it is
complete. The Parquet bytes depend on the pool alone, so equal pools are equal files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reland_jax.files import written_aside
from reland_jax.pool.contract import HEURISTIC
from reland_jax.records import to_plain
from reland_jax.types import HOW_NAMES, IdMap, Rationale, ReasoningPool, RelandError, SeedSet

if TYPE_CHECKING:
    import pyarrow

FORMAT = "reland-reasoning-pool"
FORMAT_VERSION = 1
POOL_FILE = "pool.parquet"
MANIFEST_FILE = "manifest.json"


def save_pool(
    pool: ReasoningPool,
    user_ids: Sequence[str] | np.ndarray,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any],
) -> None:
    """Writes the pool to `folder`, replacing a pool that is there as a whole; only its owner may read it.

    Args:
        pool: what to store.
        user_ids: ``<str>[U]``, external ids by dense id (`IdMap.users`).
        folder: the folder to create; it is filled under another name beside it, then renamed.
        provenance: where the pool comes from, JSON values only. "provider", "prompt_version" and
            "created" go to the top of the manifest ("created" is now if it is left out).

    Raises:
        RelandError: the pool is empty or inconsistent, m_s is not finite, or the folder exists and holds no
            pool.
    """
    _check(pool, len(user_ids))
    with written_aside(Path(folder), private=True, ours=_is_pool) as aside:
        aside.mkdir(mode=0o700)
        write_pool(pool, user_ids, aside, provenance=provenance)


def write_pool(
    pool: ReasoningPool,
    user_ids: Sequence[str] | np.ndarray,
    folder: Path,
    *,
    provenance: Mapping[str, Any],
) -> None:
    """Writes the two files of a pool into a folder that its caller is making; see `save_pool`."""
    _check(pool, len(user_ids))
    write_table(_table(pool, user_ids), folder / POOL_FILE)
    manifest = _manifest(pool, (folder / POOL_FILE).read_bytes(), provenance)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")


def load_pool(folder: str | Path, id_map: IdMap) -> ReasoningPool:
    """Reads a pool that `save_pool` wrote, after checking that it is whole.

    Args:
        folder: the pool's folder.
        id_map: external ids of the present data; the dense ids of the pool are looked up in it.

    Raises:
        RelandError: no pool in the folder, a newer or unknown format, a wrong checksum, another schema, or a
            seed user that is not in the data.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    table = _read_table(folder / POOL_FILE, manifest)
    columns = table.to_pydict()
    user = _dense_users(columns["user_id"], id_map.users, folder)
    seeds = SeedSet(user, np.asarray(columns["cluster"], np.int32), np.asarray(columns["how"], np.int8))
    behaviour = np.asarray(columns["m_s"], np.float32).reshape(len(user), manifest["dim"])
    fields = Rationale._fields
    rationales = [Rationale(*row) for row in zip(*(columns[field] for field in fields), strict=True)]
    return ReasoningPool(seeds, behaviour, rationales)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a stored pool, after checking its format and version.

    Raises:
        RelandError: the manifest is missing, or of a format that this program cannot read.
    """
    path = Path(folder) / MANIFEST_FILE
    said = "no reasoning pool here", "the manifest is damaged", "not the manifest of a reasoning pool"
    manifest = read_described(path, FORMAT, said, "build the pool again")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise RelandError(
            f"{path}: format version {version!r}, this program reads {FORMAT_VERSION}; update the program, "
            "or build the pool again"
        )
    return manifest


def read_described(path: Path, format: str, said: Sequence[str], advice: str) -> dict[str, Any]:
    """A JSON file whose "format" names the kind of artefact beside it.

    Args:
        path: the file.
        format: the expected format.
        said: messages for a file that cannot be read, is not JSON, or has another format.
        advice: what the user should do.

    Raises:
        RelandError: for these three reasons.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RelandError(f"{path}: {said[0]} ({error.strerror}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise RelandError(f"{path}: {said[1]} ({error}); {advice}") from error
    if not isinstance(value, dict) or value.get("format") != format:
        raise RelandError(f"{path}: {said[2]}")
    return value


@dataclasses.dataclass(frozen=True)
class PoolSummary:
    """Size, origin and cost of a pool.

    Attributes:
        seeds: rationales.
        how: name of a sampling -> seed users that it chose.
        llm_inferences: 0 for heuristic texts; users with the same prompt share one.
        prompt_tokens: sum of tokens read; unknown ones count 0.
        response_tokens: sum of tokens written.
        tokens_known: whether the tokens of every inference are known.
        models: name -> rationales that it wrote.
    """

    seeds: int
    how: Mapping[str, int]
    llm_inferences: int
    prompt_tokens: int
    response_tokens: int
    tokens_known: bool
    models: Mapping[str, int]


def pool_summary(pool: ReasoningPool) -> PoolSummary:
    """Size, origin and cost of the pool."""
    # Users with the same prompt share one inference, which was paid once.
    inferences = {
        rationale.prompt_hash or row: rationale
        for row, rationale in enumerate(pool.rationales)
        if rationale.model != HEURISTIC
    }
    known = all(rationale.prompt_tokens and rationale.response_tokens for rationale in inferences.values())
    models = Counter(rationale.model for rationale in pool.rationales)
    return PoolSummary(
        seeds=len(pool.rationales),
        how={name: int((pool.seeds.how == code).sum()) for code, name in enumerate(HOW_NAMES)},
        llm_inferences=len(inferences),
        prompt_tokens=sum(rationale.prompt_tokens for rationale in inferences.values()),
        response_tokens=sum(rationale.response_tokens for rationale in inferences.values()),
        tokens_known=known,
        models=dict(sorted(models.items())),
    )


def _check(pool: ReasoningPool, num_users: int) -> None:
    sizes = (len(pool.seeds.user), len(pool.seeds.cluster), len(pool.seeds.how), len(pool.rationales))
    if len({*sizes, len(pool.behaviour)}) != 1 or np.ndim(pool.behaviour) != 2:
        raise RelandError(
            f"the pool does not fit together: users, clusters, how, rationales {sizes}, "
            f"behaviour {np.shape(pool.behaviour)}; every seed user has one row in each"
        )
    if not len(pool.rationales):
        raise RelandError("the pool is empty: there is no rationale to store")
    if not np.isfinite(pool.behaviour).all():
        raise RelandError("the pool's behaviour vectors m_s are not finite; the behaviour encoder diverged")
    if int(pool.seeds.user.max()) >= num_users or len(np.unique(pool.seeds.user)) != sizes[0]:
        raise RelandError(f"the pool's seed users must be distinct dense ids below {num_users}")


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text, count = pa.string(), pa.int32()
    return pa.schema(
        [
            ("user_id", text),
            ("how", pa.int8()),
            ("cluster", count),
            ("m_s", pa.list_(pa.float32())),
            ("step1", text),
            ("step2", text),
            ("response", text),
            ("prompt_hash", text),
            ("model", text),
            ("prompt_tokens", count),
            ("response_tokens", count),
            ("created", text),
        ]
    )


def _table(pool: ReasoningPool, user_ids: Sequence[str] | np.ndarray) -> pyarrow.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "user_id": [str(user_ids[user]) for user in pool.seeds.user],
        "how": np.asarray(pool.seeds.how, np.int8),
        "cluster": np.asarray(pool.seeds.cluster, np.int32),
        "m_s": list(np.asarray(pool.behaviour, np.float32)),
    }
    for index, field in enumerate(Rationale._fields):
        columns[field] = [rationale[index] for rationale in pool.rationales]
    return pa.table(columns, schema=_schema())


def write_table(table: pyarrow.Table, path: Path) -> None:
    """Writes a table as Parquet; equal tables are equal files."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def read_table(content: bytes) -> pyarrow.Table:
    """The table in the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # One thread: the reader's thread pool can abort the interpreter at exit (pyarrow 26).
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)


def _manifest(pool: ReasoningPool, content: bytes, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": provenance.get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "provider": provenance.get("provider", ""),
        "prompt_version": provenance.get("prompt_version", ""),
        "rows": len(pool.rationales),
        "dim": int(pool.behaviour.shape[1]),
        "file": {"name": POOL_FILE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "summary": to_plain(pool_summary(pool)),
        "provenance": dict(provenance),
    }


def _is_pool(folder: Path) -> bool:
    """Whether a folder was made by `save_pool`, sound or not."""
    try:
        return f'"{FORMAT}"' in (folder / MANIFEST_FILE).read_text("utf-8", "replace")
    except OSError:
        return False


def _read_table(path: Path, manifest: Mapping[str, Any]) -> pyarrow.Table:
    """The table, once its bytes, schema and size are those of the manifest."""
    try:
        content = path.read_bytes()
        expected = manifest["file"]["sha256"]
        rows, dim = int(manifest["rows"]), int(manifest["dim"])
    except OSError as error:
        raise RelandError(
            f"{path}: the pool's table is missing ({error.strerror}); build it again"
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RelandError(f"{path.parent / MANIFEST_FILE}: lacks {error}; build the pool again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise RelandError(
            f"{path}: truncated or edited: its SHA-256 is {found[:12]}..., the manifest says "
            f"{str(expected)[:12]}...; build the pool again"
        )
    table = read_table(content)
    if not table.schema.equals(_schema()):
        raise RelandError(
            f"{path}: its columns {table.schema.names} are not those of format {FORMAT_VERSION}"
        )
    lengths = np.asarray([len(vector) for vector in table["m_s"].to_pylist()])
    if table.num_rows != rows or (lengths != dim).any():
        raise RelandError(
            f"{path}: not {rows} rows of width {dim}, as the manifest says; build the pool again"
        )
    return table


def _dense_users(user_ids: Sequence[str], known: np.ndarray, folder: Path) -> np.ndarray:
    """Dense ids of external ids, ``<int32>[S]``."""
    dense = {str(user_id): index for index, user_id in enumerate(known)}
    unknown = [user_id for user_id in user_ids if user_id not in dense]
    if unknown:
        raise RelandError(
            f"{folder}: {len(unknown)} of {len(user_ids)} seed users are not in the data, the first is "
            f"{unknown[0]!r}; the pool was built from other data: build it again"
        )
    return np.asarray([dense[user_id] for user_id in user_ids], np.int32)
