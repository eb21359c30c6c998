"""Generated interactions with the statistics of real ones, for any number of users."""

from __future__ import annotations

import numpy as np

from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions

DATA_SEED = 0
"""Of measurements."""

SHORTEST, LONGEST, LENGTH_LOG_MEAN, LENGTH_LOG_DEVIATION = 5, 200, 0.615, 1.31
"""Interactions of a user: the least, the most, and the logarithm of what goes beyond the least."""

ZIPF_EXPONENT, ZIPF_OFFSET = 0.71, 28 / 12_101
"""Of item popularity; the offset is a share of the items."""

STATISTICS = (SHORTEST, LONGEST, LENGTH_LOG_MEAN, LENGTH_LOG_DEVIATION, ZIPF_EXPONENT, ZIPF_OFFSET)
"""All that the interactions depend on besides their number and the seed."""


def generate(users: int, items: int, seed: int) -> Interactions:
    """Interactions with the statistics of 5-core Amazon Beauty (22,363 users, 12,101 items).

    A user has 8.88 different items on average, at least 5 and at most 200 or half of all: 5 plus a
    log-normal number, rounded down. Item popularity follows Zipf's law with an offset (Mandelbrot): the
    most popular of 12,101 items has about 420 interactions and the median one 10, in Beauty 431 and 9.

    Args:
        users: U.
        items: I, at least twice `SHORTEST`.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    beyond = np.floor(rng.lognormal(LENGTH_LOG_MEAN, LENGTH_LOG_DEVIATION, users))
    lengths = np.minimum(SHORTEST + beyond, min(LONGEST, items // 2)).astype(np.int64)
    user = np.repeat(np.arange(users, dtype=np.int32), lengths)
    item = _draw_items(rng, user, items)
    ids = IdMap(as_strings(map(str, range(users))), as_strings(["", *map(str, range(items))]))
    return Interactions(user, item, np.arange(len(user), dtype=np.float64), ids, {}, {})


def _draw_items(rng: np.random.Generator, user: np.ndarray, items: int) -> np.ndarray:
    """``<int32>[n]`` for the users ``<int32>[n]``, no item twice for one of them."""
    weight = (np.arange(1, items + 1) + ZIPF_OFFSET * items) ** -ZIPF_EXPONENT
    upper = np.cumsum(weight)[:-1] / weight.sum()
    by_rank = rng.permutation(items).astype(np.int32) + 1

    def draw(count: int) -> np.ndarray:
        return by_rank[np.searchsorted(upper, rng.random(count), side="right")]

    item = draw(len(user))
    while len(again := _repeated(user, item, items)):
        item[again] = draw(len(again))
    return item


def _repeated(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """Rows whose user has the same item in an earlier row, ``<int64>[repeats]``."""
    pair = user.astype(np.int64) * (items + 1) + item
    order = np.argsort(pair, kind="stable")
    return order[1:][np.diff(pair[order]) == 0]
