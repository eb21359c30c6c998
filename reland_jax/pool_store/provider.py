"""Rationales from the current version of a pool store (provider "store")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reland_jax.config import PoolConfig
from reland_jax.files import checksum, resolve
from reland_jax.pool.contract import Problem, ProviderResult, RationaleRequest
from reland_jax.pool.prompting.scrub import name_files
from reland_jax.pool_store.histories import history_codes
from reland_jax.pool_store.lists import allowed, read_patterns, read_removals
from reland_jax.pool_store.store import PoolStore
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Rationale, SeedSet, Splits


class StoreProvider:
    """Returns the rationales of the current version, without those on the store's lists.

    Attributes:
        path: the store.
        number: the version that was read.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads and checks the version; raises like `PoolStore.read`."""
        store = PoolStore(path)
        self.path = store.folder
        folder = store.path_of()
        self.number = int(folder.name)
        self._content = content = store.read_as_written(self.number)
        user_ids = as_strings(content.population.user_ids)[content.pool.seeds.user].tolist()
        fine = allowed(content.pool.rationales, user_ids, read_removals(self.path), read_patterns(self.path))
        self._rows = {user_ids[row]: row for row in np.flatnonzero(fine).tolist()}

    def seeds(self, ids: IdMap, cluster: np.ndarray | None, splits: Splits) -> tuple[SeedSet, list[Problem]]:
        """The seed users of the version whose rationales may be used with these data and this split.

        A rationale may be used if all training interactions from which it was written are training
        interactions still, and the first ones: then its writer saw nothing that is held out now,
        whatever the split was then. New interactions after them do no harm.

        Args:
            ids: external ids of the present data.
            cluster: ``<int32>[U]``, K-means cluster of every user; None keeps those of the version.
            splits: the present split.

        Returns:
            The seed users in the order of the version, and those left out with the reason.
        """
        dense = {str(user): row for row, user in enumerate(ids.users)}
        problems = [
            Problem(user, f"{self.path}: version {self.number}: the data do not have this user")
            for user in self._rows
            if user not in dense
        ]
        known = [(dense[user], row) for user, row in self._rows.items() if user in dense]
        user, row = np.asarray(known, np.int64).reshape(-1, 2).T
        fits = self._fits(user, row, ids.items, splits)
        for bad in np.flatnonzero(~fits).tolist():
            problems.append(Problem(str(ids.users[user[bad]]), self._why(row[bad], user[bad], splits)))
        user, row = user[fits].astype(np.int32), row[fits]
        stored = self._content.pool.seeds
        clusters = stored.cluster[row] if cluster is None else np.asarray(cluster, np.int32)[user]
        return SeedSet(user, clusters, stored.how[row]), problems

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """Rationales by user id; None for a user that the version does not have."""
        texts = self._content.pool.rationales
        found: list[Rationale | None] = []
        problems = []
        for request in requests:
            row = self._rows.get(request.user_id)
            found.append(None if row is None else texts[row])
            if row is None:
                why = f"{self.path}: version {self.number} has no rationale"
                problems.append(Problem(request.user_id, why))
        return ProviderResult(found, problems)

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
            f"{self._content.settings['protocol']}), and the {now} of now do not begin with all of them: "
            "some are held out now, or the data are others; refresh the store with these settings"
        )


def pool_state(config: PoolConfig) -> list[str]:
    """What a stage that builds a pool depends on beyond its settings: for its stamp.

    Those are the present state of the store, or the content of the pool file and of the files of names.

    Raises:
        RelandError: provider "store", and there is no sound store.
    """
    if config.provider == "store":
        return PoolStore(config.path_to_read()).state()
    files = (config.path or "", *name_files(config.names))
    return [_content_hash(resolve(name)) for name in files]


def _content_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, "" for what is none."""
    return checksum(path) if path.is_file() else ""
