"""Logs larger than memory: Parquet shards, counted in one pass, encoded one by one, and streamed in batches.

One shard of the raw log is in memory at a time. Its encoded rows are written as row groups of a fixed number
of rows, the blocks of the shuffle: every epoch takes the blocks in an order of its own, mixes the rows of
`window` of them, and cuts batches of fixed shape. Which rows a step has is a function of the seed and the
step alone, as in `Batches`.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources import table
from reland_jax.events.build import Tables, build
from reland_jax.events.contract import Events, Schema
from reland_jax.events.encoding import Batch, Encoding, Seen, encode, gather, seen
from reland_jax.events.values import positions
from reland_jax.files import written_aside
from reland_jax.types import IdMap, RelandError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK = 16_384
"""Rows of a row group of an encoded shard."""
_KINDS = {"categorical": np.int32, "numeric": np.float32, "labels": np.float32}
"""Arrays of a batch with a column of the file for each of theirs."""
_KEPT_WINDOWS = 2


def read_shards(
    paths: Sequence[Path], schema: Schema, users: Sequence[Path] = (), items: Sequence[Path] = ()
) -> Iterator[Events]:
    """The parts of a log, one after the other; ids are those of the part.

    Args:
        paths: CSV or Parquet files, each of which fits into memory.
        schema: what is read, and what it is.
        users: tables of features of users, which are read with every part. At a hundred million users the log
            itself should have them, as features of the context.
        items: tables of features of items.

    Raises:
        RelandError: see `build`.
    """
    of_users, of_items = ([table.of_file(path, DataConfig()) for path in side] for side in (users, items))
    for path in paths:
        yield build(Tables(table.of_file(path, DataConfig()), of_users, of_items), schema)


def fit_shards(logs: Iterable[Events], *, min_count: int = 2, longest: int = 50) -> Encoding:
    """What `fit` learns of a log whose parts come one after the other, all of them training rows.

    Memory grows with the number of distinct values, and not with that of rows. Means and deviations equal
    those of `fit` but for rounding.

    Args:
        logs: the parts.
        min_count: see `Seen.encoding`.
        longest: see `Seen.encoding`.

    Raises:
        RelandError: there are no rows, or a number is too small.
    """
    parts = (seen(events, np.arange(events.num_rows)) for events in logs)
    first = next(parts, None)
    if first is None:
        raise RelandError("there are no training rows: no part of the log was given")
    return reduce(Seen.joined, parts, first).encoding(min_count=min_count, longest=longest)


def write_encoded(encoding: Encoding, events: Events, path: Path, ids: IdMap | None = None) -> None:
    """Encodes a part of a log and writes it as a Parquet file, whole or not at all.

    Args:
        encoding: of the whole log.
        events: the part.
        path: of the file.
        ids: of the tables that `Batch.user` and `Batch.item` are rows of; users and items that are not there
            get -1. None leaves the numbers of the part.
    """
    batch = gather(encode(encoding, events), np.arange(events.num_rows), None)
    if ids is not None:
        user, item = (positions(mine, all_ids) for mine, all_ids in zip(events.ids, ids, strict=True))
        batch = batch._replace(user=user[batch.user], item=item[batch.item])
    write_batch(batch, path)


def write_batch(batch: Batch, path: Path) -> None:
    """Writes encoded rows as a Parquet file, whole or not at all; weights are not kept."""
    import pyarrow.parquet as pq

    with written_aside(path, private=True) as aside:
        pq.write_table(_table(batch), aside, row_group_size=BLOCK, compression="zstd")


class Block(NamedTuple):
    """A row group of an encoded shard.

    Attributes:
        path: the shard.
        group: the row group's number.
        rows: in it.
    """

    path: Path
    group: int
    rows: int


class _Epoch(NamedTuple):
    """The order of an epoch of one process.

    Attributes:
        number: of the epoch.
        order: ``<int64>[blocks]``.
        ends: ``<int64>[windows]``, rows until the end of each window.
    """

    number: int
    order: np.ndarray
    ends: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ShardBatches:
    """An endless sequence of batches over encoded shards, each epoch in an order of its own.

    Nothing but a cache is kept between steps, so a training that goes on at step s sees what it would have
    seen. A batch is drawn from `window` blocks, which are drawn from all shards of the process: means over a
    batch of what is equal within a block, such as the day, vary as those over so many blocks drawn at random.

    Attributes:
        paths: of `write_encoded`; a process reads every ``processes``-th of them and no other.
        size: rows of a step over all processes; the shape of every step. A process whose shards have fewer
            rows than another's fills its part with rows of weight 0.
        seed: of the orders; None for the order of the files, as in an evaluation.
        window: blocks whose rows are mixed; two windows are in memory at a time, and one is being read.
        process: which of the processes this is.
        processes: number of processes; it divides `size`.
    """

    paths: Sequence[Path]
    size: int
    seed: int | None = 0
    window: int = 16
    process: int = 0
    processes: int = 1
    _parts: Sequence[tuple[Block, ...]] = dataclasses.field(init=False, repr=False)
    _windows: OrderedDict[tuple[int, int], Batch] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the sizes, and reads how many rows every block has."""
        if self.size < 1 or self.window < 1 or self.processes < 1 or self.size % self.processes:
            raise RelandError(
                f"a batch of {self.size} rows, window={self.window}: each must be at least 1, and the batch "
                f"a multiple of the {self.processes} processes"
            )
        if not 0 <= self.process < self.processes:
            raise RelandError(f"process {self.process} is not one of {self.processes}")
        parts = [
            tuple(block for path in self.paths[part :: self.processes] for block in blocks_of(path))
            for part in range(self.processes)
        ]
        if not all(sum(block.rows for block in part) for part in parts):
            raise RelandError(
                f"{len(self.paths)} shards for {self.processes} processes: each needs at least one with rows"
            )
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_windows", OrderedDict())

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row of every process was there once."""
        share = self.size // self.processes
        return max(-(-sum(block.rows for block in part) // share) for part in self._parts)

    def at(self, step: int) -> Batch:
        """The batch of a step, from 0 on.

        Raises:
            RelandError: the step is negative, or a shard was changed or damaged.
        """
        if step < 0:
            raise RelandError(f"step {step} is negative")
        number, place = divmod(step, self.steps_per_epoch)
        epoch, share = self._epoch(number), self.size // self.processes
        start, stop = place * share, min((place + 1) * share, int(epoch.ends[-1]))
        parts = [_rows(self._window(epoch, 0), np.zeros(max(share - max(stop - start, 0), 0), np.int64), 0)]
        for window in range(int(np.searchsorted(epoch.ends, start, "right")), len(epoch.ends)):
            before = int(epoch.ends[window - 1]) if window else 0
            if before >= stop:
                break
            rows = np.arange(max(start, before), min(stop, int(epoch.ends[window]))) - before
            parts.insert(len(parts) - 1, _rows(self._window(epoch, window), rows, 1))
        return _joined(parts)

    def _epoch(self, number: int) -> _Epoch:
        rows = np.array([block.rows for block in self._parts[self.process]])
        order = np.arange(len(rows))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, number, self.process]).permutation(len(rows))
        ends = np.cumsum(np.add.reduceat(rows[order], np.arange(0, len(rows), self.window)))
        return _Epoch(number, order, ends)

    def _window(self, epoch: _Epoch, window: int) -> Batch:
        """The rows of some blocks, mixed."""
        key = (epoch.number if self.seed is not None else 0, window)
        if key not in self._windows:
            chosen = epoch.order[window * self.window : (window + 1) * self.window]
            whole = _joined([_read(self._parts[self.process][block]) for block in chosen.tolist()])
            if self.seed is not None:
                rng = np.random.default_rng([self.seed, epoch.number, self.process, 1 + window])
                whole = _rows(whole, rng.permutation(len(whole.user)), 1)
            while len(self._windows) >= _KEPT_WINDOWS:
                self._windows.popitem(last=False)
            self._windows[key] = whole
        return self._windows[key]


def as_read(log: None, *columns: Any) -> Batch:
    """The batch of a step of `ShardBatches`, as `gather` is one of rows of a log in memory."""
    del log
    return Batch(*columns)


def blocks_of(path: Path) -> list[Block]:
    """The blocks of an encoded shard.

    Raises:
        RelandError: it is none, or damaged.
    """
    with _opened(path) as shard:
        groups = range(shard.metadata.num_row_groups)
        return [Block(path, group, shard.metadata.row_group(group).num_rows) for group in groups]


def _table(batch: Batch) -> pa.Table:
    """The columns of a batch: scalars, and lists of fixed size for multi-valued features."""
    import pyarrow as pa

    columns: dict[str, Any] = {"user": batch.user.astype(np.int32), "item": batch.item.astype(np.int32)}
    for name in _KINDS:
        array = getattr(batch, name)
        columns |= {f"{name} {at}": array[:, at] for at in range(array.shape[1])}
    for at, lists in enumerate(batch.multi):
        columns[f"multi {at}"] = pa.FixedSizeListArray.from_arrays(pa.array(lists.ravel()), lists.shape[1])
    return pa.table(columns)


def _read(block: Block) -> Batch:
    """The rows of a block, in the order of the file."""
    import pyarrow as pa

    with _opened(block.path) as shard:
        try:
            found = shard.read_row_group(block.group, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise RelandError(f"{block.path}: row group {block.group} is damaged ({error})") from error
    if found.num_rows != block.rows:
        raise RelandError(f"{block.path} was changed while it was read; start again")

    def named(name: str) -> list[np.ndarray]:
        return [found[each].to_numpy() for each in found.column_names if each.startswith(f"{name} ")]

    def side_by_side(name: str, dtype: Any) -> np.ndarray:
        columns = named(name)
        return np.stack(columns, 1) if columns else np.zeros((block.rows, 0), dtype)

    lists = [found[each].combine_chunks() for each in found.column_names if each.startswith("multi ")]
    multi = tuple(each.flatten().to_numpy().reshape(len(each), -1) for each in lists)
    kinds = [side_by_side(name, dtype) for name, dtype in _KINDS.items()]
    weight = np.ones(block.rows, np.float32)
    return Batch(
        kinds[0], kinds[1], multi, kinds[2], found["user"].to_numpy(), found["item"].to_numpy(), weight
    )


def _rows(batch: Batch, rows: np.ndarray, weight: float) -> Batch:
    taken = Batch(
        batch.categorical[rows], batch.numeric[rows], tuple(each[rows] for each in batch.multi),
        batch.labels[rows], batch.user[rows], batch.item[rows], np.full(len(rows), weight, np.float32),
    )  # fmt: skip
    return taken


def _joined(parts: Sequence[Batch]) -> Batch:
    """The rows of several batches."""
    multi = tuple(np.concatenate(lists) for lists in zip(*(part.multi for part in parts), strict=True))
    others = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Batch._fields
        if name != "multi"
    }
    return Batch(multi=multi, **others)


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except FileNotFoundError as error:
        raise RelandError(f"{path}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise RelandError(f"{path}: not a readable Parquet file ({error}); write it again") from error
