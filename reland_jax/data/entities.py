"""The entities that items are linked to in a graph (brands, categories and the like), numbered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reland_jax.config import ModelConfig, nearest_name
from reland_jax.plain import text_columns
from reland_jax.strings import distinct
from reland_jax.types import Interactions, RelandError

NO_ENTITY = -1


def item_entities(interactions: Interactions, fields: Sequence[str]) -> np.ndarray:
    """Numbers the distinct values of some item columns.

    A value is an entity as it stands: a whole category path is one. The same value in two columns is
    two entities. A column without any value is left out, and so is a default one that the data lack.

    Returns:
        ``<int32>[F, I + 1]`` for the F columns that there are: the entity of every item, or
        `NO_ENTITY`. Numbers begin at 0 and go on from one column to the next.

    Raises:
        RelandError: a column that was asked for is not there.
    """
    rows, first = [], 0
    columns = text_columns(interactions.item_features, fields)
    _refuse_missing(set(fields) - set(columns) - set(ModelConfig().entities), interactions)
    for values in columns.values():
        if not (known := np.flatnonzero(values != "")).size:
            continue
        names, code = distinct(values[known])
        row = np.full(interactions.num_items + 1, NO_ENTITY, np.int32)
        row[known] = first + code
        first += len(names)
        rows.append(row)
    return np.array(rows, np.int32).reshape(-1, interactions.num_items + 1)


def _refuse_missing(names: set[str], interactions: Interactions) -> None:
    if names:
        known = list(interactions.item_features)
        raise RelandError(
            f"config.model.entities: the items have no column {min(names)!r}; the columns are "
            f"{', '.join(map(repr, known)) or 'none'}; {nearest_name(min(names), known)}"
        )
