"""Progress of long work: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS = 10.0
"""Least time between two lines, in seconds."""

_log = logging.getLogger(__name__)


class Progress:
    """Shows how far a piece of work is.

    On a terminal and in a notebook it is a bar; in a pipe or a file it is a line every few seconds, of the
    log where that is shown, else on stderr.

    Attributes:
        done: units done so far.
    """

    def __init__(
        self, label: str, total: int, unit: str, *, done: int = 0, every: float = SECONDS, quiet: bool = False
    ) -> None:
        """Starts it.

        Args:
            label: what is done.
            total: units in all.
            unit: their name.
            done: units that were done before.
            every: least time between two lines, in seconds; 0 writes a line for every advance.
            quiet: shows nothing.
        """
        self.done, self._label, self._total, self._unit = done, label, total, unit
        self._every, self._quiet, self._line, self._why = every, quiet, "", ""
        self._told_at, self._told = time.monotonic(), False
        shown = sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        bar = shown and not quiet
        self._bar = tqdm(total=total, initial=done, desc=label, unit=unit) if bar else None

    def advance(self, count: int = 1, told: str = "") -> None:
        """Counts units that are done.

        Args:
            count: how many.
            told: figures to show beside them.
        """
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(told, refresh=False)
            self._bar.update(count)
            return
        self._line = f"{self._unit} {self.done:,} of {self._total:,}" + (f", {told}" if told else "")
        if time.monotonic() - self._told_at >= self._every:
            self._tell()

    def stop(self, why: str) -> None:
        """Says why the work ends."""
        self._why = why

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if self._why:
                self._bar.set_postfix_str(self._why)
            self._bar.close()
            return
        if self._line and self._told:
            self._tell()
        if self._why:
            self._write(self._why)

    def _tell(self) -> None:
        self._told_at, self._told = time.monotonic(), True
        self._write(self._line)
        self._line = ""

    def _write(self, line: str) -> None:
        if self._quiet:
            return
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s: %s", self._label, line)
        elif sys.stderr is not None:
            print(f"{self._label}: {line}", file=sys.stderr, flush=True)
