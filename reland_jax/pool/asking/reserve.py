"""Reserved disk space, so that paid answers can be written even if the disk becomes full."""

from __future__ import annotations

import os
from pathlib import Path

from reland_jax.files import aside_name, sweep

BYTES_PER_REQUEST = 64 * 1024
"""Bytes for one pending answer with its prompt and SQLite's overhead."""


class DiskReserve:
    """A placeholder file beside the journal, removed when its space is needed or the journal is closed."""

    def __init__(self, path: Path) -> None:
        """Reserves nothing yet.

        Args:
            path: of the journal.
        """
        self._path, self._held = path.with_name(f"{path.name}-room"), False

    def hold(self, size: int) -> None:
        """Reserves that many bytes, and releases the reserve of a killed process.

        Raises:
            OSError: the disk has no room.
        """
        sweep(self._path)
        file, self._held = os.open(aside_name(self._path), os.O_CREAT | os.O_RDWR, 0o600), True
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            self.release()
            raise
        finally:
            os.close(file)

    def release(self) -> bool:
        """Releases the space; returns whether any was reserved."""
        held, self._held = self._held, False
        if held:
            aside_name(self._path).unlink(missing_ok=True)
        return held
