"""Lists of any number of users, in batches of one shape, from all items or from some of them."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from reland_jax.device import sizes
from reland_jax.eval import Vectors
from reland_jax.eval.ranks import recommend
from reland_jax.mesh import pad_to_axis
from reland_jax.types import Ragged


class Ranked(NamedTuple):
    """Lists, best first; of equal scores the item of the smaller number comes first.

    Attributes:
        item: ``<int32>[n, K]``; where fewer are left a list ends with `PADDING_ITEM`.
        score: ``<float32>[n, K]``, of the model, comparable within a list; minus infinity at its end.
    """

    item: np.ndarray
    score: np.ndarray


def best_of(
    vectors: Vectors,
    users: np.ndarray,
    masked: Ragged,
    count: int,
    num_items: int,
    allowed: np.ndarray | None = None,
) -> Ranked:
    """The best items of users.

    Args:
        vectors: of all users and items.
        users: ``<int>[n]``, rows of `vectors.users`.
        masked: n rows of items that are left out of each list.
        count: length of a list, K.
        num_items: I.
        allowed: ``<int32>[m]``, distinct items in ascending order that lists are made of; None takes all.
    """
    numbers = np.arange(num_items + 1) if allowed is None else np.concatenate([[0], allowed])
    if not len(users) or len(numbers) == 1:
        return Ranked(np.zeros((len(users), 0), np.int32), np.zeros((len(users), 0), np.float32))
    if allowed is not None:
        vectors, masked = _restricted(vectors, masked, numbers, num_items)
    rows, width = _batch(len(users), len(numbers)), _width(masked)
    found = [
        recommend(vectors, *_padded(users, masked, begin, rows, width), count, len(numbers) - 1)
        for begin in range(0, len(users), rows)
    ]
    places, scores = (np.concatenate(each)[: len(users)] for each in zip(*found, strict=True))
    return Ranked(numbers[places].astype(np.int32), scores)


def _restricted(
    vectors: Vectors, masked: Ragged, numbers: np.ndarray, num_items: int
) -> tuple[Vectors, Ragged]:
    """The same with the items of `numbers` alone, numbered anew."""
    items = vectors.items[jnp.asarray(numbers)]
    items = jnp.pad(items, ((0, pad_to_axis(len(items)) - len(items)), (0, 0)))
    place = np.zeros(num_items + 1, np.int32)
    place[numbers] = np.arange(len(numbers))
    return vectors._replace(items=items), masked._replace(items=place[masked.items])


def _batch(users: int, columns: int) -> int:
    """Users at a time: as many as fit into a tile of scores, in a power of two."""
    fitting = max(sizes().score_bytes // (2 * 4 * columns), 1)
    return 1 << min(int(fitting).bit_length() - 1, (users - 1).bit_length())


def _width(masked: Ragged) -> int:
    """Masked items of a row of a batch, in a power of two, so that few programs are compiled."""
    return 1 << max(int(masked.lengths().max(initial=0)) - 1, 0).bit_length()


def _padded(
    users: np.ndarray, masked: Ragged, begin: int, rows: int, width: int
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Users ``<int32>[rows]`` and masked items ``<int32>[rows, width]`` of one batch, 0 where unused."""
    some = np.zeros(rows, np.int32)
    here = users[begin : begin + rows]
    some[: len(here)] = here
    out = np.zeros((rows, width), np.int32)
    lengths = masked.lengths()[begin : begin + rows]
    row = np.repeat(np.arange(len(lengths)), lengths)
    first, last = masked.indptr[begin], masked.indptr[begin + len(lengths)]
    column = np.arange(last - first) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[row, column] = masked.items[first:last]
    return jnp.asarray(some), jnp.asarray(out)


def rows_of(lists: Ragged, rows: np.ndarray) -> Ragged:
    """Some rows of ragged lists, in the order that is asked for."""
    lengths = lists.lengths()[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    place = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - lists.indptr[rows], lengths)
    return Ragged(indptr, lists.items[place])


def nothing(rows: int) -> Ragged:
    """Lists without any items."""
    return Ragged(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
