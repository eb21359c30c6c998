"""The store of pools: versions under control, edits, removals without trace, an audit log.

This is its door: what other packages use is named here. The method does not know of it; `register` makes a
store a source of pools (`config.pool.provider` "store").
"""

from reland_jax.pool_store import edits
from reland_jax.pool_store.asked import ASKING_FOLDER, note_requests, read_asked
from reland_jax.pool_store.audit import read_log
from reland_jax.pool_store.builders import Guard, asking, nobody_asks
from reland_jax.pool_store.histories import history_codes
from reland_jax.pool_store.lists import allowed, lists_as_they_lie, read_lists, read_patterns, read_removals
from reland_jax.pool_store.patterns import check_patterns
from reland_jax.pool_store.purging import Purged, is_current_clean, not_purged, purge, to_purge, verify
from reland_jax.pool_store.rematch import (
    dense_users,
    difference,
    new_content,
    read_version,
    screened,
    with_pool,
    without_users,
)
from reland_jax.pool_store.source import register
from reland_jax.pool_store.store import PoolStore
from reland_jax.pool_store.tidying import check_store
from reland_jax.pool_store.version_files import Content, Population, read_record

__all__ = [
    "ASKING_FOLDER",
    "Content",
    "Guard",
    "PoolStore",
    "Population",
    "Purged",
    "allowed",
    "asking",
    "check_patterns",
    "check_store",
    "dense_users",
    "difference",
    "edits",
    "history_codes",
    "is_current_clean",
    "lists_as_they_lie",
    "new_content",
    "nobody_asks",
    "not_purged",
    "note_requests",
    "purge",
    "read_asked",
    "read_lists",
    "read_log",
    "read_patterns",
    "read_record",
    "read_removals",
    "read_version",
    "register",
    "screened",
    "to_purge",
    "verify",
    "with_pool",
    "without_users",
]
