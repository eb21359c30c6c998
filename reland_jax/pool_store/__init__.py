"""The store of pools: versions under control, edits, removals without trace, an audit log."""

import reland_jax.pool  # noqa: F401  (its parts that read a store come first)
