"""Parquet shards of user vectors in, of assigned users out; at most a batch of users in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from reland_jax.files import written_aside
from reland_jax.retrieval.vectors import in_range
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
        vectors: ``<float32>[S, D]``, finite, none of them zero.
        checksum: of both, 16 hexadecimal digits.
    """

    ids: pa.Array
    vectors: np.ndarray
    checksum: str


def list_shards(place: Path) -> list[Path]:
    """The Parquet files below a folder, also in folders like ``day=1``, by name; or the one file given.

    Names that start with "_" or "." are left out, those of folders too.

    Raises:
        RelandError: there is none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise RelandError(f"{place}: there is no such folder; --users is a folder of Parquet shards")
    found = [path for path in _files(place) if _is_parquet(path)]
    if not found:
        raise RelandError(f"{place}: no *.parquet file; --users is a folder of Parquet shards")
    if odd := next((path for path in found if path.exists() and not path.is_file()), None):
        raise RelandError(f"{odd}: no file but a pipe or a device; move it away")  # reading it may never end
    return sorted(found, key=lambda path: path.relative_to(place).parts)


def left_out(place: Path) -> list[Path]:
    """The files below a folder that `list_shards` leaves out, though their names are plain."""
    return [path for path in _files(place) if not _is_parquet(path)] if place.is_dir() else []


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _files(place: Path) -> list[Path]:
    paths = (path for folder in _folders(place, set()) for path in sorted(folder.iterdir()))
    return [path for path in paths if path.name[0] not in "_." and not path.is_dir()]


def _folders(place: Path, seen: set[Path]) -> Iterator[Path]:
    """A folder and those below it, also behind links, each once."""
    real = Path(os.path.realpath(place))
    if real in seen:
        return
    seen.add(real)
    yield place
    for path in sorted(place.iterdir()):
        if path.name[0] not in "_." and path.is_dir():
            yield from _folders(path, seen)


def name_of(shard: Path, users: Path) -> str:
    """The path of a shard within the folder of users, as its output is called."""
    return shard.name if shard == users else shard.relative_to(users).as_posix()


def read_seeds(path: Path) -> Seeds:
    """Reads the seed users from one Parquet file with columns user_id and vector.

    Raises:
        RelandError: a fault of the file, no seed user, one listed more than once, or a vector of zeros.
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
    if not vectors.any(axis=1).all():
        row = int(np.flatnonzero(~vectors.any(axis=1))[0])
        raise RelandError(
            f"{path}: the vector of seed user {ids[row]} is zero, and so like no user's; take that row out"
        )
    text = json.dumps([str(ids.type), vectors.shape, ids.to_pylist()]).encode()
    checksum = hashlib.sha256(text + b"\0" + vectors.tobytes()).hexdigest()
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
        path: a Parquet file with columns user_id (integers or strings, also as categories) and vector (lists
            of numbers; what float32 cannot hold is scaled, which changes no cosine).
        width: D; that of the first vector where it is None.
        rows: bound on n; a batch lies within one row group.

    Raises:
        RelandError: a wrong column or width, a missing value or one that is not finite (file, row group
            and row are named), or damage.
    """
    for batch, where, start in columns_of(path, ("user_id", "vector"), rows):
        vectors = _vectors(batch.column("vector"), width, where, start)
        ids = plain_ids(batch.column("user_id"), where, start)
        width = vectors.shape[1]
        yield ids, vectors


def ids_of(path: Path) -> Iterator[pa.Array]:
    """The ids of a shard alone, some at a time.

    Raises:
        RelandError: a missing id, or damage.
    """
    for batch, where, start in columns_of(path, ("user_id",), _ROW_GROUP):
        yield plain_ids(batch.column("user_id"), where, start)


def plain_ids(ids: pa.Array, where: str, start: int) -> pa.Array:
    """Ids without missing ones, integers or strings and no categories of them."""
    import pyarrow as pa

    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if ids.null_count:
        row = start + ids.is_null().to_pylist().index(True)
        raise RelandError(f"{where}, row {row}: user_id is missing")
    return ids


def is_stamped(path: Path) -> bool:
    """Whether a file is a shard that `write_shard` wrote, as far as its footer can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return STAMP in (pq.read_metadata(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def write_shard(path: Path, tables: Iterator[pa.Table], made_from: str) -> None:
    """Writes tables of one schema (at least one) as one Parquet file, whole and for its owner alone.

    Args:
        path: the file to be made.
        tables: any number of rows each; the file is the same however they are cut.
        made_from: kept in the file's metadata.
    """
    import pyarrow.parquet as pq

    first = next(tables)
    schema = first.schema.with_metadata({STAMP: made_from.encode()})
    with written_aside(path, private=True) as aside, pq.ParquetWriter(aside, schema) as writer:
        for group in _row_groups(first, tables):
            writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=_ROW_GROUP)


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


class ShardReader(Protocol):
    """How the users of an input shard are read; a frozen dataclass, which workers are sent."""

    def width_of(self, path: Path) -> tuple[int, int | None]:
        """Users of a shard, and the width of their vectors where that is known before they are read."""
        ...

    def batches(self, path: Path, width: int | None, rows: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Ids ``[n]`` and vectors ``<float32>[n, width]`` of at most ``rows`` users at a time."""
        ...

    def made_from(self) -> dict[str, Any]:
        """What decides the vectors besides the shards, as plain values."""
        ...


@dataclasses.dataclass(frozen=True)
class VectorShards:
    """Shards that hold the vectors."""

    def width_of(self, path: Path) -> tuple[int, int | None]:
        """See `width_of`."""
        return width_of(path)

    def batches(self, path: Path, width: int | None, rows: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """See `batches`."""
        return batches(path, width, rows)

    def made_from(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def columns_of(path: Path, names: Sequence[str], rows: int) -> Iterator[tuple[pa.RecordBatch, str, int]]:
    """Some columns of a shard, at most ``rows`` rows of a row group at a time.

    Yields:
        The rows, words for their row group, and the number of the first of them in it.

    Raises:
        RelandError: the file cannot be read, or a column is missing.
    """
    with _opened(path, names) as shard:
        for group in range(shard.metadata.num_row_groups):
            start = 0
            for batch in _read(shard, path, group, rows, names):
                yield batch, f"{path}: row group {group}", start
                start += len(batch)


def rows_of(path: Path, names: Sequence[str]) -> int:
    """Number of rows of a shard that has some columns.

    Raises:
        RelandError: the file cannot be read, or a column is missing.
    """
    with _opened(path, names) as shard:
        return int(shard.metadata.num_rows)


def _opened(path: Path, names: Sequence[str] = ("user_id", "vector")) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        shard = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except FileNotFoundError as error:
        raise RelandError(f"{path}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error}); write it again") from error
    try:
        _check_schema(shard.schema_arrow, path, names)
    except RelandError:
        shard.close()
        raise
    return shard


def _check_schema(schema: pa.Schema, path: Path, names: Sequence[str]) -> None:
    import pyarrow as pa

    for name in names:
        if name not in schema.names:
            raise RelandError(f"{path}: no column {name!r}; it has {', '.join(schema.names)}")
    if "vector" in names:
        _check_vectors(schema.field("vector").type, path)
    kind = schema.field("user_id").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise RelandError(f"{path}: column 'user_id' is {kind}; expected integers or strings")


def _check_vectors(kind: pa.DataType, path: Path) -> None:
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise RelandError(f"{path}: column 'vector' is {kind}; expected lists of numbers, best of float32")


def _read(
    shard: pq.ParquetFile, path: Path, group: int, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from shard.iter_batches(rows, row_groups=[group], columns=list(columns))
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
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), expected)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise RelandError(f"{where}, row {start + row}: the vector holds NaN or infinity")
    return in_range(vectors)
