"""Collects error messages of threads and libraries while a command runs.

If the command fails, its last line gives the reason, which hundreds of lines of tracebacks from a library's
threads would hide. If it succeeds, none of these messages may be lost. So they are held back until that is
known.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any, Self

_MOST = 5  # lines that are shown


class Asides:
    """Errors outside of the command's own course, kept as one line each; a context."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._lines: dict[str, None] = {}
        self._before: tuple[Any, ...] = ()
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Self:
        """From here on they are kept."""
        self._before = sys.excepthook, sys.unraisablehook, threading.excepthook
        sys.excepthook = lambda kind, error, trace: self._keep(error, kind)
        sys.unraisablehook = lambda found: self._keep(found.exc_value, found.exc_type)
        threading.excepthook = lambda found: self._keep(found.exc_value, found.exc_type)
        self._handlers = list(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(self._passes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything is as it was before."""
        sys.excepthook, sys.unraisablehook, threading.excepthook = self._before
        for handler in self._handlers:
            handler.removeFilter(self._passes)

    def show(self) -> None:
        """Writes what was kept to stderr."""
        lines = list(self._lines)
        for line in lines[:_MOST]:
            print(f"warning: {line}", file=sys.stderr)
        if len(lines) > _MOST:
            print(f"warning: and {len(lines) - _MOST} more; --debug shows all", file=sys.stderr)

    def _keep(self, error: BaseException | None, kind: type[BaseException]) -> None:
        self._lines[f"in a thread: {kind.__name__}: {' '.join(str(error).split())}"] = None

    def _passes(self, record: logging.LogRecord) -> bool:
        """Whether a line of the log is written at once: all but the tracebacks of libraries."""
        if not record.exc_info or record.levelno < logging.ERROR or record.name.startswith("reland_jax"):
            return True
        self._lines[f"{record.name}: {' '.join(record.getMessage().split())}"] = None
        return False
