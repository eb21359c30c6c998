"""Users of shards as vectors: read from what they clicked, by the encoder and the item texts of a deployment.

A shard has the columns user_id, items (a list of item ids, oldest first) and time (of the newest of them, in
milliseconds since 1970 in UTC). Only a tile of users is in memory at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.deployment.encoders import Encoder, encoded, laid_out, load_encoder, reader_of
from reland_jax.artefacts import stored
from reland_jax.events.storing import load_events
from reland_jax.scale import columns_of, plain_ids, rows_of
from reland_jax.seeds import add_texts
from reland_jax.storage import load_array
from reland_jax.types import Ragged, RelandError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("user_id", "items", "time")


class Loaded(NamedTuple):
    """What users are read with.

    Attributes:
        encoder: trained.
        reader: of the encoder.
        items: ``<float32>[I + 1, T]``, vectors of the items' texts.
        ids: ``<str>[I + 1]``, of the items.
        stamps: what encoder and vectors were made from.
    """

    encoder: Encoder
    reader: Any
    items: np.ndarray
    ids: pa.Array
    stamps: tuple[str, ...]


@functools.lru_cache(maxsize=2)
def _loaded(encoder: Path, items: Path, catalogue: Path) -> Loaded:
    """Read once per process."""
    import pyarrow as pa

    found, vectors = stored(encoder, load_encoder), stored(items, load_array)
    ids = stored(catalogue, load_events).value.ids.items
    names = pa.array(ids.tolist(), pa.large_string())
    return Loaded(
        found.value, reader_of(found.value), vectors.value, names, (found.fingerprint, vectors.fingerprint)
    )


@dataclasses.dataclass(frozen=True)
class HistoryShards:
    """Reads shards of histories.

    Attributes:
        encoder: folder of the trained encoder.
        items: folder of the vectors of the items' texts.
        catalogue: folder of the items' ids.
        weight: of the texts in a user's vector; 0 leaves them out.
        until: shards with later clicks are refused; milliseconds since 1970 in UTC.
    """

    encoder: Path
    items: Path
    catalogue: Path
    weight: float
    until: int

    def width_of(self, path: Path) -> tuple[int, int | None]:
        """See `scale.ShardReader`."""
        return rows_of(path, COLUMNS), None

    def made_from(self) -> dict[str, Any]:
        """See `scale.ShardReader`."""
        encoder, items = _loaded(self.encoder, self.items, self.catalogue).stamps
        return {"encoder": encoder, "items": items, "weight": self.weight, "until": self.until}

    def batches(self, path: Path, width: int | None, rows: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """See `scale.ShardReader`.

        Raises:
            RelandError: a value is missing, or a click is not before `until`.
        """
        read = _loaded(self.encoder, self.items, self.catalogue)
        for batch, where, start in columns_of(path, COLUMNS, rows):
            self._check(batch.column("time"), where, start)
            history = histories_of(batch.column("items"), read, where)
            vectors = encoded(read.reader, laid_out(history, read.encoder.max_length))
            if self.weight:
                vectors = add_texts(vectors, history, read.items, self.weight)
            yield plain_ids(batch.column("user_id"), where, start), vectors

    def _check(self, times: pa.Array, where: str, start: int) -> None:
        time = times.to_numpy(zero_copy_only=False)
        late = np.flatnonzero(time >= self.until)
        if len(late):
            newest, until = (np.datetime64(int(each), "ms") for each in (time[late[0]], self.until))
            raise RelandError(
                f"{where}, row {start + late[0]}: the newest click is of {newest} UTC; only what was before "
                f"{until} may be read"
            )


def histories_of(items: pa.Array, read: Loaded, where: str) -> Ragged:
    """Lists of ids as items that the encoder knows; the others are left out.

    Args:
        items: lists of texts.
        read: encoder and ids.
        where: of the rows, for errors.

    Raises:
        RelandError: no lists of texts.
    """
    import pyarrow as pa
    from pyarrow import compute

    kind = items.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise RelandError(f"{where}: column 'items' is {kind}; expected lists of item ids")
    row = np.asarray(compute.list_parent_indices(items))
    place = compute.index_in(items.flatten().cast(pa.large_string()), value_set=read.ids)
    item = compute.fill_null(place, 0).to_numpy(zero_copy_only=False)
    kept = read.encoder.known[item]
    lengths = np.bincount(row[kept], minlength=len(items))
    return Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), item[kept].astype(np.int32))
