"""What items are linked to in a graph: their brands, categories and the like, numbered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reland_jax.strings import distinct
from reland_jax.types import Interactions

NO_ENTITY = -1


def item_entities(interactions: Interactions, fields: Sequence[str]) -> np.ndarray:
    """Numbers the distinct values of some item columns.

    A value is an entity as it stands: a whole category path is one. The same value in two columns is
    two entities. A column without any value, or that the data lack, is left out.

    Args:
        interactions: with item features.
        fields: names of columns.

    Returns:
        ``<int32>[F, I + 1]`` for the F columns that there are: the entity of every item, or
        `NO_ENTITY`. Numbers begin at 0 and go on from one column to the next.
    """
    rows, first = [], 0
    for name in fields:
        values = interactions.item_features.get(name)
        if values is None or not (known := np.flatnonzero(values != "")).size:
            continue
        names, code = distinct(values[known])
        row = np.full(interactions.num_items + 1, NO_ENTITY, np.int32)
        row[known] = first + code
        first += len(names)
        rows.append(row)
    return np.array(rows, np.int32).reshape(-1, interactions.num_items + 1)
