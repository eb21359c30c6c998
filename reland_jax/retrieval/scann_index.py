"""Nearest keys by cosine through ScaNN: approximate, for pools too large to compare with in full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from reland_jax.retrieval.exact import exact_top_k
from reland_jax.retrieval.vectors import checked, unit_rows_host
from reland_jax.scale.tuning import wanted_share
from reland_jax.types import RelandError

BRUTE_FORCE_KEYS = 5000
"""Below this many keys ScaNN compares with all of them, which equals the exact engine."""

# Neighbours asked for beyond k, so that keys tied with the k-th are seen and the smallest number wins.
_TIES = 8

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
        return cls(keys, _searcher(unit_rows_host(keys), k))

    @classmethod
    def load(cls, folder: Path, keys: np.ndarray) -> ScannIndex:
        """Reads what `save` wrote for the same keys ``<float32>[S, D]``."""
        return cls(keys, _scann().load_searcher(str(folder)))

    def save(self, folder: Path) -> None:
        """Writes the index into an existing folder, which may be moved afterwards."""
        self.searcher.serialize(str(folder), relative_path=True)

    def search(
        self, queries: np.ndarray, k: int, effort: ScannEffort, tile: int = 256
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `scann_top_k`, with the given effort; queries ``<float32>[Q, D]``."""
        queries, _ = checked(queries, self._keys, k)
        given = {"leaves_to_search": effort.leaves, "pre_reorder_num_neighbors": effort.reorder}
        return _nonzero_search(self.searcher, queries, self._keys, k, tile, given if effort.leaves else {})

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
        if reorder < exact.shape[1] + _TIES:
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
        found = (exact[:, :, None] == index[:, None, :]).any(axis=2).mean()
        return ScannEffort(leaves, reorder, float(found), microseconds)


def scann_top_k(
    queries: np.ndarray | jax.Array, keys: np.ndarray | jax.Array, k: int, tile: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of largest cosine for every query, by ScaNN; arguments and results as `exact_top_k`.

    From `BRUTE_FORCE_KEYS` keys on, the keys are put into about sqrt(S) leaves, a quarter of which
    is searched with compressed vectors; the best are compared again in full precision. `recall_at_k`
    measures what that misses; it varies a little, as ScaNN draws its own random numbers. Among keys
    of equal cosine the smaller number wins as long as no more than 8 keys tie beyond the k-th.

    Args:
        queries: ``<float32>[Q, D]``, finite.
        keys: ``<float32>[S, D]``, finite.
        k: keys per query, in 1 .. S.
        tile: queries handed to a thread at a time.

    Returns:
        Key numbers ``<int32>[Q, k]``, nearest first, and their cosines ``<float32>[Q, k]`` in [-1, 1].

    Raises:
        RelandError: as `exact_top_k`; also where ScaNN is not installed.
    """
    queries, keys = checked(queries, keys, k)
    searcher = _searcher(unit_rows_host(keys), k)
    return _nonzero_search(searcher, queries, keys, k, tile, {})


def _nonzero_search(
    searcher: Any, queries: np.ndarray, keys: np.ndarray, k: int, tile: int, effort: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """`_search` for all queries but those of zeros, which tie with every key: their answer is known, and
    ScaNN would give any of them."""
    nonzero = np.flatnonzero(queries.any(axis=1))
    if len(nonzero) == len(queries) > 0:
        return _search(searcher, queries, keys, k, tile, **effort)
    index = np.tile(np.arange(k, dtype=np.int32), (len(queries), 1))
    cosine = np.zeros((len(queries), k), np.float32)
    if len(nonzero):
        index[nonzero], cosine[nonzero] = _search(searcher, queries[nonzero], keys, k, tile, **effort)
    return index, cosine


def _search(
    searcher: Any, queries: np.ndarray, keys: np.ndarray, k: int, tile: int, **effort: int
) -> tuple[np.ndarray, np.ndarray]:
    found, score = searcher.search_batched_parallel(
        unit_rows_host(queries),
        final_num_neighbors=min(len(keys), k + _TIES),
        batch_size=tile,
        **effort,
    )
    found, score = found.astype(np.int32), np.clip(score, -1.0, 1.0)
    index, cosine = _first_of_tied(found, score, k)
    # ScaNN fills up with NaN where the leaves it searched hold fewer than k keys.
    short = np.flatnonzero(np.isnan(cosine).any(axis=1))
    if len(short):
        index[short], cosine[short] = exact_top_k(queries[short], keys, k, tile)
    return index, cosine


def _first_of_tied(found: np.ndarray, score: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of ``[Q, n]``, the smaller key number first where scores are equal; NaN comes last."""
    if k == 1 and not np.isnan(score).any():
        cosine = score.max(axis=1, keepdims=True)
        last = np.iinfo(found.dtype).max
        return np.where(score == cosine, found, last).min(axis=1, keepdims=True), cosine
    order = np.lexsort((found, -score))[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(score, order, axis=1)


def _searcher(keys: np.ndarray, k: int) -> Any:
    """A ScaNN searcher over unit vectors ``<float32>[S, D]``."""
    neighbours = min(len(keys), k + _TIES)
    builder = _scann().builder(keys, neighbours, "dot_product")
    if len(keys) < BRUTE_FORCE_KEYS:
        return builder.score_brute_force().build()
    leaves = round(len(keys) ** 0.5)
    tree = builder.tree(
        num_leaves=leaves,
        num_leaves_to_search=max(1, leaves // 4),
        training_sample_size=min(len(keys), 250_000),
        spherical=True,
    )
    return tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(max(100, 4 * neighbours)).build()


def _scann() -> Any:
    try:
        from scann import scann_ops_pybind
    except (ImportError, OSError) as error:
        raise RelandError(
            f"config.retrieval.engine='scann', but ScaNN cannot be imported ({error}). Install it with "
            "`pip install -r requirements-scann.txt` (there are packages for Linux only), or set "
            "config.retrieval.engine='exact'"
        ) from error
    return scann_ops_pybind
