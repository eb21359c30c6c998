"""The current version of a store as a source of a pool (`config.pool.provider` "store")."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reland_jax.pool.contract import Problem, SeedRationales
from reland_jax.pool.histories import history_codes
from reland_jax.pool.sources import Source, register_source
from reland_jax.pool_store.lists import allowed, read_patterns, read_removals
from reland_jax.pool_store.store import PoolStore
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Rationale, SeedSet, Splits


class StoredPool:
    """The rationales of the current version, without those on the store's lists.

    Attributes:
        path: the store.
        number: number of the version.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads and checks the version; raises like `PoolStore.read_as_written`."""
        store = PoolStore(path)
        self.path = store.folder
        folder = store.path_of()
        self.number = int(folder.name)
        self._content = content = store.read_as_written(self.number)
        user_ids = as_strings(content.population.user_ids)[content.pool.seeds.user].tolist()
        fine = allowed(content.pool.rationales, user_ids, read_removals(self.path), read_patterns(self.path))
        self._rows = {user_ids[row]: row for row in np.flatnonzero(fine).tolist()}

    def seed_rationales(self, ids: IdMap, cluster: np.ndarray | None, splits: Splits) -> SeedRationales:
        """The seed users of the version with usable rationales, in its order; see `OpenPool`.

        A rationale may be used if the training interactions from which it was written are the first training
        interactions now: then its writer saw nothing that is held out now. New interactions after them do not
        matter.
        """
        dense = {str(user): row for row, user in enumerate(ids.users)}
        problems = [
            Problem(user, f"{self.path}: version {self.number}: this user is not in the data")
            for user in self._rows
            if user not in dense
        ]
        known = [(dense[user], row) for user, row in self._rows.items() if user in dense]
        user, row = np.asarray(known, np.int64).reshape(-1, 2).T
        fits = self._fits(user, row, ids.items, splits)
        for bad in np.flatnonzero(~fits).tolist():
            problems.append(Problem(str(ids.users[user[bad]]), self._why(row[bad], user[bad], splits)))
        user, row = user[fits].astype(np.int32), row[fits]
        pool = self._content.pool
        clusters = pool.seeds.cluster[row] if cluster is None else np.asarray(cluster, np.int32)[user]
        rationales: list[Rationale | None] = [pool.rationales[each] for each in row.tolist()]
        seeds = SeedSet(user, clusters, pool.seeds.how[row])
        return SeedRationales(seeds, rationales, problems, len(problems))

    def _fits(self, user: np.ndarray, row: np.ndarray, items: np.ndarray, splits: Splits) -> np.ndarray:
        origin = self._content.origin
        lengths = np.zeros(splits.num_users, np.int64)
        lengths[user] = origin.seen[row]
        same = history_codes(splits.train, items, lengths)[user] == origin.history[row]
        return same & (lengths[user] <= splits.train.lengths()[user])

    def _why(self, row: int, user: int, splits: Splits) -> str:
        then, now = self._content.origin.seen[row], splits.train.lengths()[user]
        return (
            f"{self.path}: version {self.number}: written from {then} training interactions (protocol "
            f"{self._content.settings['protocol']}), but the present {now} do not start with these: "
            "some are held out now, or the data changed; refresh the store with these settings"
        )


def register() -> None:
    """Registers stores as a source of pools, `config.pool.provider` "store"."""
    source = Source(
        open=lambda config: StoredPool(config.path_to_read()),
        state=lambda config: PoolStore(config.path_to_read()).state(),
        provenance=lambda config: PoolStore(config.path_to_read()).provenance(),
    )
    register_source("store", source)
