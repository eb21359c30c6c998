"""The tables of the journal, and the checksum that every answer carries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from reland_jax.pool.asking.records import ACCEPTED
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.types import RelandError

VERSION = 3

CHECKED = (
    "key, kind, paid_prompt, paid_response, received, model, prompt_tokens, response_tokens, created, why, "
    "content, messages, raw, again"
)
"""The columns of `received` that the checksum is of, in this order."""

SOUND = f"checksum = checksum_of({CHECKED})"
"""SQL: whether a row of `received` is what was written."""

_APPLICATION_ID = 0x52656C61
_TABLES = f"""
CREATE TABLE asked (
    key TEXT PRIMARY KEY, prompt_hash TEXT NOT NULL, model TEXT NOT NULL, settings TEXT NOT NULL,
    prompt TEXT NOT NULL
);
CREATE INDEX asked_prompt ON asked (prompt_hash);
CREATE TABLE received (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES asked (key), kind TEXT NOT NULL,
    paid_prompt INTEGER NOT NULL, paid_response INTEGER NOT NULL, received REAL NOT NULL,
    model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, response_tokens INTEGER NOT NULL,
    created TEXT NOT NULL, why TEXT NOT NULL, content TEXT NOT NULL, messages TEXT NOT NULL,
    raw TEXT NOT NULL, again INTEGER NOT NULL, checksum TEXT NOT NULL
);
CREATE INDEX received_key ON received (key, kind);
CREATE UNIQUE INDEX received_accepted ON received (key) WHERE kind = '{ACCEPTED}';
CREATE TABLE pending (
    key TEXT PRIMARY KEY REFERENCES asked (key), prompt_tokens INTEGER NOT NULL,
    response_tokens INTEGER NOT NULL
)
"""


def install_functions(database: sqlite3.Connection) -> None:
    """Gives a connection the SQL functions that `SOUND` needs."""
    database.create_function("checksum_of", -1, _checksum, deterministic=True)
    database.create_function("prompt_hash_of", 1, prompt_hash, deterministic=True)


def new_file() -> bytes:
    """The content of a journal without prompts."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        install_functions(database)
        make_tables(database)
        return database.serialize()


def version_of(database: sqlite3.Connection, path: Path) -> int:
    """Version of the tables, 0 for a new file.

    Raises:
        RelandError: another kind of database, or another version.
    """
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if (tables or version) and application != _APPLICATION_ID:
        raise RelandError(f"{path}: an SQLite file, but not a journal; see config.llm.journal")
    if version not in (0, VERSION):
        raise RelandError(
            f"{path}: a journal of version {version}, this program reads version {VERSION}: use the "
            "program that wrote it, or name another file in config.llm.journal"
        )
    return version


def make_tables(database: sqlite3.Connection) -> None:
    """Makes the tables in an empty database."""
    for statement in _TABLES.split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {VERSION}")


def fault_in(database: sqlite3.Connection) -> str:
    """What is damaged in a journal that SQLite can read, "" if nothing is; reads the whole file."""
    fault = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        return str(fault)
    row = database.execute(f"SELECT id FROM received WHERE NOT ({SOUND}) LIMIT 1").fetchone()
    if row:
        return f"answer {row[0]} is not the one that was written"
    row = database.execute(
        "SELECT rowid FROM asked WHERE prompt_hash != prompt_hash_of(prompt) LIMIT 1"
    ).fetchone()
    if row:
        return f"prompt {row[0]} is not the one that was written"
    row = database.execute(
        "SELECT id FROM received WHERE key NOT IN (SELECT key FROM asked) LIMIT 1"
    ).fetchone()
    return f"answer {row[0]} belongs to no prompt" if row else ""


def _checksum(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode("utf-8")).hexdigest()
