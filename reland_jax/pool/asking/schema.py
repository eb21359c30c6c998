"""The tables of the journal, the upgrade of older files, and the checksum that every answer carries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from reland_jax.pool.asking.records import ACCEPTED
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.types import RelandError

VERSION = 3
"""Version 1 had no checksums; version 2 had owners with claims in place of a lock, and no column `again`."""

CHECKED = (
    "key, kind, paid_prompt, paid_response, received, model, prompt_tokens, response_tokens, created, why, "
    "content, messages, raw, again"
)
"""The columns of `received` that the checksum is of, in this order."""

SOUND = f"checksum = checksum_of({CHECKED})"
"""SQL condition: the checksum of a row of `received` is right."""

_APPLICATION_ID = 0x52656C61
_CHECKED_IN_2 = CHECKED.removesuffix(", again")
_PENDING = """
CREATE TABLE pending (
    key TEXT PRIMARY KEY REFERENCES asked (key), prompt_tokens INTEGER NOT NULL,
    response_tokens INTEGER NOT NULL
)
"""
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
{_PENDING}
"""
_FROM_1_TO_2 = f"""
ALTER TABLE received ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE received SET checksum = checksum_of({_CHECKED_IN_2});
"""
_FROM_2_TO_3 = f"""
ALTER TABLE received ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
UPDATE received SET again = messages != '';
UPDATE received SET checksum =
    CASE checksum WHEN checksum_of({_CHECKED_IN_2}) THEN checksum_of({CHECKED}) ELSE 'damaged' END;
{_PENDING};
INSERT INTO pending SELECT key, sent_prompt, sent_response FROM claims WHERE sent_prompt + sent_response > 0;
DROP TABLE claims;
DROP TABLE owners
"""
_STEPS = {0: _TABLES, 1: _FROM_1_TO_2 + _FROM_2_TO_3, 2: _FROM_2_TO_3}
"""SQL that upgrades a file, by its version; 0 is a new file."""


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
        raise RelandError(f"{path}: an SQLite file, but not a journal; change config.llm.journal")
    if version > VERSION:
        raise RelandError(
            f"{path}: a journal of version {version}, written by a newer program; this one reads "
            f"up to version {VERSION}: update it, or name another file in config.llm.journal"
        )
    return version


def bring_up_to_date(database: sqlite3.Connection, version: int, path: Path | str = "") -> None:
    """Makes the tables, or turns older ones into them; to be called within a transaction.

    Raises:
        RelandError: a process of an older version of this program is using the file.
    """
    if version not in _STEPS:
        return
    if version:
        _refuse_at_work(database, version, path)
    for statement in _STEPS[version].split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {VERSION}")


def _refuse_at_work(database: sqlite3.Connection, version: int, path: Path | str) -> None:
    """Refuses a file that a process of version 2 is using: it renewed its entry within the lease."""
    lease = "lease" if version > 1 else "60"
    query = f"SELECT pid FROM owners WHERE ABS(beat - ?) < {lease}"
    if working := database.execute(query, (time.time(),)).fetchone():
        raise RelandError(
            f"{path}: process {working[0]}, of an older version of this program, was using this journal "
            "a moment ago; run the command again a few minutes after it has ended"
        )


def fault_in(database: sqlite3.Connection) -> str:
    """The damage in a journal that SQLite can read, "" if there is none; reads the whole file."""
    fault = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        return str(fault)
    row = database.execute(f"SELECT id FROM received WHERE NOT ({SOUND}) LIMIT 1").fetchone()
    if row:
        return f"the checksum of answer {row[0]} is wrong"
    row = database.execute(
        "SELECT rowid FROM asked WHERE prompt_hash != prompt_hash_of(prompt) LIMIT 1"
    ).fetchone()
    if row:
        return f"the hash of prompt {row[0]} is wrong"
    row = database.execute(
        "SELECT id FROM received WHERE key NOT IN (SELECT key FROM asked) LIMIT 1"
    ).fetchone()
    return f"answer {row[0]} belongs to no prompt" if row else ""


def _checksum(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode("utf-8")).hexdigest()
