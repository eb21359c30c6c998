"""The audit log of a pool store, a chain of lines with checksums, and the mark that identifies a store.

Every line keeps the SHA-256 of all bytes before it ("previous") and the checksums of the two lists as they
are from then on ("lists"), so a line that was edited, lost or put in another place is noticed, and so is a
list that was deleted or replaced. The mark (`MARK_FILE`) says that a folder is a pool store, and keeps the
number of lines and the checksum of the whole log: its end cannot be cut off unnoticed either. The checksums
have no key: they detect accidents, not a person who recomputes them.

A line with "anchor" begins the chain: the first one where an earlier version of this program wrote a log
without it, and one that `experiments.pool seal` makes where something was lost for good.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.files import append_line, read_regular, write_json
from reland_jax.types import RelandError

AUDIT_FILE = "audit.jsonl"
MARK_FILE = "store.json"
FORMAT = "reland-pool-store"
FORMAT_VERSION = 1

_TRIES = 4
_WAIT_SECONDS = 0.05
_NOTHING = hashlib.sha256(b"").hexdigest()
ADVICE = "restore it from a copy, or accept what is there on record: python -m experiments.pool seal"


class Mark(NamedTuple):
    """What `MARK_FILE` says of the audit log.

    Attributes:
        lines: how many there are.
        sha256: checksum of all of them.
    """

    lines: int
    sha256: str


class Log(NamedTuple):
    """An audit log that was read and checked.

    Attributes:
        entries: its lines, oldest first, without one that was cut off by a crash.
        sha256: checksum of the lines; what the next one keeps as "previous".
        chained: whether the last line has the checksum of those before it (true for an empty log).
        lists: checksums of the lists by the last line that has them; None where none has.
        whole: bytes of the whole lines.
    """

    entries: list[dict[str, Any]]
    sha256: str
    chained: bool
    lists: dict[str, str] | None
    whole: int


def read_log(store: Path) -> Log:
    """The audit log, after checking every line of it and holding it against the mark.

    Raises:
        RelandError: a line or the mark is damaged, edited or missing; the message names it.
    """
    tries = _TRIES
    while True:
        tries -= 1
        try:
            return _read_log(store)
        except RelandError:
            if not tries:
                raise
            time.sleep(_WAIT_SECONDS)  # another process may be between a line and the mark


def _read_log(store: Path) -> Log:
    log, mark = _parsed(store / AUDIT_FILE), read_mark(store)
    if mark is None:
        if log.entries and "previous" in log.entries[-1]:
            raise RelandError(f"{store / MARK_FILE}: missing; {ADVICE}")
        return log
    # A process that was killed between the two leaves the mark one line behind.
    behind = log.chained and log.entries and log.entries[-1].get("previous") == mark.sha256
    if mark.sha256 != log.sha256 and not behind:
        raise RelandError(
            f"{store / AUDIT_FILE}: lines are missing or edited: {MARK_FILE} tells of {mark.lines} lines "
            f"with another checksum than the {len(log.entries)} that are there; {ADVICE}"
        )
    return log


def read_mark(store: Path) -> Mark | None:
    """The mark of a store; None where there is none.

    Raises:
        RelandError: the file is damaged, of a newer version of this program, or of another program.
    """
    path = store / MARK_FILE
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}")
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {values['format_version']!r}, known is {FORMAT_VERSION}")
        return Mark(int(values["audit"]["lines"]), str(values["audit"]["sha256"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RelandError(
            f"{path}: not the mark of a pool store ({type(error).__name__}: {error}); {ADVICE}"
        ) from error


def append(store: Path, log: Log, record: Mapping[str, Any]) -> Log:
    """Appends a line, and says so in the mark; both are on disk when this returns.

    Args:
        store: folder of the store, locked.
        log: as it is.
        record: the line; "previous" is filled in.

    Returns:
        The log as it is now.
    """
    record = {**record, "previous": log.sha256}
    line = json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"
    append_line(store / AUDIT_FILE, line.encode("utf-8"), private=True)
    log = _parsed(store / AUDIT_FILE)
    write_mark(store, log)
    return log


def write_mark(store: Path, log: Log | None = None) -> None:
    """Marks a folder as a pool store with this log, an empty one unless given."""
    lines, sha256 = (len(log.entries), log.sha256) if log else (0, _NOTHING)
    values = {"format": FORMAT, "format_version": FORMAT_VERSION, "audit": {"lines": lines, "sha256": sha256}}
    write_json(store / MARK_FILE, values, private=True)


def published(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines about new versions; the others are about lists, purges and the log itself."""
    return [entry for entry in entries if "version" in entry]


def log_as_it_is(store: Path) -> Log:
    """The whole lines of a log that may be damaged: those that cannot be read are left out."""
    content = content_of(store / AUDIT_FILE)
    whole = content[: content.rfind(b"\n") + 1]
    entries = [entry for line in whole.split(b"\n")[:-1] if (entry := _entry(line)) is not None]
    return Log(entries, hashlib.sha256(whole).hexdigest(), False, _lists(entries), len(whole))


def _parsed(path: Path) -> Log:
    content = content_of(path)
    whole = content[: content.rfind(b"\n") + 1]
    lines = [(line, _entry(line)) for line in whole.split(b"\n")[:-1]]
    running, before = hashlib.sha256(), []
    for line, _ in lines:
        before.append(running.hexdigest())
        running.update(line + b"\n")
    anchors = [
        row for row, (_, entry) in enumerate(lines)
        if entry and entry.get("anchor") and entry.get("previous") == before[row]
    ]  # fmt: skip
    chained = not lines
    for row in range(anchors[-1] if anchors else 0, len(lines)):
        entry = lines[row][1]
        if entry is None:
            raise RelandError(f"{path}:{row + 1}: not a line of the audit log; {ADVICE}")
        if entry.get("previous", None if chained and row else before[row]) != before[row]:
            raise RelandError(f"{path}:{row + 1}: this line or one before it was edited or lost; {ADVICE}")
        chained = "previous" in entry
    entries = [entry for _, entry in lines if entry is not None]
    return Log(entries, running.hexdigest(), chained, _lists(entries), len(whole))


def content_of(path: Path) -> bytes:
    """The content of an audited file of a store; nothing where it is missing.

    Raises:
        RelandError: it cannot be read, or is no file.
    """
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RelandError(f"{path}: cannot be read ({error.strerror}); {ADVICE}") from error


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line as an object; None for what is no line of an audit log."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or not isinstance(entry.get("lists", {}), dict):
            return None
        if "version" in entry:
            entry["version"] = int(entry["version"])
    except (ValueError, TypeError, OverflowError, RecursionError):  # 1e400 is infinite
        return None
    return entry if "action" in entry else None


def _lists(entries: list[dict[str, Any]]) -> dict[str, str] | None:
    return next((dict(entry["lists"]) for entry in reversed(entries) if "lists" in entry), None)
