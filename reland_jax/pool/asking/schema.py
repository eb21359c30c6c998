"""The tables of the journal, the upgrade of older files, and the checksum that every answer carries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.types import RelandError

VERSION = 2
"""Version 1 had no checksums, and no `lease` of an owner."""

_APPLICATION_ID = 0x52656C61
_ASKED = """
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
    raw TEXT NOT NULL
);
CREATE INDEX received_key ON received (key, kind);
CREATE UNIQUE INDEX received_accepted ON received (key) WHERE kind = 'accepted';
CREATE TABLE owners (
    id TEXT PRIMARY KEY, machine TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
    alone INTEGER NOT NULL, beat REAL NOT NULL
);
CREATE TABLE claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL REFERENCES owners (id),
    sent_prompt INTEGER NOT NULL DEFAULT 0, sent_response INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX claims_owner ON claims (owner)
"""
CHECKED = (
    "key, kind, paid_prompt, paid_response, received, model, prompt_tokens, response_tokens, created, why, "
    "content, messages, raw"
)
"""The columns of `received` that the checksum is of, in this order."""

SOUND = f"checksum = checksum_of({CHECKED})"
"""SQL: whether a row of `received` is what was written."""

_FROM_1_TO_2 = f"""
ALTER TABLE received ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE owners ADD COLUMN lease REAL NOT NULL DEFAULT 60;
UPDATE received SET checksum = checksum_of({CHECKED})
"""


def install_functions(database: sqlite3.Connection) -> None:
    """Gives a connection the SQL functions that `SOUND` and the upgrade need."""
    database.create_function("checksum_of", -1, _checksum, deterministic=True)
    database.create_function("prompt_hash_of", 1, prompt_hash, deterministic=True)


def new_file() -> bytes:
    """The content of a journal without prompts."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        install_functions(database)
        bring_up_to_date(database, 0)
        return database.serialize()


def version_of(database: sqlite3.Connection, path: Path) -> int:
    """Version of the tables, 0 for a new file.

    Raises:
        RelandError: another kind of database, or a newer version.
    """
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if (tables or version) and application != _APPLICATION_ID:
        raise RelandError(f"{path}: an SQLite file, but not a journal; see config.llm.journal")
    if version > VERSION:
        raise RelandError(
            f"{path}: a journal of version {version}, written by a newer program; this one reads "
            f"up to version {VERSION}: update it, or name another file in config.llm.journal"
        )
    return version


def bring_up_to_date(database: sqlite3.Connection, version: int) -> None:
    """Makes the tables, or adds to older ones what they lack; to be called within a transaction."""
    steps = {0: _ASKED + ";" + _FROM_1_TO_2, 1: _FROM_1_TO_2}
    if version not in steps:
        return
    for statement in steps[version].split(";"):
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
