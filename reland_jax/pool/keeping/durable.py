"""Files that are on the disk when the call returns, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file as a whole: written aside, forced to the disk, then renamed."""
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        aside.write_bytes(content)
        sync(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def append_durably(path: Path, line: bytes) -> None:
    """Appends one line and forces it to the disk."""
    new = not path.exists()
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Forces everything below a folder, and the folder, to the disk."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
