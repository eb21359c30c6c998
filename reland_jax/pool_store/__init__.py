"""The pool store: versions, edits, removals without trace, and an audit log.

This module exports its public names. The method does not import it; `register` makes a store a source of
pools (`config.pool.provider` "store").
"""

from reland_jax.pool.histories import history_codes
from reland_jax.pool_store import edits
from reland_jax.pool_store.asked import ASKING_FOLDER, note_requests, read_asked
from reland_jax.pool_store.asking_lock import Guard, asking, asking_stopped
from reland_jax.pool_store.audit import read_log
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
    "asking_stopped",
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
