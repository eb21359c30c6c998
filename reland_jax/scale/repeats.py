"""Users that are listed more than once, in one shard or over shards, found in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reland_jax.scale.shards import ids_of

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 1 << 25  # keys in memory at a time, 256 MB; more users are looked at in several passes
_LOOKED_UP = 1000  # keys that are looked up again, to tell a user from two whose keys are equal by chance


class Repeats(NamedTuple):
    """Users that are listed more than once.

    Attributes:
        users: how many of them.
        user: the id of one.
        places: where it is listed, "FILE, row N" (rows count from 0).
    """

    users: int
    user: str
    places: list[str]

    def __str__(self) -> str:
        """For people."""
        others = f"; {self.users:,} users are listed more than once" if self.users > 1 else ""
        return f"user {self.user} is listed {len(self.places)} times: {'; '.join(self.places[:3])}{others}"


def find_repeats(shards: Sequence[Path], users: int) -> Repeats | None:
    """Looks for users that are listed more than once.

    Returns:
        None where every user is listed once.

    Raises:
        RelandError: a fault of a shard.
    """
    passes = -(-users // _AT_ONCE)
    repeated = [_repeated_keys(shards, number, passes) for number in range(passes)]
    keys = np.concatenate([*repeated, np.zeros(0, np.int64)])
    places = _places(shards, keys[:_LOOKED_UP]) if len(keys) else {}
    for user, found in places.items():
        if len(found) > 1:
            return Repeats(len(keys), repr(user), found)
    return None


def _repeated_keys(shards: Sequence[Path], number: int, passes: int) -> np.ndarray:
    """Keys ``<int64>[n]`` that occur more than once, among every ``passes``-th."""
    parts = [keys if passes == 1 else keys[keys % passes == number] for _, _, keys in _keyed(shards)]
    keys = np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))
    return np.unique(keys[1:][keys[1:] == keys[:-1]])


def _places(shards: Sequence[Path], wanted: np.ndarray) -> dict[int | str, list[str]]:
    """Where the users with these keys are listed, by id."""
    places: dict[int | str, list[str]] = {}
    for where, ids, keys in _keyed(shards):
        shard, start = where
        for row in np.flatnonzero(np.isin(keys, wanted)):
            places.setdefault(ids[int(row)].as_py(), []).append(f"{shard}, row {start + row}")
    return places


def _keyed(shards: Sequence[Path]) -> Iterator[tuple[tuple[Path, int], pa.Array, np.ndarray]]:
    """Ids ``[n]`` of all shards, a batch at a time, with a key ``<int64>[n]`` of each."""
    for shard in shards:
        start = 0
        for ids in ids_of(shard):
            yield (shard, start), ids, _keys(ids)
            start += len(ids)


def _keys(ids: pa.Array) -> np.ndarray:
    """An integer's own value, or 64 bits of the hash of a text, the same throughout this process."""
    import pyarrow as pa

    if pa.types.is_integer(ids.type):
        return ids.to_numpy(zero_copy_only=False).astype(np.int64)
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))
