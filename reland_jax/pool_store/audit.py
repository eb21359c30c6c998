"""The audit log of a pool store, a chain of lines with checksums, and the mark that identifies a store.

Every line has the SHA-256 of all bytes before it ("previous") and the new checksums of the two lists
("lists"), so edited, lost or moved lines and deleted or replaced lists are detected. The mark (`MARK_FILE`)
identifies a pool store, and has the number of lines and the checksum of the complete log, so that a truncated
log is detected too. The checksums have no key: they detect accidents, not deliberate changes.

A line with "anchor" starts the chain: in a log of an earlier program without a chain, or after
`experiments.pool seal` accepted a permanent loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reland_jax.files import append_line, read_regular, write_json
from reland_jax.types import RelandError

AUDIT_FILE = "audit.jsonl"
MARK_FILE = "store.json"
FORMAT = "reland-pool-store"
FORMAT_VERSION = 1

_TRIES = 5
_WAIT_SECONDS = 0.05
_NOTHING = hashlib.sha256(b"").hexdigest()
Found = TypeVar("Found")
ADVICE = "restore it from a copy, or accept the present state: python -m experiments.pool seal"


class Mark(NamedTuple):
    """The content of `MARK_FILE`.

    Attributes:
        lines: number of lines of the audit log.
        sha256: checksum of all of them.
    """

    lines: int
    sha256: str


class Log(NamedTuple):
    """An audit log that was read and checked.

    Attributes:
        entries: its lines, oldest first, without a last one that a crash cut off.
        sha256: checksum of the lines, "previous" of the next one.
        chained: whether the last line has the checksum of those before it (true for an empty log).
        lists: checksums of the lists in the last line that has them; None without such a line.
        whole: bytes of the complete lines.
    """

    entries: list[dict[str, Any]]
    sha256: str
    chained: bool
    lists: dict[str, str] | None
    whole: int


def read_log(store: Path) -> Log:
    """The audit log, after checking every line and comparing it with the mark.

    Raises:
        RelandError: a line or the mark is damaged, edited or missing; the message names it.
    """
    return patiently(lambda: _read_log(store))


def patiently(read: Callable[[], Found]) -> Found:
    """What a read finds; it is tried again while another process may be between two writes."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(RelandError):
            return read()
        time.sleep(_WAIT_SECONDS)
    return read()


def _read_log(store: Path) -> Log:
    log, mark = _parsed(store / AUDIT_FILE), read_mark(store)
    if mark is None:
        if log.entries and "previous" in log.entries[-1]:
            raise RelandError(f"{store / MARK_FILE}: missing; {ADVICE}")
        return log
    # The mark lacks the last line if a process was killed between writing the two.
    behind = log.chained and log.entries and log.entries[-1].get("previous") == mark.sha256
    if mark.sha256 != log.sha256 and not behind:
        raise RelandError(
            f"{store / AUDIT_FILE}: lines are missing or edited: {MARK_FILE} records {mark.lines} lines "
            f"with another checksum than the {len(log.entries)} that are there; {ADVICE}"
        )
    return log


def read_mark(store: Path) -> Mark | None:
    """The mark of a store; None without one.

    Raises:
        RelandError: the file is damaged, of a newer version of this program, or of another program.
    """
    path = store / MARK_FILE
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}")
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {values['format_version']!r} instead of {FORMAT_VERSION}")
        return Mark(int(values["audit"]["lines"]), str(values["audit"]["sha256"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RelandError(
            f"{path}: not the mark of a pool store ({type(error).__name__}: {error}); {ADVICE}"
        ) from error


def append(store: Path, log: Log, record: Mapping[str, Any]) -> Log:
    """Appends a line and updates the mark; both are on disk when this returns.

    Args:
        store: folder of the store, locked.
        log: the present log.
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
    """Marks a folder as a pool store with this log, by default an empty one."""
    lines, sha256 = (len(log.entries), log.sha256) if log else (0, _NOTHING)
    values = {"format": FORMAT, "format_version": FORMAT_VERSION, "audit": {"lines": lines, "sha256": sha256}}
    write_json(store / MARK_FILE, values, private=True)


def published(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines about new versions; the others are about lists, purges and the log itself."""
    return [entry for entry in entries if "version" in entry]


def log_as_it_is(store: Path) -> Log:
    """The readable lines of a log that may be damaged."""
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
    """The content of an audited file of a store; empty if it is missing.

    Raises:
        RelandError: it cannot be read, or is not a file.
    """
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RelandError(f"{path}: cannot be read ({error.strerror}); {ADVICE}") from error


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line as an object; None if it is not a line of an audit log."""
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
