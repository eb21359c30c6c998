"""Where the arrays of a training lie on the mesh: the rules, by name.

What has a row per user, item or seed user is shared out over the axis `model`, by rows; what has an entry
per interaction over the axis `data`. All else (kernels, biases, shuffles, counters) is whole on every
device. The optimiser's moments carry the names of their parameters, and so lie beside them. Without a
mesh nothing here does anything.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from reland_jax.mesh import DATA, MODEL, active_mesh, constrain, put

ROWS = {
    "id_embedding": MODEL,
    "user_embedding": MODEL,
    "item_text": MODEL,
    "rationale": MODEL,
    "seed": MODEL,
    "cosine": MODEL,
    "to_users": MODEL,
    "to_items": MODEL,
    "stream": DATA,
    "user": DATA,
    "item": DATA,
    "distinct": DATA,
    "first": DATA,
    "last": DATA,
    "rank": DATA,
}
"""Name in the path of an array -> the axis that shares out its rows."""


def axis_of(path: Any) -> str | None:
    """The axis of the last name in a path of the tree that has a rule, or None."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return next((ROWS[name] for name in reversed(names) if name in ROWS), None)


def distribute(tree: Any) -> Any:
    """Arrays of the host, brought to where the rules say."""
    return jax.tree_util.tree_map_with_path(lambda path, array: put(array, axis_of(path)), tree)


def constrained(tree: Any) -> Any:
    """Says inside a compiled function that arrays lie where the rules say."""

    def of(path: Any, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path) if leaf.ndim else None
        return constrain(leaf, axis) if axis else constrain(leaf)

    return jax.tree_util.tree_map_with_path(of, tree)


def replicated() -> NamedSharding | None:
    """Whole on every device; None without a mesh."""
    return None if active_mesh() is None else NamedSharding(jax.sharding.get_mesh(), PartitionSpec())


def shardings(shapes: Any) -> Any:
    """The same for what a compiled function returns; None without a mesh.

    Args:
        shapes: a tree of arrays or of their shapes.
    """
    if active_mesh() is None:
        return None
    mesh = jax.sharding.get_mesh()

    def of(path: Any, leaf: Any) -> NamedSharding:
        axis = axis_of(path) if leaf.ndim else None
        return NamedSharding(mesh, PartitionSpec(axis) if axis else PartitionSpec())

    return jax.tree_util.tree_map_with_path(of, shapes)
