"""Parquet shards of user vectors in, of assigned users out; at most a batch of users in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

STAMP = b"reland.made_from"
"""Key of a finished shard's metadata that says what it was made from."""

_ROW_GROUP = 1 << 17  # rows; fixed, so that a shard's bytes do not depend on the batch


class Seeds(NamedTuple):
    """The seed users; their order is that of the pool's rows.

    Attributes:
        ids: ``[S]``, distinct, integers or strings.
        vectors: ``<float32>[S, D]``, finite.
        checksum: of both, 16 hexadecimal digits.
    """

    ids: pa.Array
    vectors: np.ndarray
    checksum: str


def list_shards(folder: Path) -> list[Path]:
    """The ``*.parquet`` files of a folder by name, without those whose names start with "_" or ".".

    Raises:
        RelandError: there is none.
    """
    found = sorted(path for path in folder.glob("*.parquet") if path.name[0] not in "_.")
    if not found:
        raise RelandError(f"{folder}: no *.parquet file; --users is a folder of Parquet shards")
    return found


def read_seeds(path: Path) -> Seeds:
    """Reads the seed users from one Parquet file with columns user_id and vector.

    Raises:
        RelandError: a fault of the file, no seed user, or one listed more than once.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = list(batches(path, None, _ROW_GROUP))
    if not parts:
        raise RelandError(f"{path}: no seed users")
    ids = pa.concat_arrays([part[0] for part in parts])
    vectors = np.concatenate([part[1] for part in parts])
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise RelandError(f"{path}: seed user {repeated[0]['values']} is listed more than once")
    text = "\n".join(map(str, ids.to_pylist())).encode()
    checksum = hashlib.sha256(text + b"\0" + str(vectors.shape).encode() + vectors.tobytes()).hexdigest()
    return Seeds(ids, vectors, checksum[:16])


def width_of(path: Path) -> tuple[int, int | None]:
    """Users of a shard, and the width its schema declares (None for lists of variable length).

    Raises:
        RelandError: the file cannot be read, or its columns are wrong.
    """
    with _opened(path) as shard:
        kind = shard.schema_arrow.field("vector").type
        return shard.metadata.num_rows, getattr(kind, "list_size", None)


def batches(path: Path, width: int | None, rows: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Ids ``[n]`` and vectors ``<float32>[n, width]`` of at most ``rows`` users at a time.

    Args:
        path: a Parquet file with columns user_id (integers or strings) and vector (lists of float32).
        width: D; that of the first vector where it is None.
        rows: bound on n; a batch lies within one row group.

    Raises:
        RelandError: a wrong column or width, a missing value or one that is not finite (file, row group
            and row are named), or damage.
    """
    with _opened(path) as shard:
        for group in range(shard.metadata.num_row_groups):
            start = 0
            for batch in _read(shard, path, group, rows):
                where = f"{path}: row group {group}"
                vectors = _vectors(batch.column("vector"), width, where, start)
                ids = batch.column("user_id")
                if ids.null_count:
                    row = start + ids.is_null().to_pylist().index(True)
                    raise RelandError(f"{where}, row {row}: user_id is missing")
                width = vectors.shape[1]
                yield ids, vectors
                start += len(batch)


def footer_hash(path: Path) -> str:
    """Hash of a Parquet file's size and footer, which changes with nearly every change of its content."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return hashlib.sha256(file.read() + str(size).encode()).hexdigest()[:16]


def finished(path: Path, made_from: str, rows: int) -> bool:
    """Whether an output shard exists, is readable to its footer, and was made from just this."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return False
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return metadata.num_rows == rows and (metadata.metadata or {}).get(STAMP) == made_from.encode()


def write_shard(path: Path, tables: Iterator[pa.Table], made_from: str) -> None:
    """Writes tables of one schema (at least one) as one Parquet file, aside, then renames it.

    Args:
        path: the file to be made. Aside it is ``.<name>.tmp-<process>``.
        tables: any number of rows each; the file is the same however they are cut.
        made_from: what `finished` compares.
    """
    import pyarrow.parquet as pq

    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    first = next(tables)
    schema = first.schema.with_metadata({STAMP: made_from.encode()})
    try:
        with pq.ParquetWriter(aside, schema) as writer:
            for group in _row_groups(first, tables):
                writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=_ROW_GROUP)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _row_groups(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables joined and cut anew, every `_ROW_GROUP` rows."""
    import pyarrow as pa

    held = first
    for table in rest:
        held = pa.concat_tables([held, table])
        while held.num_rows >= _ROW_GROUP:
            yield held.slice(0, _ROW_GROUP)
            held = held.slice(_ROW_GROUP)
    while held.num_rows:
        yield held.slice(0, _ROW_GROUP)
        held = held.slice(_ROW_GROUP)


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        shard = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except FileNotFoundError as error:
        raise RelandError(f"{path}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error}); write it again") from error
    try:
        _check_schema(shard.schema_arrow, path)
    except RelandError:
        shard.close()
        raise
    return shard


def _check_schema(schema: pa.Schema, path: Path) -> None:
    import pyarrow as pa

    for name in ("user_id", "vector"):
        if name not in schema.names:
            raise RelandError(f"{path}: no column {name!r}; it has {', '.join(schema.names)}")
    kind = schema.field("vector").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or kind.value_type != pa.float32():
        raise RelandError(f"{path}: column 'vector' is {kind}; expected a fixed-size list of float32")
    kind = schema.field("user_id").type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise RelandError(f"{path}: column 'user_id' is {kind}; expected integers or strings")


def _read(shard: pq.ParquetFile, path: Path, group: int, rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from shard.iter_batches(rows, row_groups=[group], columns=["user_id", "vector"])
    except (pa.ArrowException, OSError) as error:
        raise RelandError(f"{path}: row group {group} is damaged ({error}); write the file again") from error


def _vectors(column: Any, width: int | None, where: str, start: int) -> np.ndarray:
    """``<float32>[n, width]`` of a list column; ``start`` is the number of its first row, for errors."""
    import pyarrow.compute as pc

    if column.null_count:
        row = start + column.is_null().to_pylist().index(True)
        raise RelandError(f"{where}, row {row}: the vector is missing")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    expected = int(lengths[0]) if width is None else width
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        raise RelandError(
            f"{where}, row {start + wrong[0]}: a vector of width {lengths[wrong[0]]}; expected {expected}"
        )
    # A missing entry becomes NaN here, and is found with the others.
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    vectors = values.reshape(-1, expected)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise RelandError(f"{where}, row {start + row}: the vector holds NaN or infinity")
    return vectors
