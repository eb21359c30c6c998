"""A ScaNN index that is built once and kept, with the effort that a wanted recall takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.retrieval.index import recall_at_k
from reland_jax.retrieval.scann import BRUTE_FORCE_KEYS, TIES, build_searcher, import_scann, search_with
from reland_jax.retrieval.vectors import checked, unit_rows_host
from reland_jax.scale.tuning import wanted_share
from reland_jax.types import RelandError

# Candidates compared again in full precision that tuning tries.
_REORDER = (10, 20, 30, 50, 80, 120, 200, 400)


class ScannEffort(NamedTuple):
    """The search effort of ScaNN, and its measured recall and cost when it was chosen.

    Attributes:
        leaves: leaves searched per query; 0 where all keys are compared.
        reorder: candidates compared again in full precision.
        recall: share of the exact neighbours found on the sample, in [0, 1].
        microseconds: processor time per query on the sample, all cores together.
    """

    leaves: int
    reorder: int
    recall: float
    microseconds: float

    def __str__(self) -> str:
        """For people."""
        if not self.leaves:
            return "all keys compared"
        return f"{self.leaves} leaves, {self.reorder} compared again"


class ScannIndex:
    """A ScaNN index that is built once, can be kept on disk, and searches with the effort it is given.

    Attributes:
        searcher: ScaNN's own, over unit vectors.
    """

    def __init__(self, keys: np.ndarray, searcher: Any) -> None:
        """Use `build` or `load`.

        Args:
            keys: ``<float32>[S, D]``, finite.
            searcher: ScaNN's, over unit vectors.
        """
        self._keys, self.searcher = keys, searcher

    @classmethod
    def build(cls, keys: np.ndarray, k: int) -> ScannIndex:
        """Trains the index.

        Args:
            keys: ``<float32>[S, D]``, finite.
            k: neighbours that will be asked for.

        Raises:
            RelandError: see `scann_top_k`.
        """
        _, keys = checked(keys[:1], keys, k)
        return cls(keys, build_searcher(unit_rows_host(keys), k))

    @classmethod
    def load(cls, folder: Path, keys: np.ndarray) -> ScannIndex:
        """Reads what `save` wrote for the same keys ``<float32>[S, D]``."""
        return cls(keys, import_scann().load_searcher(str(folder)))

    def save(self, folder: Path) -> None:
        """Writes the index into an existing folder, which may be moved afterwards."""
        self.searcher.serialize(str(folder), relative_path=True)

    def search(
        self, queries: np.ndarray, k: int, effort: ScannEffort, tile: int = 256
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `scann_top_k`, with the given effort; queries ``<float32>[Q, D]``."""
        queries, _ = checked(queries, self._keys, k)
        given = {"leaves_to_search": effort.leaves, "pre_reorder_num_neighbors": effort.reorder}
        return search_with(self.searcher, queries, self._keys, k, tile, given if effort.leaves else {})

    def tune(self, queries: np.ndarray, exact: np.ndarray, recall: float) -> ScannEffort:
        """The cheapest effort that finds the wanted share of the exact neighbours on a sample.

        The share aimed at is `wanted_share`. The cheapest is that of least processor time, which other
        programs on the machine disturb less than the time on the clock.

        Args:
            queries: ``<float32>[Q, D]``, a random sample.
            exact: ``<int32>[Q, k]``, key numbers from `exact_top_k`.
            recall: the share wanted, in (0, 1).

        Raises:
            RelandError: no effort reaches it.
        """
        if len(self._keys) < BRUTE_FORCE_KEYS:
            return self._measured(queries, exact, 0, 0)
        wanted = wanted_share(recall, len(queries))
        cheapest = (self._fewest_leaves(queries, exact, reorder, wanted) for reorder in _REORDER)
        enough = [effort for effort in cheapest if effort]
        if not enough:
            raise RelandError(
                f"ScaNN: no number of leaves finds {wanted:.4f} of the exact neighbours (recall {recall} and "
                f"two standard errors of a sample of {len(queries)}); lower the recall, or use engine 'exact'"
            )
        return min(enough, key=lambda effort: effort.microseconds)

    def _fewest_leaves(
        self, queries: np.ndarray, exact: np.ndarray, reorder: int, wanted: float
    ) -> ScannEffort | None:
        """By bisection, as recall grows with the leaves; None where even the most do not suffice."""
        if reorder < exact.shape[1] + TIES:
            return None
        low, high, best = 1, round(len(self._keys) ** 0.5), None
        while low <= high:
            middle = (low + high) // 2
            found = self._measured(queries, exact, middle, reorder)
            if found.recall >= wanted:
                best, high = found, middle - 1
            else:
                low = middle + 1
        return best

    def _measured(self, queries: np.ndarray, exact: np.ndarray, leaves: int, reorder: int) -> ScannEffort:
        begin = time.process_time()
        index, _ = self.search(queries, exact.shape[1], ScannEffort(leaves, reorder, 0.0, 0.0))
        microseconds = 1e6 * (time.process_time() - begin) / len(queries)
        return ScannEffort(leaves, reorder, recall_at_k(index, exact), microseconds)
