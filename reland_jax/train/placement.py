"""Sharding rules for the arrays of a training, by name.

Arrays with a row per user, item or seed user are sharded over the axis `model`, by rows; arrays with an entry
per interaction over the axis `data`. All others (kernels, biases, shuffles, counters) are replicated. The
optimiser's moments have the names of their parameters, and therefore the same sharding. Without a mesh
nothing here has an effect.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from reland_jax.mesh import DATA, MODEL, active_mesh, constrain, device_put_rows

ROWS = {
    "id_embedding": MODEL,
    "user_embedding": MODEL,
    "item_text": MODEL,
    "rationale": MODEL,
    "seed": MODEL,
    "listed": MODEL,
    "score": MODEL,
    "had": MODEL,
    "profile": MODEL,
    "activity": MODEL,
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
"""Name in the path of an array -> the mesh axis over which its rows are sharded."""


def axis_of(path: Any) -> str | None:
    """The axis of the last name in a tree path that has a rule, or None."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return next((ROWS[name] for name in reversed(names) if name in ROWS), None)


def distribute(tree: Any) -> Any:
    """Puts arrays of the host on the devices, sharded by the rules."""
    return jax.tree_util.tree_map_with_path(lambda path, array: device_put_rows(array, axis_of(path)), tree)


def constrained(tree: Any) -> Any:
    """Constrains arrays inside a compiled function to the sharding of the rules."""

    def of(path: Any, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path) if leaf.ndim else None
        return constrain(leaf, axis) if axis else constrain(leaf)

    return jax.tree_util.tree_map_with_path(of, tree)


def replicated() -> NamedSharding | None:
    """The replicated sharding; None without a mesh."""
    return None if active_mesh() is None else NamedSharding(jax.sharding.get_mesh(), PartitionSpec())


def shardings(shapes: Any) -> Any:
    """The shardings of a tree by the rules, for the results of a compiled function; None without a mesh.

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
